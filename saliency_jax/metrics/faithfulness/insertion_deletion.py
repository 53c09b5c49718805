"""Insertion and deletion: how soon the class appears, or goes, with the map's best.

Petsiuk, Das and Saenko: RISE, randomized input sampling for explanation of black-box
models (arXiv 1806.07421), with the constants and substrates of the published code
(`tests/golden/insertion_deletion.npz` holds what it answers).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jaxtyping import Array, Bool, Float, Int

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    Question,
    check_at_least,
)
from saliency_jax.attribution.perturbation.edits import (
    scores_of_edits,
    scores_of_images,
)
from saliency_jax.metrics.faithfulness.questions import GivenMaps, ask_about, ranks

BLUR_SIDE, BLUR_SIGMA = 11, 5.0

# Between the whole image and the substrate; below it an order has nothing to show.
LEAST_DIFFERENCE = 0.01


class Curve(NamedTuple):
    """A curve of each image.

    Attributes:
      auc: the area under the curve over the share of moves, by the trapezoid rule. In
        [0, 1].
      normalised_auc: the same when the substrate's score counts as 0 and the whole
        image's as 1: (auc - low) / (clean - low). About in [0, 1]; 1/2 where the image
        has less than 0.01 more than the substrate.
      scores: the probability of the class after each move, from none to all.
    """

    auc: Float[Array, "B"]
    normalised_auc: Float[Array, "B"]
    scores: Float[Array, "B _"]


class InsertionDeletion(NamedTuple):
    """Both curves of each image.

    Attributes:
      insertion: higher areas are better.
      deletion: lower areas are better.
    """

    insertion: Curve
    deletion: Curve


def insertion_deletion(
    logits_fn: LogitsFn,
    images: GivenImages,
    maps: GivenMaps,
    targets: GivenTargets = None,
    *,
    batch_size: int | None = None,
    moves: int = 28,
) -> InsertionDeletion:
    """Both `insertion` and `deletion`; the whole image goes through only once.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      maps: `[B, H, W]`, higher where a pixel counts more.
      targets: a class, or one for each image, or a function of the probabilities; None:
        the predicted class.
      batch_size: how many images go through the classifier at once; None means 32, or
        all images if they are more.
      moves: in how many all pixels move, each of ceil(H W / moves) pixels, so that
        fewer may do. The authors' code has 28 for batches of images of 224x224 pixels
        and 224 for single ones.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    asked, order, step = _ordered(logits_fn, images, maps, targets, batch_size, moves)
    clean = scores_of_images(asked, "probability")
    return InsertionDeletion(
        insertion=_curve(asked, order, step, clean, inserts=True),
        deletion=_curve(asked, order, step, clean, inserts=False),
    )


def insertion(
    logits_fn: LogitsFn,
    images: GivenImages,
    maps: GivenMaps,
    targets: GivenTargets = None,
    *,
    batch_size: int | None = None,
    moves: int = 28,
) -> Curve:
    """The class's probability while a blurred image becomes sharp, best pixels first.

    Pixels move in the order of decreasing map, equal ones in raster order. The blur is
    a Gaussian of 5 pixels, cut off at 11x11, with the mean colour around the image.

    Args:
      logits_fn: as for `insertion_deletion`, like all the others.
      images: see there.
      maps: see there.
      targets: see there.
      batch_size: see there.
      moves: see there.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    asked, order, step = _ordered(logits_fn, images, maps, targets, batch_size, moves)
    clean = scores_of_images(asked, "probability")
    return _curve(asked, order, step, clean, inserts=True)


def deletion(
    logits_fn: LogitsFn,
    images: GivenImages,
    maps: GivenMaps,
    targets: GivenTargets = None,
    *,
    batch_size: int | None = None,
    moves: int = 28,
) -> Curve:
    """The class's probability while the mean colour takes the place of the best pixels.

    Pixels move in the order of decreasing map, equal ones in raster order.

    Args:
      logits_fn: as for `insertion_deletion`, like all the others.
      images: see there.
      maps: see there.
      targets: see there.
      batch_size: see there.
      moves: see there.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    asked, order, step = _ordered(logits_fn, images, maps, targets, batch_size, moves)
    clean = scores_of_images(asked, "probability")
    return _curve(asked, order, step, clean, inserts=False)


def _ordered(
    logits_fn: LogitsFn,
    images: GivenImages,
    maps: GivenMaps,
    targets: GivenTargets,
    batch_size: int | None,
    moves: int,
) -> tuple[Question, Int[Array, "B H W"], int]:
    """The question, the order of the pixels, and how many move at once."""
    check_at_least(1, moves=moves)
    asked, maps = ask_about(logits_fn, images, maps, targets, batch_size)
    return asked, ranks(maps), -(-math.prod(maps.shape[1:]) // moves)


def _curve(
    asked: Question,
    order: Int[Array, "B H W"],
    step: int,
    clean: Float[Array, "B"],
    inserts: bool,
) -> Curve:
    """The curve of an order; both kinds share the program that asks the classifier."""
    scores = scores_of_edits(
        asked,
        _moved,
        step,
        -(-math.prod(order.shape[1:]) // step),
        "probability",
        (order, _substrate(asked.images, asked.classifier.mean, inserts=inserts)),
        jnp.asarray(inserts),
    )
    return _summary(scores, clean, inserts=inserts)


def _moved(
    step: int,
    sample: Int[Array, ""],
    image: Float[Array, "H W C"],
    details: tuple[Int[Array, "H W"], Float[Array, "H W C"]],
    inserts: Bool[Array, ""],
) -> Float[Array, "H W C"]:
    order, substrate = details
    # The whole image, which is the end of insertion and the start of deletion, is left
    # out of both.
    moves = sample + jnp.where(inserts, 0, 1)
    shown = (order < moves * step) == inserts
    return jnp.where(shown[..., None], image, substrate)


@partial(jax.jit, static_argnames="inserts")
def _summary(
    scores: Float[Array, "B _"], clean: Float[Array, "B"], inserts: bool
) -> Curve:
    low = scores[:, 0] if inserts else scores[:, -1]
    parts = (scores, clean[:, None]) if inserts else (clean[:, None], scores)
    scores = jnp.concatenate(parts, axis=1)
    auc = (jnp.sum(scores, axis=1) - (clean + low) / 2) / (scores.shape[1] - 1)
    difference = clean - low
    ordered = difference >= LEAST_DIFFERENCE
    normalised = (auc - low) / jnp.where(ordered, difference, 1)
    return Curve(auc, jnp.where(ordered, normalised, 0.5), scores)


@partial(jax.jit, static_argnames=("mean", "inserts"))
def _substrate(
    images: Float[Array, "B H W C"], mean: tuple[float, ...], inserts: bool
) -> Float[Array, "B H W C"]:
    """The mean colour, or the images blurred in it: after normalisation, in zeros."""
    colour = jnp.asarray(mean, jnp.float32)[None, None, None]
    if not inserts:
        return jnp.broadcast_to(colour, images.shape)
    down, across = (_blur_matrix(side) for side in images.shape[1:3])
    product = partial(jnp.einsum, precision="highest")
    rows = product("hy,byxc->bhxc", down, images - colour)
    return product("wx,bhxc->bhwc", across, rows) + colour


def blur_kernel() -> Float[np.ndarray, "K"]:
    """The authors' kernel along one axis: SciPy's filter of a one among ten zeros.

    SciPy mirrors at the border, so that the sum is 1 and the values are nearly equal.
    """
    one = np.zeros(BLUR_SIDE)
    one[BLUR_SIDE // 2] = 1
    return scipy.ndimage.gaussian_filter(one, BLUR_SIGMA)


def _blur_matrix(side: int) -> Float[np.ndarray, "L L"]:
    distance = np.arange(side)[:, None] - np.arange(side)[None] + BLUR_SIDE // 2
    inside = (distance >= 0) & (distance < BLUR_SIDE)
    weights = blur_kernel()[np.clip(distance, 0, BLUR_SIDE - 1)]
    return np.where(inside, weights, 0).astype(np.float32)
