"""The pointing game, and the share of a map's mass on the object.

Zhang et al., "Top-down neural attention by excitation backprop", arXiv 1608.00507: the
greatest value of a map has to point at the object, give or take 15 pixels. As in
TorchRay's benchmark the distance is strictly below the tolerance, and accuracies are
taken by class before their mean. Energy pointing is of Wang et al., "Score-CAM", arXiv
1910.01279: the share of the map's mass that lies on the object, instead of one pixel.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from saliency_jax.errors import InputError
from saliency_jax.metrics.baselines import rectangle_masks
from saliency_jax.metrics.ilsvrc import truth_boxes
from saliency_jax.metrics.raw_maps import GivenMaps, checked_maps

TOLERANCE = 15


def box_regions(
    boxes_pixels: Int[np.ndarray, "B N 4"],
    original_size: Int[np.ndarray, "B 2"],
    size: int,
) -> Bool[np.ndarray, "B S S"]:
    """Draws all filed boxes of each image into its crop, the last pixels included.

    Args:
      boxes_pixels: as filed; rows of -1 are padding.
      original_size: (width, height) of the original images.
      size: side of the crop in pixels.

    Returns:
      True in any box. All False where no filed box reaches into the crop: leave those
      images out.
    """
    regions = np.zeros((len(boxes_pixels), size, size), bool)
    truth = truth_boxes(boxes_pixels, original_size, size)
    for boxes in np.moveaxis(truth, 1, 0):
        regions |= rectangle_masks(boxes, size)
    return regions


def peaks(maps: GivenMaps) -> Int[np.ndarray, "B 2"]:
    """Returns row and column of each map's greatest value.

    Of several the first in raster order; so a constant map points at the corner.

    Raises:
      InputError: the maps have another shape, or are not finite.
    """
    maps = checked_maps(maps)
    highest = maps.reshape(len(maps), maps.shape[1] * maps.shape[2]).argmax(axis=1)
    return np.stack(np.unravel_index(highest, maps.shape[1:]), axis=1)


def pointing_hits(
    points: Int[np.ndarray, "B 2"],
    regions: Bool[np.ndarray, "B H W"],
    tolerance: int = TOLERANCE,
) -> Bool[np.ndarray, "B"]:
    """Whether any pixel of the region is nearer to the point than the tolerance.

    Args:
      points: row and column, of `peaks`.
      regions: where the object is; without any pixel nothing hits.
      tolerance: in pixels of the map, whatever its size; 1 wants the point inside.

    Raises:
      InputError: the tolerance is below 1.
    """
    if tolerance < 1:
        raise InputError(
            f"tolerance is {tolerance}: it must be at least 1, the point itself"
        )
    rows, columns = (
        np.square(np.arange(side) - points[:, axis, None])
        for axis, side in enumerate(regions.shape[1:])
    )
    near = rows[:, :, None] + columns[:, None, :] < tolerance**2
    return (near & regions).any(axis=(1, 2))


def energy_inside(
    maps: GivenMaps, regions: Bool[np.ndarray, "B H W"]
) -> Float[np.ndarray, "B"]:
    """Returns the share of each map's positive mass that lies in the region.

    In [0, 1], higher is better; 0 for a map without a positive value. A map is taken as
    the method gives it: what is negative speaks against the class and has no mass.

    Raises:
      InputError: the maps have another shape, or are not finite.
    """
    positive = np.maximum(checked_maps(maps), 0)
    inside = (positive * regions).sum(axis=(1, 2), dtype=np.float64)
    total = positive.sum(axis=(1, 2), dtype=np.float64)
    return np.divide(inside, total, out=np.zeros_like(total), where=total > 0)


def by_class(
    values: Float[np.ndarray, "B"] | Bool[np.ndarray, "B"],
    labels: Int[np.ndarray, "B"],
) -> Float[np.ndarray, "B 2 K"]:
    """Puts each image's value, and a one, in the column of its class.

    Args:
      values: of each image, at least one.
      labels: its class; a column for each class that there is.
    """
    _, which = np.unique(labels, return_inverse=True)
    of_class = (which[:, None] == np.arange(which.max() + 1)).astype(np.float32)
    return np.stack([values[:, None] * of_class, of_class], axis=1)


def class_mean(means: Float[np.ndarray, "R 2 K"]) -> Float[np.ndarray, "R"]:
    """Returns the mean over classes of each class's mean.

    Classes without an image are left out. (TorchRay, whose data sets have all of
    theirs, counts such a class as 0.)

    Args:
      means: of `by_class` over images; of any number of draws of images.
    """
    values, images = means[:, 0], means[:, 1]
    shares = np.divide(values, images, out=np.zeros_like(values), where=images > 0)
    return shares.sum(axis=1) / (images > 0).sum(axis=1)
