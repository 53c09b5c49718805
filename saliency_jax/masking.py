"""Edited images: what a mask keeps, what it removes, and what takes its place."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from saliency_jax.errors import InputError
from saliency_jax.types import Masks


def to_float(images: Num[Array, "*B H W C"]) -> Float[Array, "*B H W C"]:
    """Returns images in [0, 1]; `uint8` is divided by 255, floats pass unchanged.

    Raises:
      InputError: the images have another integer type, whose range is unknown.
    """
    if images.dtype == jnp.uint8:
        return images.astype(jnp.float32) / 255.0
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"images of type {images.dtype} have no known range; "
            "pass uint8 in [0, 255] or float32 in [0, 1]"
        )
    return images


def mean_infill(mean: Sequence[float]) -> Float[Array, "1 1 1 C"]:
    """The data set's mean colour as an infill.

    A classifier's normalisation sends this colour to zero, so filling with it is the
    `x * (1 - m)` in normalised space of CASM's training (casme, train.py).
    """
    return jnp.asarray(mean, jnp.float32).reshape(1, 1, 1, -1)


def masked_in(
    images: Float[Array, "B H W C"],
    masks: Float[Array, "#B H W"],
    infill: Num[Array, "#B #H #W C"],
) -> Float[Array, "B H W C"]:
    """Keeps the salient part: `m * x + (1 - m) * infill`.

    Args:
      images: in [0, 1].
      masks: in [0, 1], 1 = kept; one for each image, or one for all.
      infill: what stands where the mask is 0, broadcast against the images.
    """
    keep = masks[..., None]
    return keep * images + (1.0 - keep) * infill


def masked_out(
    images: Float[Array, "B H W C"],
    masks: Float[Array, "#B H W"],
    infill: Num[Array, "#B #H #W C"],
) -> Float[Array, "B H W C"]:
    """Removes the salient part: `(1 - m) * x + m * infill`. See `masked_in`."""
    return masked_in(images, 1.0 - masks, infill)


def mask_area(masks: Masks) -> Float[Array, "B"]:
    """The share of each image that its mask keeps, in [0, 1]."""
    return jnp.mean(masks, axis=(1, 2))
