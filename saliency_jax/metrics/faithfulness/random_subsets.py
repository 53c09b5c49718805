"""Whether a map's sums over random pixels say how far the score falls without them.

Sensitivity-n: Ancona et al., Towards better understanding of gradient-based attribution
methods (arXiv 1711.06104). Faithfulness correlation: Bhatt, Weller and Moura,
Evaluating and aggregating feature-based model explanations (arXiv 2005.00631).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    Question,
    check_at_least,
    key_or_default,
    keys_of,
)
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.perturbation.edits import (
    scores_of_edits,
    scores_of_images,
)
from saliency_jax.errors import InputError
from saliency_jax.metrics.faithfulness.questions import (
    GivenMaps,
    Shares,
    ask_about,
    pixels_of,
    ranks,
)

SHARES = (0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 0.8)


class SensitivityN(NamedTuple):
    """Of each image; in [-1, 1], higher is better.

    Attributes:
      correlation: the mean over the sizes of subsets.
      correlations: of each size.
    """

    correlation: Float[Array, "B"]
    correlations: Float[Array, "B _"]


class FaithfulnessCorrelation(NamedTuple):
    """Of each image.

    Attributes:
      correlation: in [-1, 1], higher is better.
    """

    correlation: Float[Array, "B"]


def sensitivity_n(
    logits_fn: LogitsFn,
    images: GivenImages,
    maps: GivenMaps,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    subsets: int = 100,
    shares: Shares = SHARES,
) -> SensitivityN:
    """Pearson's correlation of a map's sums with the falls of the logit.

    Ancona et al. (arXiv 1711.06104): of each size n, random subsets of n pixels take
    the mean colour; over the subsets of an image the sum of its map in a subset is
    correlated with how far the logit falls. 0 where either does not vary. Quantus takes
    subsets of neighbouring rank, and correlates over images instead.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      maps: `[B, H, W]`, signed.
      targets: a class, or one for each image, or a function of the logits; None: the
        predicted class.
      key: decides the subsets, which are the same for all images; None means
        `jax.random.key(0)`. A smaller subset lies within the larger one of its number.
      batch_size: how many images go through the classifier at once; None means 32, or
        all images if they are more.
      subsets: of each size, at least 2.
      shares: the sizes n, as shares of the pixels; about evenly spaced logarithms.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_at_least(2, subsets=subsets)
    check_at_least(1, shares=len(shares))
    asked, maps = ask_about(logits_fn, images, maps, targets, batch_size)
    sizes = pixels_of(shares, maps.shape[1:])
    correlations = _correlations(asked, maps, key_or_default(key), subsets, sizes)
    return SensitivityN(correlations.mean(axis=1), correlations)


def faithfulness_correlation(
    logits_fn: LogitsFn,
    images: GivenImages,
    maps: GivenMaps,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    subsets: int = 100,
    pixels: int = 224,
) -> FaithfulnessCorrelation:
    """Pearson's correlation of a map's sums with the falls of the logit, of one size.

    Bhatt, Weller and Moura (arXiv 2005.00631); 100 subsets of 224 as in Quantus, but of
    pixels, where Quantus draws single channels of pixels, for each image its own, and
    makes them black.

    Args:
      logits_fn: as for `sensitivity_n`, like all the others.
      images: see there.
      maps: see there.
      targets: see there.
      key: see there.
      batch_size: see there.
      subsets: at least 2.
      pixels: of each subset, fewer than the image has.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_at_least(2, subsets=subsets)
    asked, maps = ask_about(logits_fn, images, maps, targets, batch_size)
    of_image = math.prod(maps.shape[1:])
    if not 1 <= pixels < of_image:
        raise InputError(
            f"pixels is {pixels} for images of {of_image}: expected from 1 to "
            f"{of_image - 1}"
        )
    correlations = _correlations(asked, maps, key_or_default(key), subsets, (pixels,))
    return FaithfulnessCorrelation(correlations[:, 0])


def _correlations(
    asked: Question,
    maps: Float[Array, "B H W"],
    key: Key[Array, ""],
    subsets: int,
    sizes: tuple[int, ...],
) -> Float[Array, "B N"]:
    before = scores_of_images(asked, "logit")
    colour = jnp.asarray(asked.classifier.mean, jnp.float32)
    order = _random_ranks(keys_of(key, jnp.arange(subsets)), size=maps.shape[1:])
    found = []
    for size in map(jnp.asarray, sizes):
        shared = (order, size, colour)
        after = scores_of_edits(asked, _removed, (), subsets, "logit", (), shared)
        found.append(_correlation(maps, order, size, before, after))
    return jnp.stack(found, axis=1)


@partial(jax.jit, static_argnames="size")
def _random_ranks(keys: Key[Array, "N"], size: tuple[int, int]) -> Int[Array, "N H W"]:
    """Of each key an order of the pixels, of which a subset is the beginning."""
    return ranks(jax.vmap(lambda key: jax.random.uniform(key, size))(keys))


def _removed(
    static: tuple[()],
    sample: Int[Array, ""],
    image: Float[Array, "H W C"],
    details: tuple[()],
    shared: tuple[Int[Array, "N H W"], Int[Array, ""], Float[Array, "C"]],
) -> Float[Array, "H W C"]:
    order, size, colour = shared
    removed = order[sample] < size
    return jnp.where(removed[..., None], colour[None, None], image)


@jax.jit
def _correlation(
    maps: Float[Array, "B H W"],
    order: Int[Array, "N H W"],
    size: Int[Array, ""],
    before: Float[Array, "B"],
    after: Float[Array, "B N"],
) -> Float[Array, "B"]:
    # Subsets are of one size: a constant in the map adds the same to all sums. Without
    # it they are exact zeros for constant maps, and have more digits for others.
    varies = jnp.ptp(maps, axis=(1, 2), keepdims=True) > 0
    centred = jnp.where(varies, maps - jnp.mean(maps, axis=(1, 2), keepdims=True), 0)
    sums = jnp.einsum(
        "bhw,nhw->bn", centred, (order < size).astype(jnp.float32), precision="highest"
    )
    return jax.vmap(pearson)(sums, before[:, None] - after)


def pearson(x: Float[Array, "N"], y: Float[Array, "N"]) -> Float[Array, ""]:
    """Pearson's correlation; 0 where x or y is constant."""
    varies = (jnp.ptp(x) > 0) & (jnp.ptp(y) > 0)
    x, y = (_scaled(values - jnp.mean(values)) for values in (x, y))
    products = quotient(jnp.sum(x * y), jnp.sqrt(jnp.sum(x**2) * jnp.sum(y**2)))
    return jnp.where(varies, products, 0)


def _scaled(values: Float[Array, "N"]) -> Float[Array, "N"]:
    """To at most 1, since squares of very small numbers would be zero."""
    return quotient(values, jnp.max(jnp.abs(values)))
