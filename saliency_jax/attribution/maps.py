"""What methods return: maps of the images' size, one number for each pixel."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from saliency_jax.attribution.asking import check_option

Reduction = Literal["max_abs", "sum_abs", "sum"] | None
"""How channels become one: the greatest absolute value, the sum of absolute values, or
the signed sum; None keeps them, `[B, H, W, C]`."""

Upsampling = Literal["bilinear", "nearest"] | None
"""How maps of a layer become as large as the images; None leaves them as they are."""

Maps = Float[Array, "B _ _"] | Float[Array, "B _ _ _"]
"""`[B, H, W]`; `[B, h, w]` without upsampling; with channels where they are kept."""


_REDUCTIONS = {
    "max_abs": lambda values: jnp.max(jnp.abs(values), axis=-1),
    "sum_abs": lambda values: jnp.sum(jnp.abs(values), axis=-1),
    "sum": lambda values: jnp.sum(values, axis=-1),
}


def to_maps(
    values: Float[Array, "B h w D"],
    size: tuple[int, int],
    reduction: Reduction,
    upsampling: Upsampling,
) -> Maps:
    """Maps of the images' size from values of each channel.

    Args:
      values: of the images or of a layer.
      size: (H, W) of the images.
      reduction: see `Reduction`.
      upsampling: see `Upsampling`.

    Raises:
      InputError: for an unknown reduction or upsampling.
    """
    if reduction is None:
        by_channel = jax.vmap(lambda x: upsampled(x, size, upsampling), -1, -1)
        return by_channel(values)
    check_option("reduction", reduction, (*_REDUCTIONS, None))
    return upsampled(_REDUCTIONS[reduction](values), size, upsampling)


def upsampled(
    maps: Float[Array, "B h w"], size: tuple[int, int], upsampling: str | None
) -> Float[Array, "B _ _"]:
    """A layer's maps at the size of the images.

    Args:
      maps: of any type.
      size: (H, W).
      upsampling: "bilinear" (between the centres of cells) or "nearest"; None leaves
        the maps as they are.

    Returns:
      float32.

    Raises:
      InputError: the upsampling is unknown.
    """
    check_option("upsampling", upsampling, ("bilinear", "nearest", None))
    maps = maps.astype(jnp.float32)
    if upsampling is None or maps.shape[1:] == tuple(size):
        return maps
    return jax.image.resize(maps, (len(maps), *size), upsampling, antialias=False)
