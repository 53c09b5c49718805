"""Maps as methods give them: checked at the door, and brought to [0, 1]."""

import numpy as np
from jaxtyping import Float, Num

from saliency_jax.errors import InputError

GivenMaps = Num[np.ndarray, "..."]
"""`[B, H, W]`, raw and possibly signed, or masks in [0, 1]."""


def checked_maps(
    maps: GivenMaps, in_unit_range: bool = False
) -> Float[np.ndarray, "B H W"]:
    """Returns the maps as float32.

    Args:
      maps: one for each image.
      in_unit_range: whether they have to be in [0, 1].

    Raises:
      InputError: they have another shape, are not finite, or leave [0, 1].
    """
    if maps.ndim != 3 or not maps.shape[1] * maps.shape[2]:
        raise InputError(
            f"maps of shape {maps.shape}: expected [B, H, W], one for each image"
        )
    maps = np.asarray(maps, np.float32)
    if not np.isfinite(maps).all():
        index = int(np.flatnonzero(~np.isfinite(maps).all(axis=(1, 2)))[0])
        raise InputError(
            f"map {index} of {len(maps)} is not finite: leave its image out, or see "
            f"why the method has no finite value there"
        )
    if in_unit_range and maps.size and (maps.min() < 0 or maps.max() > 1):
        raise InputError(
            f"maps from {maps.min():g} to {maps.max():g}: expected [0, 1]; raw maps "
            f"are to be normalised first"
        )
    return maps


def min_max_normalised(maps: GivenMaps) -> Float[np.ndarray, "B H W"]:
    """Brings each map to [0, 1]: its least value becomes 0, its greatest 1.

    A constant map, which says nothing, becomes zeros.

    Raises:
      InputError: the maps have another shape, or are not finite.
    """
    maps = checked_maps(maps)
    normalised = np.zeros_like(maps)
    for values, out in zip(maps, normalised, strict=True):
        low, high = float(values.min()), float(values.max())
        if low < high:
            # In float64: the difference of two float32 need not be a finite float32.
            out[:] = (values - np.float64(low)) / (high - low)
    return normalised
