"""ROAD: removed pixels are filled in from around them, so that they tell nothing.

Rong et al.: A consistent and efficient evaluation strategy for attribution methods
(arXiv 2202.00449).
"""

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Bool, Float, Int, Key
from scipy.sparse.linalg import splu

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    check_at_least,
    key_or_default,
    keys_of,
)
from saliency_jax.attribution.batching import Chunk, chunk_of, over_samples
from saliency_jax.attribution.layers import Targets
from saliency_jax.attribution.perturbation.edits import scores_of_images
from saliency_jax.attribution.scores import scores_of
from saliency_jax.metrics.faithfulness.questions import (
    GivenMaps,
    Shares,
    ask_about,
    pixels_of,
    ranks,
)
from saliency_jax.models.classifier import Classifier

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NOISE = 0.01

# Of neighbours at a side and at a corner, relative to each other: 1/6 and 1/12.
SIDE, CORNER = 2.0, 1.0

_NEIGHBOURS = tuple(
    (down, right, CORNER if down and right else SIDE)
    for down in (-1, 0, 1)
    for right in (-1, 0, 1)
    if down or right
)

# In the place of the number of an unknown.
_OUTSIDE, _KEPT = -2, -1


class Road(NamedTuple):
    """Of each image, as changes of the class's probability.

    Attributes:
      combined: half of the mean difference of the two below. In [-1, 1]; higher is
        better.
      most_relevant_first: without the pixels where the map is highest, for each share;
        lower is better.
      least_relevant_first: without those where it is lowest; higher is better.
    """

    combined: Float[Array, "B"]
    most_relevant_first: Float[Array, "B _"]
    least_relevant_first: Float[Array, "B _"]


def road(
    logits_fn: LogitsFn,
    images: GivenImages,
    maps: GivenMaps,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    shares: Shares = SHARES,
) -> Road:
    """How the class's probability changes without the map's best, and its worst.

    Rong et al. (arXiv 2202.00449): every removed pixel becomes the weighted mean of its
    up to eight neighbours, removed ones too (1/6 for those at a side, 1/12 at a corner,
    and as much less of the whole at the border), and noise of standard deviation 0.01
    is added. They report accuracies; the changes of the score and their combination are
    pytorch-grad-cam's. Equal pixels count in raster order as decreasing.

    The systems are solved on the host, in threads, so this cannot be jitted.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      maps: `[B, H, W]`, higher where a pixel counts more.
      targets: a class, or one for each image, or a function of the probabilities; None:
        the predicted class.
      key: decides the noise, which is the same for all images; None means
        `jax.random.key(0)`.
      batch_size: how many images go through the classifier at once; None means 32, or
        all images if they are more.
      shares: of the pixels, that are removed.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_at_least(1, shares=len(shares))
    asked, maps = ask_about(logits_fn, images, maps, targets, batch_size)
    sizes = np.asarray(pixels_of(shares, maps.shape[1:]))
    order = np.asarray(ranks(maps))
    before = scores_of_images(asked, "probability")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        after = over_samples(
            partial(_add_chunk, threads, np.asarray(asked.images), order, sizes),
            jnp.zeros((len(maps), 2 * len(sizes))),
            len(maps),
            2 * len(sizes),
            asked.batch_size,
            (asked.classifier, key_or_default(key)),
            asked.targets,
        )
    return _summary(before, after)


def _add_chunk(
    threads: Executor,
    images: Float[np.ndarray, "B H W C"],
    order: Int[np.ndarray, "B H W"],
    sizes: Int[np.ndarray, "N"],
    scores: Float[Array, "B _"],
    i: Int[Array, ""],
    shared: tuple[Classifier, Key[Array, ""]],
    targets: Targets,
    size: int,
    samples: int,
) -> Float[Array, "B _"]:
    """The scores; the first half of an image's samples removes its best pixels."""
    chunk = chunk_of(i, size, len(images), samples)
    rows, numbers = np.asarray(chunk.rows), np.asarray(chunk.samples)
    count = sizes[numbers % len(sizes)][:, None, None]
    best = (numbers < len(sizes))[:, None, None]
    pixels = order[0].size
    removed = np.where(best, order[rows] < count, order[rows] >= pixels - count)
    filled = np.stack([*threads.map(impute, images[rows], removed)])
    return _put_scores(scores, chunk, shared, filled, removed, targets)


@jax.jit
def _put_scores(
    scores: Float[Array, "B _"],
    chunk: Chunk,
    shared: tuple[Classifier, Key[Array, ""]],
    filled: Float[Array | np.ndarray, "I H W C"],
    removed: Bool[Array | np.ndarray, "I H W"],
    targets: Targets,
) -> Float[Array, "B _"]:
    classifier, key = shared
    noise = lambda key: NOISE * jax.random.normal(key, filled.shape[1:])
    noises = jax.vmap(noise)(keys_of(key, chunk.samples))
    edited = filled + jnp.where(removed[..., None], noises, 0)
    found = scores_of(classifier, edited, chunk.of(targets), "probability")
    return chunk.put(scores, found)


@jax.jit
def _summary(before: Float[Array, "B"], after: Float[Array, "B _"]) -> Road:
    most, least = jnp.split(after - before[:, None], 2, axis=1)
    return Road(jnp.mean(least - most, axis=1) / 2, most, least)


def impute(
    image: Float[np.ndarray, "H W C"], removed: Bool[np.ndarray, "H W"]
) -> Float[np.ndarray, "H W C"]:
    """Fills removed pixels so that each is the weighted mean of its neighbours.

    Args:
      image: of any range.
      removed: where; at least one pixel is not.
    """
    grid = np.full(removed.shape, _KEPT)
    grid[removed] = np.arange(removed.sum())
    grid = np.pad(grid, 1, constant_values=_OUTSIDE)
    values = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    row, column = np.nonzero(removed)
    unknowns = np.arange(len(row))
    totals, constants = np.zeros(len(row)), np.zeros((len(row), image.shape[-1]))
    rows, columns, weights = [], [], []
    for down, right, weight in _NEIGHBOURS:
        place = row + 1 + down, column + 1 + right
        neighbour = grid[place]
        totals += weight * (neighbour != _OUTSIDE)
        constants += np.where(neighbour == _KEPT, weight, 0)[:, None] * values[place]
        linked = neighbour >= 0
        rows.append(unknowns[linked])
        columns.append(neighbour[linked])
        weights.append(np.full(linked.sum(), -weight))
    matrix = scipy.sparse.csc_array(
        (
            np.concatenate([*weights, totals]),
            (
                np.concatenate([*rows, unknowns]),
                np.concatenate([*columns, unknowns]),
            ),
        ),
        shape=(len(row), len(row)),
    )
    # Multiplied by its total weight, an equation's matrix is symmetric and positive.
    factors = splu(
        matrix,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    filled = image.copy()
    filled[removed] = factors.solve(constants)
    return filled
