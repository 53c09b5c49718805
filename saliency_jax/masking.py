"""Edited images: what a mask keeps, what it removes, and what takes its place."""

import sys
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

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


def colour_to_float(
    name: str,
    colour: float | int | Sequence[float] | Num[Array | np.ndarray, "..."],
) -> Float[Array, "..."]:
    """Returns a colour in [0, 1], or images, as float32.

    Args:
      name: of the option, for messages.
      colour: of an array, `uint8` is divided by 255; a number, and a list of numbers,
        is in [0, 1] already, whatever its type.

    Raises:
      InputError: it is an array of integers whose range is unknown, or is not finite.
    """
    try:
        given = jnp.asarray(colour)
    except (TypeError, ValueError) as error:  # such as names, or rows of two lengths
        raise InputError(
            f"{name}={colour!r:.60}: expected numbers in [0, 1]"
        ) from error
    if given.ndim and hasattr(colour, "dtype"):
        if given.dtype == jnp.uint8:
            given = given / jnp.float32(255)
        elif not jnp.issubdtype(given.dtype, jnp.floating):
            raise InputError(
                f"{name} of type {colour.dtype} has no known range: expected floats in "
                "[0, 1], or uint8"
            )
    if not isinstance(given, jax.core.Tracer) and not np.isfinite(given).all():
        raise InputError(f"{name} holds NaN or infinite values: expected [0, 1]")
    return given.astype(jnp.float32)


def check_images(
    images: Num[Array | np.ndarray, "..."],
    channels: int | None = None,
    at_least: int = 1,
) -> None:
    """Checks the shape of images.

    Args:
      images: `[B, H, W, C]`.
      channels: C, if it must be one number.
      at_least: the smallest B.

    Raises:
      InputError: they have another, or are no array.
    """
    shape = f"[B, H, W, {channels or 'C'}]"
    if not (hasattr(images, "ndim") and hasattr(images, "dtype")):
        raise InputError(
            f"images of type {type(images).__name__}: expected an array {shape}; "
            f"np.stack makes one of images of one size"
        )
    if images.ndim == 4:
        if images.shape[1] == 3 and images.shape[3] > 4:
            raise InputError(
                f"images of shape {images.shape} have their channels first: expected "
                f"{shape}, as images.transpose(0, 2, 3, 1) gives"
            )
        if channels in (None, images.shape[3]) and images.shape[0] >= at_least:
            return
    told = ""
    if images.ndim == 3 and channels in (None, images.shape[2]):
        told = ", as images[None] gives"
    elif images.ndim and images.shape[0] < at_least:
        told = ", at least one"
    raise InputError(f"images of shape {images.shape}: expected {shape}{told}")


def check_one_or_more(images: Num[Array | np.ndarray, "..."]) -> None:
    """Checks the shape, and the values in NumPy, of one RGB image or a batch.

    To look at a device's values would be to wait for them.

    Raises:
      InputError: they are neither `[H, W, 3]` nor `[B, H, W, 3]`, or not finite.
    """
    shape = getattr(images, "shape", None)
    if shape is None or len(shape) not in (3, 4) or shape[-1] != 3:
        given = f"type {type(images).__name__}" if shape is None else f"shape {shape}"
        raise InputError(
            f"images of {given}: expected an array [H, W, 3] or [B, H, W, 3], RGB"
        )
    if isinstance(images, np.ndarray):
        check_range(images)


def check_range(images: Num[Array | np.ndarray, "*B H W C"]) -> None:
    """Checks the values of floats, but within somebody's jit, where they are not known.

    Warns of those that are far from [0, 1], as 0 to 255 or standardised ones: for a
    function of such images a gradient is right, what is put in a pixel's place is not.

    Raises:
      InputError: they are not all finite.
    """
    is_float = jnp.issubdtype(images.dtype, jnp.floating)
    if isinstance(images, jax.core.Tracer) or not (is_float and images.size):
        return
    with jax.ensure_compile_time_eval():  # of a constant within somebody's jit, too
        low, high, finite = jax.device_get(_extremes(images))
    if not finite:
        raise InputError("images hold NaN or infinite values: expected [0, 1]")
    if low < -1 or high > 2:
        warnings.warn(
            f"images reach from {low:.4g} to {high:.4g}: expected uint8, or floats in "
            f"[0, 1] (for a function of others, Classifier.from_function takes its "
            f"mean and std)",
            stacklevel=_callers_level(),
        )


@jax.jit
def _extremes(
    images: Num[Array | np.ndarray, "*B H W C"],
) -> tuple[Num[Array, ""], Num[Array, ""], Bool[Array, ""]]:
    """The least, the greatest, which XLA finds beside NaN, and if all are finite."""
    return jnp.min(images), jnp.max(images), jnp.all(jnp.isfinite(images))


def _callers_level() -> int:
    """How far above the function that asks for it this package was called."""
    package, level, frame = __name__.partition(".")[0] + ".", 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(package):
        level, frame = level + 1, frame.f_back
    return level


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
