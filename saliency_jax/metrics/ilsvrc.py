"""Localisation error as the ILSVRC challenge has it: GT-known, top-1, top-5.

Russakovsky et al., "ImageNet large scale visual recognition challenge", arXiv
1409.0575. A predicted box hits where its intersection over union with any filed box of
the image is high enough. Two conventions, both of filed boxes that were mapped through
"shorter side to S, centre crop S", truncated to whole pixels and not clipped, so that
what was cropped away counts as missed:

* `inclusive` (ILSVRC, wsolevaluation, Fong and Vedaldi): a filed box includes the
  pixels at its xmax and ymax, so its width is xmax - xmin + 1; a hit is an intersection
  over union of at least one half.
* `casm`, of `localisation`: xmax and ymax are edges; a hit is strictly above one half.

Predicted boxes are `ymin, xmin, ymax, xmax`, half-open, in pixels of the crop.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from saliency_jax.errors import InputError
from saliency_jax.metrics.localisation import boxes_after_resize_and_crop, is_filed
from saliency_jax.metrics.overlap import intersections, unions

CONVENTIONS = ("inclusive", "casm")


class BoxHits(NamedTuple):
    """Of each image, and of each of its predicted boxes where there are several.

    scored: whether the image has a filed box. The rest means nothing where it has none.
    iou: the greatest intersection over union with a filed box, in [0, 1].
    hit: whether that is enough.
    """

    scored: Bool[np.ndarray, "B"]
    iou: Float[np.ndarray, "B *A"]
    hit: Bool[np.ndarray, "B *A"]


class LocalisationErrors(NamedTuple):
    """Whether an image counts as an error; the mean over images is the figure.

    gt_known: the box misses.
    top1: the box misses, or the predicted class is wrong.
    top5: the box misses, or the true class is not among the five highest.
    """

    gt_known: Bool[np.ndarray, "B"]
    top1: Bool[np.ndarray, "B"]
    top5: Bool[np.ndarray, "B"]


def filed_inclusively(
    boxes_pixels: Int[np.ndarray, "B N 4"],
) -> Int[np.ndarray, "B N 4"]:
    """Boxes with exclusive edges as a data set with inclusive ones would file them."""
    last = boxes_pixels - np.array([0, 0, 1, 1])
    return np.where(is_filed(boxes_pixels)[..., None], last, boxes_pixels)


def truth_boxes(
    boxes_pixels: Int[np.ndarray, "B N 4"],
    original_size: Int[np.ndarray, "B 2"],
    size: int,
    convention: str = "inclusive",
) -> Int[np.ndarray, "B N 4"]:
    """Returns the filed boxes in the crop as `ymin, xmin, ymax, xmax`, half-open.

    They are not clipped to the crop. Padding becomes empty boxes, `0, 0, 0, 0`.

    Args:
      boxes_pixels: as filed; rows of -1 are padding.
      original_size: (width, height) of the original images.
      size: side of the crop in pixels.
      convention: one of `CONVENTIONS`.

    Raises:
      InputError: the convention is unknown.
    """
    if convention not in CONVENTIONS:
        raise InputError(
            f"box convention {convention!r} is unknown: use one of {CONVENTIONS}"
        )
    boxes = boxes_after_resize_and_crop(boxes_pixels, original_size, size)
    if convention == "inclusive":
        boxes = boxes + np.array([0, 0, 1, 1])
    return np.where(is_filed(boxes_pixels)[..., None], boxes, 0)[..., [1, 0, 3, 2]]


def box_hits(
    predicted: Int[np.ndarray, "B *A 4"],
    boxes_pixels: Int[np.ndarray, "B N 4"],
    original_size: Int[np.ndarray, "B 2"],
    size: int,
    convention: str = "inclusive",
) -> BoxHits:
    """Compares predicted boxes with the filed boxes of their images.

    Args:
      predicted: `ymin, xmin, ymax, xmax`, half-open, in pixels of the crop; one for
        each image or any number, say of a grid of alphas. An empty box never hits.
      boxes_pixels: as filed; rows of -1 are padding.
      original_size: (width, height) of the original images.
      size: side of the crop in pixels.
      convention: one of `CONVENTIONS`.

    Raises:
      InputError: the convention is unknown.
    """
    truth = truth_boxes(boxes_pixels, original_size, size, convention)
    truth = np.expand_dims(truth, tuple(range(1, predicted.ndim - 1)))
    shared = intersections(predicted[..., None, :], truth)
    union = np.maximum(unions(predicted[..., None, :], truth), 1)
    # In integers, so that exactly one half is the same on every machine.
    hit = 2 * shared > union
    if convention == "inclusive":
        hit |= 2 * shared == union
    return BoxHits(
        scored=is_filed(boxes_pixels).any(axis=1),
        iou=(shared / union).max(axis=-1, initial=0.0),
        hit=hit.any(axis=-1),
    )


def localisation_errors(
    hit: Bool[np.ndarray, "B"], top_hits: Bool[np.ndarray, "B R"]
) -> LocalisationErrors:
    """Puts boxes and predicted classes together.

    The challenge takes five pairs of a class and a box, and asks that one pair has the
    right class and a box that hits. With one pair for each predicted class that is: the
    true class is among the five, and the box that was made for it hits. A map that is
    not of a class repeats its one box in all pairs.

    Args:
      hit: whether the box of the true class hits.
      top_hits: whether the n-th highest logit is the true class, for the first five, or
        all of fewer classes.
    """
    return LocalisationErrors(
        gt_known=~hit,
        top1=~(hit & top_hits[:, 0]),
        top5=~(hit & top_hits[:, :5].any(axis=1)),
    )
