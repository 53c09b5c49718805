"""The door of these metrics, and the order that a map puts pixels in."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    Question,
    ask,
    with_targets,
)
from saliency_jax.attribution.batching import is_traced
from saliency_jax.errors import InputError

GivenMaps = Num[Array | np.ndarray, "..."]
"""`[B, H, W]`: a number for each pixel of each image, raw and maybe signed."""

Shares = tuple[float, ...]
"""Of an image's pixels, each above 0 and below 1."""


def ask_about(
    logits_fn: LogitsFn,
    images: GivenImages,
    maps: GivenMaps,
    targets: GivenTargets,
    batch_size: int | None,
) -> tuple[Question, Float[Array, "B H W"]]:
    """Checks what a user passes to a metric, and finds the classes if none are given.

    Args:
      logits_fn: see `LogitsFn`.
      images: see `GivenImages`.
      maps: see `GivenMaps`.
      targets: see `GivenTargets`.
      batch_size: None means 32, or all images if they are more.

    Returns:
      The question, with targets, and the maps in float32.

    Raises:
      InputError: as `ask`, and where the maps do not fit the images or have values that
        are not finite.
    """
    asked = ask(logits_fn, images, targets, batch_size)
    if maps.shape != asked.images.shape[:3]:
        raise InputError(
            f"maps of shape {maps.shape} for images of shape {asked.images.shape}: "
            f"expected {asked.images.shape[:3]}, a number for each pixel"
        )
    # Inside somebody's jit the values are not known.
    if not is_traced(maps):
        finite = np.isfinite(np.asarray(maps)).all(axis=(1, 2))
        if not finite.all():
            raise InputError(
                f"map {np.argmin(finite)} has values that are not finite: expected a "
                f"number for each pixel"
            )
    return with_targets(asked), jnp.asarray(maps, jnp.float32)


@jax.jit
def ranks(maps: Float[Array, "B H W"]) -> Int[Array, "B H W"]:
    """The place of each pixel among its image's, 0 for the greatest value.

    Of equal values the one that comes first in raster order has the lower rank.
    """

    def of_one(values: Float[Array, "L"]) -> Int[Array, "L"]:
        order = jnp.argsort(values, descending=True, stable=True)
        places = jnp.arange(len(values), dtype=jnp.int32)
        return jnp.zeros_like(places).at[order].set(places)

    return jax.vmap(of_one)(maps.reshape(len(maps), -1)).reshape(maps.shape)


def pixels_of(shares: Shares, size: tuple[int, int]) -> tuple[int, ...]:
    """How many pixels each share of an image is: the nearest number, at least one.

    Args:
      shares: of the pixels.
      size: (H, W).

    Raises:
      InputError: a share leaves nothing of the image, or is not above 0.
    """
    pixels = size[0] * size[1]
    for share in shares:
        if not 0 < share < 1:
            raise InputError(f"share {share}: expected above 0 and below 1")
    return tuple(min(max(1, round(share * pixels)), pixels - 1) for share in shares)
