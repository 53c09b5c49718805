"""Maps and binary masks beside exact masks, pixel by pixel.

PxAP, the area under the curve of precision over recall of all pixels of all images, is
that of Choe et al., "Evaluating weakly supervised object localization methods right",
arXiv 2001.07437, by the rules of their code, wsolevaluation: pixels are counted in bins
of their value, one for each threshold and those above, a bin holds its left edge, and

    PxAP = sum over bins, from the highest, of precision (recall - recall before)

where precision and recall are those of all pixels in this bin and above. A constant map
has the share of object pixels; a map that is the mask has 1.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from saliency_jax.metrics.raw_maps import GivenMaps, checked_maps

THRESHOLDS = np.arange(0, 1, 0.001)


class PixelCounts(NamedTuple):
    """How many pixels of each image have a value in each bin, in ascending order.

    Counts of images add up, so that those of a data set can be summed in a stream.

    inside: of the object.
    outside: of the rest.
    """

    inside: Int[np.ndarray, "B T"]
    outside: Int[np.ndarray, "B T"]


def pixel_counts(
    maps: GivenMaps,
    object_masks: Bool[np.ndarray, "B H W"],
    ignored: Bool[np.ndarray, "B H W"] | None = None,
    *,
    thresholds: Float[np.ndarray, "S"] = THRESHOLDS,
) -> PixelCounts:
    """Counts the pixels of maps by value.

    Args:
      maps: `[B, H, W]` in [0, 1].
      object_masks: exact masks.
      ignored: pixels that do not count at all; object pixels count all the same.
      thresholds: the bins' left edges, ascending from 0 and below 1; values of exactly
        1 have a bin of their own.

    Raises:
      InputError: the maps have another shape, are not finite or not in [0, 1].
    """
    maps = checked_maps(maps, in_unit_range=True)
    edges = np.append(thresholds, 1.0)
    outside = ~object_masks if ignored is None else ~(object_masks | ignored)
    inside_counts = np.empty((len(maps), len(edges)), int)
    outside_counts = np.empty_like(inside_counts)
    for index, values in enumerate(maps):
        bins = np.searchsorted(edges, values, side="right") - 1
        for counts, region in (
            (inside_counts, object_masks),
            (outside_counts, outside),
        ):
            counts[index] = np.bincount(bins[region[index]], minlength=len(edges))
    return PixelCounts(inside_counts, outside_counts)


def average_precision(
    inside: Int[np.ndarray, "*B T"], outside: Int[np.ndarray, "*B T"]
) -> Float[np.ndarray, "*B"]:
    """Returns the area under the curve of precision over recall, in [0, 1].

    Higher is better; 0 without any object pixel, where it means nothing.

    Args:
      inside: of `pixel_counts`; summed over a data set, the figure is PxAP, and of each
        image it is that image's own average precision.
      outside: likewise.
    """
    true = np.cumsum(inside[..., ::-1], axis=-1)
    false = np.cumsum(outside[..., ::-1], axis=-1)
    precision = true / np.maximum(true + false, 1)
    weighted = (precision * inside[..., ::-1]).sum(axis=-1)
    return np.asarray(weighted / np.maximum(true[..., -1], 1))


def mask_iou(
    binary: Bool[np.ndarray, "B H W"], object_masks: Bool[np.ndarray, "B H W"]
) -> Float[np.ndarray, "B"]:
    """Returns the intersection over union of masks, in [0, 1]; 0 for two empty ones."""
    shared = (binary & object_masks).sum(axis=(1, 2))
    union = (binary | object_masks).sum(axis=(1, 2))
    return shared / np.maximum(union, 1)
