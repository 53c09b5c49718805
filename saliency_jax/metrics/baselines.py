"""Rectangles and maps that need no model: what a mask or a map has to beat.

A rectangle is a box `ymin, xmin, ymax, xmax` with half-open edges in pixels of the crop
for each image, `[B, 4]`, for `localisation.rectangle_scores`.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from saliency_jax.metrics.ilsvrc import truth_boxes


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
    convention: str = "casm",
) -> dict[str, Int[np.ndarray, "B 4"]]:
    """All of them for the images of a batch, by the names of their rows."""
    count = len(boxes_pixels)
    return {
        "whole_image": whole_image(count, size),
        "center_box": center_box(count, size),
        "ground_truth_box": ground_truth_box(
            boxes_pixels, original_size, size, convention
        ),
    }


def rectangle_masks(
    boxes: Int[np.ndarray, "B 4"], size: int | tuple[int, int]
) -> Bool[np.ndarray, "B H W"]:
    """Draws the rectangles into maps of a side, or of (H, W): True inside."""
    rows, columns = (np.arange(side) for side in np.broadcast_to(size, 2))
    top, left, bottom, right = (edge[:, None] for edge in boxes.T)
    inside_rows = (top <= rows) & (rows < bottom)
    inside_columns = (left <= columns) & (columns < right)
    return inside_rows[:, :, None] & inside_columns[:, None, :]


def ground_truth_box(
    boxes_pixels: Int[np.ndarray, "B N 4"],
    original_size: Int[np.ndarray, "B 2"],
    size: int,
    convention: str = "casm",
) -> Int[np.ndarray, "B 4"]:
    """The filed box with the largest part inside the crop, clipped to the crop.

    This is about the best that one box can do: it misses only where the crop cut away
    half of the box or more, or where the filed box has no width, so that its OM is
    nearly the classification error. An image without a box gets an empty one.

    Args:
      boxes_pixels: as filed; rows of -1 are padding.
      original_size: (width, height) of the original images.
      size: side of the crop in pixels.
      convention: that hits are judged by, one of `ilsvrc.CONVENTIONS`.
    """
    boxes = truth_boxes(boxes_pixels, original_size, size, convention)
    visible = np.clip(boxes, 0, size)
    if visible.shape[1] == 0:
        return np.zeros((len(visible), 4), int)
    top, left, bottom, right = np.moveaxis(visible, -1, 0)
    largest = np.argmax((bottom - top) * (right - left), axis=1)
    return visible[np.arange(len(visible)), largest]


def centre_gaussian(count: int, size: int) -> Float[np.ndarray, "B S S"]:
    """A Gaussian about the centre, a quarter of the side wide, `count` times."""
    places = (np.arange(size) + 0.5 - size / 2) / (size / 4)
    profile = np.exp(-(places**2) / 2)
    return np.tile(np.outer(profile, profile).astype(np.float32), (count, 1, 1))


def edges(images: UInt8[np.ndarray, "B S S 3"]) -> Float[np.ndarray, "B S S"]:
    """The gradient's length by Sobel's filters, of the images in grey."""

    def length(image: UInt8[np.ndarray, "S S 3"]) -> Float[np.ndarray, "S S"]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        across, down = (cv2.Sobel(grey, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
        return np.hypot(across, down)

    return np.stack([length(image) for image in images])


def random_maps(
    places: Int[np.ndarray, "B"], size: int, seed: int
) -> Float[np.ndarray, "B S S"]:
    """Uniform noise in [0, 1), of each image by its place in the data."""
    return np.stack(
        [
            np.random.default_rng([seed, place]).random((size, size), np.float32)
            for place in places.tolist()
        ]
    )
