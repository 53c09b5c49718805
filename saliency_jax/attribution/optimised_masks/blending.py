"""What stands in the place of what a mask removes, and the unit of its lengths."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from saliency_jax.removal import REFERENCE_SIZE


def scaled(length: int | float, size: tuple[int, int]) -> float:
    """A length in an image of `size`, given in pixels of a 224x224 image.

    Published lengths are for such images; the shorter side counts.
    """
    return length * min(size) / REFERENCE_SIZE


def blurred_by(
    pyramid: Float[Array, "B L H W C"], masks: Float[Array, "B H W"]
) -> Float[Array, "B H W C"]:
    """Images that are blurred the more the lower the mask: 0 takes the first level.

    Between two levels it is linear; at a mask of 1 the slope is that from below.
    """
    levels = pyramid.shape[1]
    places = masks * (levels - 1)
    below = jnp.clip(jnp.floor(jax.lax.stop_gradient(places)), 0, levels - 2)
    above = places - below
    which = jnp.arange(levels)[None, :, None, None] - below[:, None]
    weights = jnp.where(which == 0, 1.0 - above[:, None], 0.0)
    weights = weights + jnp.where(which == 1, above[:, None], 0.0)
    return jnp.einsum("blhw,blhwc->bhwc", weights, pyramid)


def median_blur(images: Float[Array, "B H W C"], reach: int) -> Float[Array, "B H W C"]:
    """The median of the square around each pixel; edge pixels are repeated outwards.

    Args:
      images: of any range.
      reach: the square has `2 * reach + 1` pixels a side.
    """
    side = 2 * reach + 1
    padding = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = jnp.pad(images, padding, "edge")
    width = images.shape[2]

    def row(y: Int[Array, ""]) -> Float[Array, "B W C"]:
        near = jax.lax.dynamic_slice_in_dim(padded, y, side, axis=1)
        near = jnp.stack([near[:, :, x : x + width] for x in range(side)], axis=1)
        return jnp.median(near, axis=(1, 2))

    # A row at a time: all windows at once would be 121 times the images.
    return jnp.moveaxis(jax.lax.map(row, jnp.arange(images.shape[1])), 0, 1)


def shifted(
    images: Float[Array, "B H W C"], shift: Int[Array, "2"], shifts: int
) -> Float[Array, "B H W C"]:
    """Images mirrored outwards and cut out again, 0 to `shifts - 1` pixels on."""
    before = shifts // 2
    sides = (before, shifts - 1 - before)
    padded = jnp.pad(images, ((0, 0), sides, sides, (0, 0)), "symmetric")
    return jax.lax.dynamic_slice(padded, (0, *shift, 0), images.shape)
