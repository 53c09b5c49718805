"""CASM's localisation scorer: LE, OM, F1 and F1a from soft masks and filed boxes.

The rules are those of the published scorer (Zolna, Geras and Cho, "Classifier-agnostic
saliency map extraction", arXiv 1805.08249; `score.py` of the authors' repository), and
`tests/golden/casm_scorer.npz` holds what that code answers:

* a mask is binarised at a quantile, so that the kept area is the mask's mean;
* the predicted box is the tight box of the largest 4-connected component;
* a ground-truth box is mapped through "shorter side to S, centre crop S"; its area is
  that of the whole box, its pixels only those inside the crop, so that a part that was
  cropped away counts as missed;
* a hit is an intersection over union strictly above 0.5 with any box of the image;
* F1 compares the soft mask, not the binary one, with the box.

LE is the share of images without a hit, OM the share without a hit or with a wrong
class, F1 the mean over images of the best box's F1, F1a of the mean over an image's
boxes. An image without any filed box cannot be scored and is left out of all four.

Those are the rules of the variant "author". The variant "follow_up" is the scorer of
Phang, Park and Geras, "Investigating and simplifying masking-based saliency methods for
model interpretability", arXiv 2010.09750: a mask is binarised at its mean, and the
predicted box lacks the last row and the last column of its component, for that code
stores them inclusively and reads them exclusively.

The variant "real_time" is for maskers that draw the region themselves, after Dabkowski
and Gal, "Real time image saliency for black box classifiers", arXiv 1705.07857: the
predicted box is the tightest one around every kept pixel. That a pixel above one half
is kept, and that an intersection over union of exactly one half is a hit, are rules of
this scorer; their code has no scorer. The rest, F1 too, is as in the other two.

Boxes "as filed" are `xmin, ymin, xmax, ymax` in pixels of the original image, and the
scorer takes xmax and ymax as edges although ImageNet files the last pixel inside.
Predicted boxes are `ymin, xmin, ymax, xmax` with half-open edges in pixels of the crop.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from saliency_jax.metrics.overlap import areas, intersections

Box = tuple[int, int, int, int]

VARIANTS = ("author", "follow_up", "real_time")

EPSILON = 1e-6  # the published scorer's, in the threshold's clamp and in F1


class LocalisationScores(NamedTuple):
    """Scores of each image of a batch.

    scored: whether it has a box. The scores mean nothing where it has none.
    hit: whether the predicted box finds one of them.
    f1: the best box's.
    f1a: the mean over the boxes.
    predicted: the predicted box, also of images without one, as `ymin, xmin, ymax,
      xmax` with half-open edges in pixels of the crop.
    """

    scored: Bool[np.ndarray, "B"]
    hit: Bool[np.ndarray, "B"]
    f1: Float[np.ndarray, "B"]
    f1a: Float[np.ndarray, "B"]
    predicted: Int[np.ndarray, "B 4"]


def binarise(
    masks: Float[np.ndarray, "B H W"], variant: str = "author"
) -> Bool[np.ndarray, "B H W"]:
    """Makes masks in [0, 1] binary by the rule of one of `VARIANTS`."""
    if variant == "real_time":
        return masks > 0.5
    return binarise_mean(masks) if variant == "follow_up" else binarise_quantile(masks)


def binarise_mean(masks: Float[np.ndarray, "B H W"]) -> Bool[np.ndarray, "B H W"]:
    """Keeps, in each mask, the pixels strictly above its mean.

    A constant mask becomes empty.
    """
    # Summed in float64, and rounded to the masks' own type: a constant is its mean.
    mean = masks.mean(axis=(1, 2), dtype=np.float64, keepdims=True)
    return masks > mean.astype(masks.dtype)


def binarise_quantile(masks: Float[np.ndarray, "B H W"]) -> Bool[np.ndarray, "B H W"]:
    """Keeps, in each mask, about as many pixels as the mask has mass.

    With n = H W pixels the threshold is the k-th smallest value, where
    k = 1 + floor((n - 1)(1 - mean) + 0.5), and pixels strictly above it are kept. Ties
    with the threshold are dropped, so a constant mask becomes empty.

    Args:
      masks: in [0, 1].
    """
    pixels = masks.shape[1] * masks.shape[2]
    binary = np.empty(masks.shape, bool)
    for mask, out in zip(masks, binary, strict=True):
        # Summed in float64: the float32 sums of different devices differ in k.
        mean = float(mask.mean(dtype=np.float64))
        k = 1 + int((pixels - 1) * (1 - mean) + 0.5)
        threshold = np.partition(mask, k - 1, axis=None)[k - 1]
        np.greater(mask, np.clip(threshold, EPSILON, 1 - EPSILON), out=out)
    return binary


def largest_component_box(binary: Bool[np.ndarray, "H W"]) -> Box | None:
    """Returns the tight box of the largest 4-connected component, None without pixels.

    Of components of one size the one that comes first in raster order counts.
    """
    count, labels = cv2.connectedComponents(binary.view(np.uint8), connectivity=4)
    if count == 1:
        return None
    # OpenCV's own statistics take longer than to find the components.
    pixels = np.bincount(labels.ravel())
    largest = 1 + np.argmax(pixels[1:])
    x, y, width, height = cv2.boundingRect((labels == largest).view(np.uint8))
    return y, x, y + height, x + width


def tight_box(binary: Bool[np.ndarray, "H W"]) -> Box | None:
    """Returns the tightest box around all pixels, None without any."""
    rows = np.flatnonzero(binary.any(axis=1))
    columns = np.flatnonzero(binary.any(axis=0))
    if not rows.size:
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def predicted_boxes(
    masks: Float[np.ndarray, "B H W"], variant: str = "author"
) -> Int[np.ndarray, "B 4"]:
    """Returns the box that each soft mask predicts; `0, 0, 0, 0` for an empty one."""
    find_box = tight_box if variant == "real_time" else largest_component_box
    boxes = np.zeros((len(masks), 4), int)
    for index, binary in enumerate(binarise(masks, variant)):
        box = find_box(binary)
        if box is not None:
            boxes[index] = box
            boxes[index, 2:] -= variant == "follow_up"
    return boxes


def boxes_after_resize_and_crop(
    boxes_pixels: Int[np.ndarray, "*B N 4"],
    original_size: Int[np.ndarray, "*B 2"],
    size: int,
) -> Int[np.ndarray, "*B N 4"]:
    """Maps filed boxes through "shorter side to `size`, centre crop `size`".

    Args:
      boxes_pixels: `xmin, ymin, xmax, ymax` in pixels of the original image.
      original_size: (width, height) of the original image.
      size: side of the crop in pixels.

    Returns:
      `xmin, ymin, xmax, ymax` in pixels of the crop, truncated towards zero as the
      published scorer does, and not clipped to the crop.
    """
    width, height = original_size[..., 0], original_size[..., 1]
    # Padding has size 0; its boxes are never read.
    ratio = size / np.maximum(original_size.min(axis=-1, keepdims=True), 1)
    x_cut, y_cut = np.moveaxis((original_size * ratio - size) / 2, -1, 0)
    # Exactly 0 on the side that the published scorer does not cut: a rounding error
    # there would move a truncated edge.
    x_cut = np.where(width > height, x_cut, 0)
    y_cut = np.where(width > height, 0, y_cut)
    cut = np.stack([x_cut, y_cut, x_cut, y_cut], axis=-1)
    moved = ratio[..., None] * boxes_pixels - cut[..., None, :]
    return np.trunc(moved).astype(int)


def casm_scores(
    masks: Float[np.ndarray, "B S S"],
    boxes_pixels: Int[np.ndarray, "B N 4"],
    original_size: Int[np.ndarray, "B 2"],
    variant: str = "author",
) -> LocalisationScores:
    """Scores soft masks by CASM's rules, or by those of another variant.

    Args:
      masks: in [0, 1], 1 = salient; of images whose shorter side was resized to S and
        that were cropped at the centre.
      boxes_pixels: boxes as filed; rows of -1 are padding.
      original_size: (width, height) of the original images.
      variant: of the binarisation, the predicted box and the hit, one of `VARIANTS`.
    """
    size = masks.shape[1]
    truth = boxes_after_resize_and_crop(boxes_pixels, original_size, size)
    filed = is_filed(boxes_pixels)
    inside = np.zeros(filed.shape)
    visible = np.clip(truth, 0, size)
    for index, box in np.argwhere(filed):
        left, top, right, bottom = visible[index, box]
        inside[index, box] = masks[index, top:bottom, left:right].sum(dtype=np.float64)
    total = masks.sum(axis=(1, 2), dtype=np.float64)
    predicted = predicted_boxes(masks, variant)
    return _scores(predicted, inside, total, truth, filed, variant)


def rectangle_scores(
    rectangles: Int[np.ndarray, "B 4"],
    boxes_pixels: Int[np.ndarray, "B N 4"],
    original_size: Int[np.ndarray, "B 2"],
    size: int,
    variant: str = "author",
) -> LocalisationScores:
    """Scores rectangles by CASM's rules, each as mask and predicted box at once.

    As in the published scorer's naive baselines, a rectangle is not binarised: the
    quantile rule drops ties and would leave nothing of a whole image.

    Args:
      rectangles: `ymin, xmin, ymax, xmax`, half-open, inside the crop.
      boxes_pixels: boxes as filed; rows of -1 are padding.
      original_size: (width, height) of the original images.
      size: side of the crop in pixels.
      variant: of the hit, one of `VARIANTS`.
    """
    truth = boxes_after_resize_and_crop(boxes_pixels, original_size, size)
    inside = intersections(_xyxy(rectangles)[:, None], truth).astype(float)
    filed = is_filed(boxes_pixels)
    return _scores(rectangles, inside, areas(rectangles), truth, filed, variant)


def is_filed(boxes_pixels: Int[np.ndarray, "*B N 4"]) -> Bool[np.ndarray, "*B N"]:
    """Returns False for the padding rows, which are -1 throughout."""
    return (boxes_pixels != -1).any(axis=-1)


def _scores(
    predicted: Int[np.ndarray, "B 4"],
    inside: Float[np.ndarray, "B N"],
    total: Num[np.ndarray, "B"],
    truth: Int[np.ndarray, "B N 4"],
    filed: Bool[np.ndarray, "B N"],
    variant: str,
) -> LocalisationScores:
    intersection = intersections(_xyxy(predicted)[:, None], truth)
    union = areas(predicted)[:, None] + areas(truth) - intersection
    # In integers, so that exactly one half is the same on every machine.
    hit = 2 * intersection > union
    if variant == "real_time":
        hit |= (2 * intersection == union) & (union > 0)
    hit &= filed

    precision = inside / (total[:, None] + EPSILON)
    recall = inside / np.maximum(areas(truth), 1)
    f1 = 2 * precision * recall / (precision + recall + EPSILON) * filed
    boxes = filed.sum(axis=1)
    return LocalisationScores(
        scored=boxes > 0,
        hit=hit.any(axis=1),
        f1=f1.max(axis=1, initial=0.0),
        f1a=f1.sum(axis=1) / np.maximum(boxes, 1),
        predicted=predicted,
    )


def _xyxy(boxes: Int[np.ndarray, "B 4"]) -> Int[np.ndarray, "B 4"]:
    return boxes[:, [1, 0, 3, 2]]
