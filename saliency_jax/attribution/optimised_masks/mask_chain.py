"""Mask estimation: a random walk over masks that stays where the class is seen.

Thakur and Fischmeister: Mask estimation (arXiv 2006.09504), with the constants of the
authors' code (shailja-thakur/explainability-project).
"""

from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from saliency_jax import prng
from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_at_least,
    check_option,
    classes_only,
    key_or_default,
    keys_of,
    with_targets,
)
from saliency_jax.attribution.batching import Chunk, chunk_of, over_samples, repeat
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.optimised_masks.coarse_masks import in_cells
from saliency_jax.attribution.perturbation.random_grids import axis_of, enlargement
from saliency_jax.attribution.scores import scores_of
from saliency_jax.errors import InputError
from saliency_jax.masking import masked_in, mean_infill
from saliency_jax.models.classifier import Classifier

Variant = Literal["author", "paper"]

Postprocess = Literal["script", "notebook", None]

SCRIPT_SHARE = 0.96
POINTS = 20
"""Of the convergence curve."""


class Constants(NamedTuple):
    """The options of `mask_estimation` that are static in jitted code."""

    variant: str
    steps: int
    grid: int
    on_share: float
    learning_rate: float
    roughness_rate: float
    floor: float


class Chain(NamedTuple):
    """Random walks under way, each of one image by itself.

    Attributes:
      masks: the cells' values; 0 is off.
      shown: the masks that the classifier sees next, of the images' size.
      probability: of the class at the step before.
      evidence: the sum of what was on.
      probabilities: of all steps so far.
      curve: the evidence per step, seen in cells, at some steps.
    """

    masks: Float[Array, "I h w"]
    shown: Float[Array, "I H W"]
    probability: Float[Array, "I"]
    evidence: Float[Array, "I H W"]
    probabilities: Float[Array, "I T"]
    curve: Float[Array, "I P h w"]


class Sums(NamedTuple):
    """Of all chains, by image."""

    maps: Float[Array, "B H W"]
    probabilities: Float[Array, "B N T"]
    curves: Float[Array, "B N P h w"]


def mask_estimation(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    variant: Variant = "author",
    steps: int = 500,
    chains: int = 10,
    grid: int = 8,
    on_share: float = 0.3,
    learning_rate: float = 0.02,
    roughness_rate: float = 0.1,
    floor: float = 0.1,
    postprocess: Postprocess = None,
    return_aux: bool = False,
) -> Float[Array, "B H W"] | tuple[Float[Array, "B H W"], dict[str, Array]]:
    """How long a random walk over masks shows each pixel: it stays where the class is.

    Thakur and Fischmeister (arXiv 2006.09504). In each step the classifier sees the
    image under a coarse random mask, the rest at its mean colour. With the class's
    probability p, a cell that is on stays on with probability p, and one that is off
    switches on with probability 1 - p: at p = 1 the mask freezes, at p = 0 it inverts.
    The grid is enlarged and shifted at random anew in each step, as in `rise` with
    `variant="author"`. The code makes 5000 steps one after the other; here so many are
    shared by chains that run side by side (`chains=1, steps=5000` is the code's).

    Variants:
      author: what the code does. A cell that switches on, or comes back to 1, has the
        value `1 - learning_rate * |change of p|`.
      paper: Algorithm 1, repaired. As printed, a cell that switches on has the value 0
        for ever, and every other one shrinks by `|change of p|` until nothing is left.
        Here cells are on or off as printed, and that is what the classifier sees. A
        weight is held apart. It is 1 while a cell is off; while it is on, each step
        multiplies it by `max(|change of p|, floor)`, but not below the floor, and adds
        `roughness_rate * V` of what it was, with V the mean squared difference of
        neighbouring weights (0 for off), up to 1. The map sums the weights that are on.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: a class, or one for each image; None for the predicted class.
      key: of the draws; those of a chain are the same for all images.
      batch_size: how many chains, of all images, run at once; None means 32, or all
        images if they are more.
      variant: see above.
      steps: of each chain.
      chains: of each image.
      grid: cells of a mask along each side.
      on_share: how many cells are on at first.
      learning_rate: of the code.
      roughness_rate: eta, of the repaired paper.
      floor: of the repaired paper.
      postprocess: "script": what exceeds 0.96 of the map's mean, as a share of its
        maximum; "notebook": minus the map's mean; None: as it is.
      return_aux: whether to return, besides, the "probabilities" of each step, `[B,
        chains, steps]`; and, as they were "after" so many steps `[P]`, two curves `[B,
        P]` of the map in cells: "change", its mean distance from the last one, and
        "disagreement", that of the maps of single chains from their mean.

    Returns:
      float32 maps: without `postprocess` the mean of what was shown, in [0, 1].

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_option("variant", variant, get_args(Variant))
    check_option("postprocess", postprocess, get_args(Postprocess))
    check_at_least(1, steps=steps, chains=chains, grid=grid)
    constants = Constants(
        variant, steps, grid, on_share, learning_rate, roughness_rate, floor
    )
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    classes = classes_only("mask_estimation", asked.targets)
    if not 0 <= on_share <= 1:
        raise InputError(f"on_share is {on_share}: expected a share from 0 to 1")
    if grid > min(asked.images.shape[1:3]):
        raise InputError(
            f"grid is {grid} for images of shape {asked.images.shape}: expected a cell "
            "of at least a pixel"
        )
    count = len(asked.images)
    points = min(POINTS, steps)
    sums = Sums(
        jnp.zeros(asked.images.shape[:3]),
        jnp.zeros((count, chains, steps)),
        jnp.zeros((count, chains, points, grid, grid)),
    )
    sums = over_samples(
        _run_chunk,
        sums,
        count,
        chains,
        asked.batch_size,
        asked.classifier,
        asked.images,
        classes,
        key_or_default(key),
        constants=constants,
    )
    maps = _postprocessed(sums.maps, postprocess)
    return (maps, _aux(sums, steps)) if return_aux else maps


def _run_chunk(
    sums: Sums,
    i: Int[Array, ""],
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    classes: Int[Array, "B"],
    key: Key[Array, ""],
    size: int,
    samples: int,
    constants: Constants,
) -> Sums:
    chunk = chunk_of(i, size, len(images), samples)
    keys = keys_of(key, chunk.samples)
    chain = repeat(
        _step,
        _begin(keys, images, constants),
        constants.steps,
        classifier,
        *chunk.of((images, classes)),
        keys,
        constants=constants,
    )
    return _collected(sums, chain, chunk)


@partial(jax.jit, static_argnames="constants")
def _begin(
    keys: Key[Array, "I"], images: Float[Array, "B H W C"], constants: Constants
) -> Chain:
    size, grid = images.shape[1:3], (constants.grid, constants.grid)
    draw = lambda key: jax.random.uniform(prng.stream_key(key, "start"), grid)
    masks = (jax.vmap(draw)(keys) < constants.on_share).astype(jnp.float32)
    count = len(keys)
    points = min(POINTS, constants.steps)
    return Chain(
        masks=masks,
        shown=_upsampled(keys, jnp.asarray(0), masks, size),
        probability=jnp.zeros(count),
        evidence=jnp.zeros((count, *size)),
        probabilities=jnp.zeros((count, constants.steps)),
        curve=jnp.zeros((count, points, *grid)),
    )


def _upsampled(
    keys: Key[Array, "I"],
    step: Int[Array, ""],
    masks: Float[Array, "I h w"],
    size: tuple[int, int],
) -> Float[Array, "I H W"]:
    """As RISE's authors do: to one cell more than the image, a random part cut out."""

    def of_one(key: Key[Array, ""], mask: Float[Array, "h w"]) -> Float[Array, "H W"]:
        of_axes = jax.random.split(prng.stream_key(key, "shift", step))
        lines = []
        for side, cells, of_axis in zip(size, mask.shape, of_axes, strict=True):
            axis = axis_of("author", side, cells)
            shift = jax.random.randint(of_axis, (), 0, axis.offsets)
            lines.append(enlargement(axis, cells, shift))
        down, across = lines
        return down @ mask @ across.T

    return jax.vmap(of_one)(keys, masks)


@partial(jax.jit, static_argnames="constants")
def _step(
    chain: Chain,
    i: Int[Array, ""],
    classifier: Classifier,
    images: Float[Array, "I H W C"],
    classes: Int[Array, "I"],
    keys: Key[Array, "I"],
    constants: Constants,
) -> Chain:
    edited = masked_in(images, chain.shown, mean_infill(classifier.mean))
    now = scores_of(classifier, edited, classes, "probability")
    change = jnp.abs(now - chain.probability)
    on = _walked(keys, i, chain.masks > 0, now)
    size = images.shape[1:3]
    of_author = constants.variant == "author"
    update = _reweighted_by_author if of_author else _reweighted_by_paper
    masks = update(chain.masks, on, change, constants)
    value = _upsampled(keys, i + 1, masks, size)
    shown = value if of_author else _upsampled(keys, i + 1, 1.0 * on, size)
    evidence = chain.evidence + value
    points = chain.curve.shape[1]
    return Chain(
        masks,
        shown,
        now,
        evidence,
        chain.probabilities.at[:, i].set(now),
        # The last step of those that share a point stays.
        chain.curve.at[:, i * points // constants.steps].set(
            in_cells(evidence, constants.grid) / (i + 1)
        ),
    )


def _walked(
    keys: Key[Array, "I"],
    i: Int[Array, ""],
    on: Bool[Array, "I h w"],
    probability: Float[Array, "I"],
) -> Bool[Array, "I h w"]:
    """Which cells are on next: with probability p those that are, with 1 - p others."""
    draw = lambda key: jax.random.uniform(prng.stream_key(key, "walk", i), on.shape[1:])
    probability = probability[:, None, None]
    return jax.vmap(draw)(keys) < jnp.where(on, probability, 1.0 - probability)


def _reweighted_by_author(
    masks: Float[Array, "I h w"],
    on: Bool[Array, "I h w"],
    change: Float[Array, "I"],
    constants: Constants,
) -> Float[Array, "I h w"]:
    """A cell whose value would rise to 1 gets a little less, others on are 1."""
    lowered = (1.0 - constants.learning_rate * change)[:, None, None]
    return jnp.where(on, jnp.where(masks < 1.0, lowered, 1.0), 0.0)


def _reweighted_by_paper(
    masks: Float[Array, "I h w"],
    on: Bool[Array, "I h w"],
    change: Float[Array, "I"],
    constants: Constants,
) -> Float[Array, "I h w"]:
    """Weights of the cells that are on, 0 for the others; see `mask_estimation`."""
    weights = jnp.where(masks > 0, masks, 1.0)
    factor = jnp.maximum(change, constants.floor)[:, None, None]
    mean_square = lambda x: jnp.mean(jnp.square(x), axis=(1, 2))
    roughness = jnp.zeros(len(masks))
    if constants.grid > 1:
        roughness = mean_square(masks[:, 1:] - masks[:, :-1])
        roughness += mean_square(masks[:, :, 1:] - masks[:, :, :-1])
    added = constants.roughness_rate * roughness[:, None, None] * weights
    weights = jnp.maximum(weights * factor, constants.floor) + added
    return jnp.where(on, jnp.minimum(weights, 1.0), 0.0)


@jax.jit
def _collected(sums: Sums, chain: Chain, chunk: Chunk) -> Sums:
    """Adds the chains that there are to their images."""
    chains, steps = sums.probabilities.shape[1:]
    return Sums(
        chunk.add(sums.maps, chain.evidence / (chains * steps)),
        chunk.put(sums.probabilities, chain.probabilities),
        chunk.put(sums.curves, chain.curve),
    )


@partial(jax.jit, static_argnames="how")
def _postprocessed(
    maps: Float[Array, "B H W"], how: str | None
) -> Float[Array, "B H W"]:
    mean = jnp.mean(maps, axis=(1, 2), keepdims=True)
    if how == "notebook":
        return maps - mean
    if how == "script":
        above = jnp.maximum(maps - SCRIPT_SHARE * mean, 0.0)
        return quotient(above, jnp.max(above, axis=(1, 2), keepdims=True))
    return maps


def _aux(sums: Sums, steps: int) -> dict[str, Array]:
    points = sums.curves.shape[2]
    together = jnp.mean(sums.curves, axis=1)
    change = jnp.abs(together - together[:, -1:])
    disagreement = jnp.abs(sums.curves - together[:, None])
    return {
        "probabilities": sums.probabilities,
        "after": -(-jnp.arange(1, points + 1) * steps // points),
        "change": jnp.mean(change, axis=(2, 3)),
        "disagreement": jnp.mean(disagreement, axis=(1, 3, 4)),
    }
