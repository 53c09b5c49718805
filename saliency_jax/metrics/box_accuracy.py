"""MaxBoxAcc and MaxBoxAccV2: the boxes of contours at the best threshold of all.

Choe et al., "Evaluating weakly supervised object localization methods right", arXiv
2001.07437, by the rules of their code, wsolevaluation:

* a map in [0, 1] is truncated to 8 bits, and a pixel is kept where it is strictly above
  `int(threshold * greatest value)`;
* candidates are the bounding boxes of OpenCV's contours, which are 8-connected, those
  of holes too. MaxBoxAcc takes that of the contour with the largest area (of several
  the first in OpenCV's order), MaxBoxAccV2 all of them;
* boxes are `xmin, ymin, xmax, ymax` and include the pixels at xmax and ymax; but a
  candidate's lie one past its last pixel, within the map. Without any contour the
  candidate is the pixel `0, 0, 0, 0`;
* a hit is an intersection over union of at least 0.5, or of 0.3, 0.5 and 0.7 in V2,
  with any filed box.

The figure is the share of hits at the threshold that is best for all images together,
in V2 the mean of those of the three levels, each at its own best threshold. The best
threshold is chosen on the boxes that are scored, and the figure is optimistic for it.

wsolevaluation stretches the whole image to the map's size (`frame="stretch"`);
elsewhere in this package the centre is cropped (`frame="crop"`), and a filed box is
mapped as in `localisation`: not clipped, so that what was cropped away is missed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from saliency_jax.errors import InputError
from saliency_jax.metrics.localisation import boxes_after_resize_and_crop, is_filed
from saliency_jax.metrics.overlap import intersections, unions
from saliency_jax.metrics.raw_maps import GivenMaps, checked_maps

FRAMES = ("crop", "stretch")
THRESHOLDS = np.arange(0, 1, 0.01)
LEVELS = (0.3, 0.5, 0.7)


class ContourHits(NamedTuple):
    """Of each image, at each threshold of the map (T) and each level of overlap (L).

    Summed over the images that are scored they are the counts that the figures rest on.

    scored: whether the image has a filed box. The rest means nothing where it has none.
    largest: whether the box of the largest contour hits.
    every: whether any contour's box does.
    """

    scored: Bool[np.ndarray, "B"]
    largest: Bool[np.ndarray, "B T L"]
    every: Bool[np.ndarray, "B T L"]


def contour_hits(
    maps: GivenMaps,
    boxes_pixels: Int[np.ndarray, "B N 4"],
    original_size: Int[np.ndarray, "B 2"],
    *,
    thresholds: Float[np.ndarray, "T"] = THRESHOLDS,
    levels: Sequence[float] = LEVELS,
    frame: str = "crop",
) -> ContourHits:
    """Finds which thresholds hit a filed box of each image.

    Args:
      maps: `[B, H, W]` in [0, 1].
      boxes_pixels: as filed; rows of -1 are padding.
      original_size: (width, height) of the original images.
      thresholds: shares of a map's greatest value, in [0, 1).
      levels: of intersection over union.
      frame: what became of the images, one of `FRAMES`; "crop" wants square maps.

    Raises:
      InputError: the frame is unknown, or the maps have another shape, are not finite
        or are not in [0, 1].
    """
    maps = checked_maps(maps, in_unit_range=True)
    if frame not in FRAMES:
        raise InputError(f"frame {frame!r} is unknown: use one of {FRAMES}")
    height, width = maps.shape[1:]
    if frame == "stretch":
        truth = boxes_after_stretch(boxes_pixels, original_size, (width, height))
    elif height == width:
        truth = boxes_after_resize_and_crop(boxes_pixels, original_size, height)
    else:
        raise InputError(f"maps of {height} x {width}: a crop at the centre is square")
    filed = is_filed(boxes_pixels)
    largest = np.zeros((len(maps), len(thresholds), len(levels)), bool)
    every = np.zeros_like(largest)
    for index in np.flatnonzero(filed.any(axis=1)):
        pixels = (maps[index] * 255).astype(np.uint8)
        steps = (thresholds * int(pixels.max())).astype(int)
        # A map has at most 256 values, however many thresholds there are.
        distinct, which = np.unique(steps, return_inverse=True)
        ious = _contour_ious(pixels, distinct, truth[index, filed[index]])[which]
        largest[index], every[index] = np.moveaxis(ious[..., None] >= levels, 1, 0)
    return ContourHits(filed.any(axis=1), largest, every)


def best_shares(
    means: Float[np.ndarray, "R T *L"],
) -> Float[np.ndarray, "R *L"]:
    """Returns the share of hits at the best threshold of each level.

    MaxBoxAcc is that of `largest` at the level 0.5, MaxBoxAccV2 the mean of those of
    `every`. Fractions; higher is better.

    Args:
      means: of the hits of `contour_hits`, over the images that have a box; of any
        number of draws of images.
    """
    return means.max(axis=1)


def contour_boxes(
    pixels: UInt8[np.ndarray, "H W"], step: int
) -> tuple[Int[np.ndarray, "C 4"], Float[np.ndarray, "C"]]:
    """Returns the bounding boxes of all contours of the pixels above a step.

    Returns:
      The boxes, `xmin, ymin, xmax, ymax` as in this file's head, at least one; and the
      areas of their contours.
    """
    kept = (pixels > step).view(np.uint8)
    contours, _ = cv2.findContours(kept, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.zeros((1, 4), int), np.zeros(1)
    # All contours at once: a map of noise has thousands.
    lengths = np.array([len(contour) for contour in contours])
    starts = np.cumsum(lengths) - lengths
    points = np.concatenate(contours)[:, 0].astype(int)
    following = np.arange(1, len(points) + 1)
    following[starts + lengths - 1] = starts
    x, y = points.T
    cross = x * y[following] - x[following] * y
    last = np.array(pixels.shape[::-1]) - 1
    low = np.minimum.reduceat(points, starts)
    high = np.minimum(np.maximum.reduceat(points, starts) + 1, last)
    areas = np.abs(np.add.reduceat(cross, starts)) / 2
    return np.concatenate([low, high], axis=1), areas


def inclusive_iou(
    boxes: Int[np.ndarray, "C 4"], truth: Int[np.ndarray, "N 4"]
) -> Float[np.ndarray, "C"]:
    """Returns each box's greatest intersection over union with the true ones.

    Args:
      boxes: `xmin, ymin, xmax, ymax` with the pixels at xmax and ymax.
      truth: likewise, at least one.
    """
    past = np.array([0, 0, 1, 1])
    boxes, truth = boxes[:, None] + past, truth + past
    return (intersections(boxes, truth) / unions(boxes, truth)).max(axis=1)


def boxes_after_stretch(
    boxes_pixels: Int[np.ndarray, "*B N 4"],
    original_size: Int[np.ndarray, "*B 2"],
    size: tuple[int, int],
) -> Int[np.ndarray, "*B N 4"]:
    """Maps filed boxes to the whole image at another (width, height), truncated."""
    # Multiplied before it is divided, as in wsolevaluation: the order decides ties.
    scaled = boxes_pixels * np.tile(np.asarray(size, float), 2)
    original = np.maximum(np.tile(original_size, 2), 1)  # padding has size 0
    return np.trunc(scaled / original[..., None, :]).astype(int)


def _contour_ious(
    pixels: UInt8[np.ndarray, "H W"],
    steps: Int[np.ndarray, "S"],
    truth: Int[np.ndarray, "N 4"],
) -> Float[np.ndarray, "S 2"]:
    """At each step the overlap of the largest contour's box, and the best of all."""
    ious = np.empty((len(steps), 2))
    for index, step in enumerate(steps):
        boxes, areas = contour_boxes(pixels, int(step))
        of_boxes = inclusive_iou(boxes, truth)
        ious[index] = of_boxes[areas.argmax()], of_boxes.max()
    return ious
