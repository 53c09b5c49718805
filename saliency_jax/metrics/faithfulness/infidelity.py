"""Infidelity: how far a map is from foretelling what random edits do to the score.

Yeh et al.: On the (in)fidelity and sensitivity of explanations (arXiv 1901.09392), with
the constants of the authors' code, which are for grey images of 28x28 pixels.
"""

from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    check_at_least,
    check_option,
    key_or_default,
    keys_of,
)
from saliency_jax.attribution.batching import chunk_of, over_samples
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.layers import Targets
from saliency_jax.attribution.perturbation.edits import scores_of_images
from saliency_jax.attribution.scores import scores_of
from saliency_jax.metrics.faithfulness.questions import GivenMaps, ask_about
from saliency_jax.models.classifier import Classifier

Perturbation = Literal["gaussian", "noisy_baseline", "square"]

NOISE = 0.2
LARGEST_SQUARE = 10 / 28


class Infidelity(NamedTuple):
    """Of each image, in squared logits; from 0, lower is better.

    Attributes:
      infidelity: of the map as it is.
      scaled: of the map times the number that makes it least, as in the authors' code:
        what remains does not depend on the map's scale or sign.
    """

    infidelity: Float[Array, "B"]
    scaled: Float[Array, "B"]


def infidelity(
    logits_fn: LogitsFn,
    images: GivenImages,
    maps: GivenMaps,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    samples: int = 200,
    perturbation: Perturbation = "square",
) -> Infidelity:
    """The mean squared difference of `I . E` and `f(x) - f(x - I)` over random I.

    Yeh et al. (arXiv 1901.09392), of a map E and the logit f. A map has one number for
    a pixel, an edit one for each of its channels: `I . E` sums the map times the mean
    of the edit over the channels.

    Perturbations:
      "square": the mean colour in a square, its side anything up to 10/28 of the
        image's, all of it inside the image. The edit counts as 1 inside, so this is for
        maps in units of the score, such as input x gradient, occlusion, Shapley values.
        The authors' code takes all squares of up to 10 pixels instead of random ones.
      "gaussian": noise of standard deviation 0.2, the same for a pixel's channels, less
        where an image would leave [0, 1]. For maps in units of the score for each unit
        of brightness, such as the gradient, summed over the channels.
      "noisy_baseline": what the authors' code calls Gaussian. The image becomes the
        mean colour (theirs: black) with such noise on each channel, cut to [0, 1]. For
        the same maps as "gaussian".

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      maps: `[B, H, W]`, signed.
      targets: a class, or one for each image, or a function of the logits; None: the
        predicted class.
      key: decides the edits; those of one number are drawn alike for all images; None
        means `jax.random.key(0)`.
      batch_size: how many images go through the classifier at once; None means 32, or
        all images if they are more.
      samples: edits of each image.
      perturbation: see above.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_option("perturbation", perturbation, get_args(Perturbation))
    check_at_least(1, samples=samples)
    asked, maps = ask_about(logits_fn, images, maps, targets, batch_size)
    count = len(maps)
    scores, foretold = over_samples(
        _add_chunk,
        2 * (jnp.zeros((count, samples)),),
        count,
        samples,
        asked.batch_size,
        (asked.classifier, key_or_default(key)),
        asked.images,
        maps,
        asked.targets,
        perturbation=perturbation,
    )
    return _summary(scores_of_images(asked, "logit"), scores, foretold)


@partial(jax.jit, static_argnames=("size", "samples", "perturbation"))
def _add_chunk(
    found: tuple[Float[Array, "B N"], Float[Array, "B N"]],
    i: Int[Array, ""],
    shared: tuple[Classifier, Key[Array, ""]],
    images: Float[Array, "B H W C"],
    maps: Float[Array, "B H W"],
    targets: Targets,
    size: int,
    samples: int,
    perturbation: Perturbation,
) -> tuple[Float[Array, "B N"], Float[Array, "B N"]]:
    """The scores of edited images, and what the maps foretell of their falls."""
    classifier, key = shared
    chunk = chunk_of(i, size, len(images), samples)
    colour = jnp.asarray(classifier.mean, jnp.float32)[None, None]
    edit = partial(_EDITS[perturbation], colour)
    edited, weights = jax.vmap(edit)(keys_of(key, chunk.samples), chunk.of(images))
    scores = scores_of(classifier, edited, chunk.of(targets), "logit")
    foretold = jnp.sum(weights * chunk.of(maps), axis=(1, 2))
    return chunk.put(found[0], scores), chunk.put(found[1], foretold)


Edit = tuple[Float[Array, "H W C"], Float[Array, "H W"]]
"""An edited image x - I, and what stands for I beside a map."""


def _gaussian(
    colour: Float[Array, "1 1 C"], key: Key[Array, ""], image: Float[Array, "H W C"]
) -> Edit:
    noise = NOISE * jax.random.normal(key, image.shape[:2])
    lowest, highest = jnp.max(image, axis=-1) - 1, jnp.min(image, axis=-1)
    noise = jnp.clip(noise, lowest, highest)
    return image - noise[..., None], noise


def _noisy_baseline(
    colour: Float[Array, "1 1 C"], key: Key[Array, ""], image: Float[Array, "H W C"]
) -> Edit:
    edited = colour + NOISE * jax.random.normal(key, image.shape)
    edited = jnp.clip(edited, 0, 1)
    return edited, jnp.mean(image - edited, axis=-1)


def _square(
    colour: Float[Array, "1 1 C"], key: Key[Array, ""], image: Float[Array, "H W C"]
) -> Edit:
    inside = square(key, image.shape[:2])
    return jnp.where(inside[..., None], colour, image), inside.astype(jnp.float32)


_EDITS = {
    "gaussian": _gaussian,
    "noisy_baseline": _noisy_baseline,
    "square": _square,
}


def square(key: Key[Array, ""], size: tuple[int, int]) -> Bool[Array, "H W"]:
    """A random square inside an image: True in it.

    Its side is uniform from 1 to 10/28 of the image's shorter side, and then its place.

    Args:
      key: of this square.
      size: (H, W) of the image.
    """
    of_side, *of_place = jax.random.split(key, 3)
    largest = max(1, round(LARGEST_SQUARE * min(size)))
    side = jax.random.randint(of_side, (), 1, largest + 1)
    rows, columns = (
        _between(jax.random.randint(key, (), 0, length - side + 1), side, length)
        for key, length in zip(of_place, size, strict=True)
    )
    return rows[:, None] & columns[None]


def _between(
    first: Int[Array, ""], side: Int[Array, ""], length: int
) -> Bool[Array, "L"]:
    places = jnp.arange(length)
    return (places >= first) & (places < first + side)


@jax.jit
def _summary(
    before: Float[Array, "B"],
    after: Float[Array, "B N"],
    foretold: Float[Array, "B N"],
) -> Infidelity:
    falls = before[:, None] - after
    # Of a map of any scale, whose square need not be a float32.
    unit = quotient(foretold, jnp.max(jnp.abs(foretold), axis=1, keepdims=True))
    scale = quotient(jnp.mean(falls * unit, 1), jnp.mean(unit**2, 1))
    difference = lambda scaled: jnp.mean((scaled - falls) ** 2, axis=1)
    return Infidelity(difference(foretold), difference(scale[:, None] * unit))
