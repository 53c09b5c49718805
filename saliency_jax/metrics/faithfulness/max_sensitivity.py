"""Max-sensitivity: how far a map can change when the image hardly does.

Yeh et al.: On the (in)fidelity and sensitivity of explanations (arXiv 1901.09392).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from saliency_jax.attribution.asking import (
    GivenImages,
    check_at_least,
    check_positive,
    key_or_default,
    one_for_each,
)
from saliency_jax.attribution.batching import in_batches, repeat
from saliency_jax.attribution.division import quotient
from saliency_jax.masking import check_images, to_float

Explain = Callable[
    [Float[Array, "B H W C"], Int[Array, "B"]], Num[Array | np.ndarray, "B ..."]
]
"""From images and their classes to maps, with whatever it needs inside it."""


class MaxSensitivity(NamedTuple):
    """Of each image; from 0, lower is better.

    Attributes:
      maximum: the greatest change of the map over the draws, relative to the map.
      average: the mean change.
    """

    maximum: Float[Array, "B"]
    average: Float[Array, "B"]


def max_sensitivity(
    explain: Explain,
    images: GivenImages,
    targets: int | Int[Array | np.ndarray, "..."],
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    radius: float = 0.2,
    draws: int = 50,
) -> MaxSensitivity:
    """How far maps change with noise on the image, relative to the map itself.

    Yeh et al. (arXiv 1901.09392): `max ||E(x + d) - E(x)|| / ||E(x)||` with the norms
    of all numbers in a map, over random d, uniform in [-radius, radius] for each
    channel of each pixel; x + d may leave [0, 1]. The class stays the same. Where a map
    is all zeros its norm counts as 1, as in captum. The radius and the draws are the
    authors'; captum's are 0.02 and 10.

    Args:
      explain: see `Explain`. A method that draws random numbers should draw the same at
        every call, or they count as a change.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: a class, or one for each image.
      key: decides the noise, which is the same for all images; None means
        `jax.random.key(0)`.
      batch_size: how many images are explained at once; None: all.
      radius: of the noise.
      draws: of it.

    Raises:
      InputError: for arguments that do not fit each other.
    """
    check_images(images)
    check_positive(radius=radius)
    check_at_least(1, draws=draws, batch_size=batch_size or 1)
    return in_batches(
        _of_images,
        batch_size or len(images),
        (key_or_default(key), jnp.asarray(radius, jnp.float32)),
        to_float(jnp.asarray(images)).astype(jnp.float32),
        one_for_each(targets, len(images)),
        explain=explain,
        draws=draws,
    )


def _of_images(
    shared: tuple[Key[Array, ""], Float[Array, ""]],
    images: Float[Array, "B H W C"],
    targets: Int[Array, "B"],
    explain: Explain,
    draws: int,
) -> MaxSensitivity:
    maps = jnp.asarray(explain(images, targets))
    nothing = jnp.zeros(len(images))
    greatest, total = repeat(
        partial(_add_draw, explain),
        (nothing, nothing),
        draws,
        shared,
        images,
        targets,
        maps,
    )
    return _summary(maps, greatest, total, draws)


def _add_draw(
    explain: Explain,
    found: tuple[Float[Array, "B"], Float[Array, "B"]],
    i: Int[Array, ""],
    shared: tuple[Key[Array, ""], Float[Array, ""]],
    images: Float[Array, "B H W C"],
    targets: Int[Array, "B"],
    maps: Num[Array, "B ..."],
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """The greatest distance so far, and the sum of distances."""
    noisy = explain(_noisy(*shared, i, images), targets)
    return _added(found, maps, jnp.asarray(noisy))


@jax.jit
def _noisy(
    key: Key[Array, ""],
    radius: Float[Array, ""],
    i: Int[Array, ""],
    images: Float[Array, "B H W C"],
) -> Float[Array, "B H W C"]:
    of_draw = jax.random.fold_in(key, i)
    noise = jax.random.uniform(of_draw, images.shape[1:], minval=-1, maxval=1)
    return images + radius * noise[None]


@jax.jit
def _added(
    found: tuple[Float[Array, "B"], Float[Array, "B"]],
    maps: Num[Array, "B ..."],
    noisy: Num[Array, "B ..."],
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    distances = _norms(maps - noisy)
    return jnp.maximum(found[0], distances), found[1] + distances


@jax.jit
def _summary(
    maps: Num[Array, "B ..."],
    greatest: Float[Array, "B"],
    total: Float[Array, "B"],
    draws: Int[Array, ""] | int,
) -> MaxSensitivity:
    norms = _norms(maps)
    norms = jnp.where(norms > 0, norms, 1)
    return MaxSensitivity(greatest / norms, total / draws / norms)


def _norms(maps: Num[Array, "B ..."]) -> Float[Array, "B"]:
    values = maps.astype(jnp.float32).reshape(len(maps), -1)
    most = jnp.max(jnp.abs(values), axis=1)  # squares of any scale are no float32
    return most * jnp.linalg.norm(quotient(values, most[:, None]), axis=1)
