"""Rectangles that need no model, for the same table: what a mask has to beat.

Each returns `[B, 4]` boxes `ymin, xmin, ymax, xmax` with half-open edges in pixels of
the crop, for `localisation.rectangle_scores`.
"""

import numpy as np
from jaxtyping import Bool, Int

from saliency_jax.metrics.localisation import boxes_after_resize_and_crop, is_filed


def whole_image(count: int, size: int) -> Int[np.ndarray, "B 4"]:
    """The whole crop, `count` times."""
    return np.tile([0, 0, size, size], (count, 1))


def center_box(count: int, size: int) -> Int[np.ndarray, "B 4"]:
    """The published scorer's centre box, `count` times.

    It is [33, 191) at 224 pixels, half of the area, and scales with the side.
    """
    low, high = round(33 * size / 224), round(191 * size / 224)
    return np.tile([low, low, high, high], (count, 1))


def rectangles(
    boxes_pixels: Int[np.ndarray, "B N 4"],
    original_size: Int[np.ndarray, "B 2"],
    size: int,
) -> dict[str, Int[np.ndarray, "B 4"]]:
    """All of them for the images of a batch, by the names of their rows."""
    count = len(boxes_pixels)
    return {
        "whole_image": whole_image(count, size),
        "center_box": center_box(count, size),
        "ground_truth_box": ground_truth_box(boxes_pixels, original_size, size),
    }


def rectangle_masks(
    boxes: Int[np.ndarray, "B 4"], size: int
) -> Bool[np.ndarray, "B S S"]:
    """Draws the rectangles: True inside."""
    side = np.arange(size)
    top, left, bottom, right = (edge[:, None] for edge in boxes.T)
    inside_rows = (top <= side) & (side < bottom)
    inside_columns = (left <= side) & (side < right)
    return inside_rows[:, :, None] & inside_columns[:, None, :]


def ground_truth_box(
    boxes_pixels: Int[np.ndarray, "B N 4"],
    original_size: Int[np.ndarray, "B 2"],
    size: int,
) -> Int[np.ndarray, "B 4"]:
    """The filed box with the largest part inside the crop, clipped to the crop.

    This is about the best that one box can do: it misses only where the crop cut away
    half of the box or more, or where the filed box has no width, so that its OM is
    nearly the classification error. An image without a box gets an empty one.
    """
    boxes = boxes_after_resize_and_crop(boxes_pixels, original_size, size)
    visible = np.where(is_filed(boxes_pixels)[..., None], np.clip(boxes, 0, size), 0)
    if visible.shape[1] == 0:
        return np.zeros((len(visible), 4), int)
    xmin, ymin, xmax, ymax = np.moveaxis(visible, -1, 0)
    largest = np.argmax((xmax - xmin) * (ymax - ymin), axis=1)
    return visible[np.arange(len(visible)), largest][:, [1, 0, 3, 2]]
