"""RISE: the mean of random masks, each weighted by the score of what it shows.

Petsiuk, Das and Saenko: RISE, randomized input sampling for explanation of black-box
models (arXiv 1806.07421).
"""

from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_at_least,
    check_option,
    key_or_default,
    keys_of,
    with_targets,
)
from saliency_jax.attribution.batching import chunk_of, in_batches, over_samples
from saliency_jax.attribution.layers import Targets
from saliency_jax.attribution.maps import Maps
from saliency_jax.attribution.perturbation.edits import Colour, as_colour
from saliency_jax.attribution.scores import scores_of
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier

Variant = Literal["author", "xplique", "torchray"]

# xplique's, so that a pixel that no mask shows is zero.
EPSILON = 1e-4


class Axis(NamedTuple):
    """How a grid is enlarged along one side of the images.

    Attributes:
      side: pixels of the images.
      cell: pixels of a cell of the enlarged grid, maybe not a whole number.
      offsets: how many the first pixel of a crop is chosen from.
      mirrored: whether the grid goes on as its mirror image beyond the centres of its
        outermost cells, not as these cells.
    """

    side: int
    cell: float
    offsets: int
    mirrored: bool


class _Grids(NamedTuple):
    cells: int
    probability: float
    axes: tuple[Axis, Axis]


def rise(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    masks: int = 4000,
    cells: int = 7,
    probability: float = 0.5,
    value: Colour = None,
    variant: Variant = "author",
) -> Maps:
    """The mean of random masks, weighted by the probability of what they show.

    Petsiuk et al. (arXiv 1806.07421): `S = 1 / (N p) sum_i f(x * M_i) M_i`. A mask is a
    random grid of zeros and ones, enlarged bilinearly and cropped at a random offset.
    Pixels that a mask removes have the colour `value`; removed by half, half of it.

    Variants:
      "author": the published code. A grid is enlarged to one cell more than the image,
        mirrored at the border (skimage's order 1, mode "reflect").
      "xplique": as in xplique, the sum of the masks divides instead of N p, so that
        pixels that chance shows more often are not favoured; the enlarged grid is
        constant beyond the centres of the outermost cells. xplique crops all masks of a
        batch at one offset; here each has its own.
      "torchray": as in TorchRay, of the sigmoid of the logits, divided by N alone; the
        cells are larger, so that a crop sees fewer of them.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`; a function is of the probabilities.
      key: decides the masks, which are the same for all images; None means
        `jax.random.key(0)`.
      batch_size: how many images go through the classifier at once; None means 32, or
        all images if they are more.
      masks: N.
      cells: of a grid, along each side.
      probability: p, that a cell shows the image.
      value: what removed pixels show; None: the mean colour of the classifier.
      variant: see above.

    Returns:
      float32 maps, not negative: at a pixel about the mean probability of the class
      over the masks that show it ("torchray": p times that).

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    check_option("variant", variant, get_args(Variant))
    check_at_least(1, masks=masks, cells=cells)
    if not 0 < probability <= 1:
        raise InputError(
            f"probability is {probability}: it must be above 0, and at most 1"
        )
    grids = _Grids(
        cells,
        probability,
        tuple(axis_of(variant, side, cells) for side in asked.images.shape[1:3]),
    )
    colour = as_colour(value, asked.classifier, asked.images)
    return in_batches(
        _of_images,
        asked.batch_size,
        (asked.classifier, key_or_default(key), colour),
        asked.images,
        asked.targets,
        masks=masks,
        grids=grids,
        variant=variant,
        at_once=asked.batch_size,
    )


def axis_of(variant: Variant, side: int, cells: int) -> Axis:
    """The enlargement that a library makes.

    Args:
      variant: whose; see `rise`.
      side: of the images, in pixels.
      cells: of a grid, along that side.
    """
    cell = -(-side // cells)
    if variant == "author":
        return Axis(side, (cells + 1) * cell / cells, cell, mirrored=True)
    if variant == "torchray":
        return Axis(side, -(-(side + cell) // cells), cell, mirrored=True)
    enlarged = int(side * (1 + 1 / cells))
    return Axis(side, enlarged / cells, enlarged - side + 1, mirrored=False)


def _of_images(
    shared: tuple[Classifier, Key[Array, ""], Float[Array, "C"]],
    images: Float[Array, "B H W C"],
    targets: Targets,
    masks: int,
    grids: _Grids,
    variant: Variant,
    at_once: int,
) -> Maps:
    """Maps of no more images than go through the classifier at once."""
    count, *size = images.shape[:3]
    sums = over_samples(
        _add_chunk,
        jnp.zeros((count + 1, *size)),
        count,
        masks,
        at_once,
        shared,
        images,
        targets,
        grids=grids,
        output="sigmoid" if variant == "torchray" else "probability",
    )
    return _divided(sums, masks=masks, probability=grids.probability, variant=variant)


@partial(jax.jit, static_argnames=("size", "samples", "grids", "output"))
def _add_chunk(
    sums: Float[Array, "_ H W"],
    i: Int[Array, ""],
    shared: tuple[Classifier, Key[Array, ""], Float[Array, "C"]],
    images: Float[Array, "B H W C"],
    targets: Targets,
    size: int,
    samples: int,
    grids: _Grids,
    output: str,
) -> Float[Array, "_ H W"]:
    """The weighted sums of masks of all images, and after them the sum of masks."""
    classifier, key, colour = shared
    chunk = chunk_of(i, size, len(images), samples)
    drawn = jax.vmap(lambda key: _mask(key, grids))(keys_of(key, chunk.samples))
    colour = colour[None, None, None]
    shown = colour + drawn[..., None] * (chunk.of(images) - colour)
    scores = scores_of(classifier, shown, chunk.of(targets), output)
    # One matrix product sums, where `chunk.add` would write item by item.
    own = chunk.places[None] == jnp.arange(len(images))[:, None]
    weights = jnp.where(own, scores[None], 0.0)
    weights = jnp.concatenate([weights, own[:1].astype(jnp.float32)])
    return sums + jnp.einsum("bi,ihw->bhw", weights, drawn, precision="highest")


@partial(jax.jit, static_argnames=("masks", "probability", "variant"))
def _divided(
    sums: Float[Array, "_ H W"], masks: int, probability: float, variant: Variant
) -> Maps:
    if variant == "xplique":
        return sums[:-1] / (sums[-1:] + EPSILON)
    return sums[:-1] / (masks * probability if variant == "author" else masks)


def _mask(key: Key[Array, ""], grids: _Grids) -> Float[Array, "H W"]:
    of_grid, *of_axes = jax.random.split(key, 3)
    shown = jax.random.bernoulli(of_grid, grids.probability, 2 * (grids.cells,))
    down, across = (
        enlargement(axis, grids.cells, jax.random.randint(key, (), 0, axis.offsets))
        for axis, key in zip(grids.axes, of_axes, strict=True)
    )
    grid = shown.astype(jnp.float32)
    return jnp.einsum("hi,ij,wj->hw", down, grid, across, precision="highest")


def enlargement(
    axis: Axis, cells: int, offset: Int[Array, ""] | int
) -> Float[Array, "L s"]:
    """What share each cell has in each pixel: linear interpolation as a matrix.

    Args:
      axis: the images' side and its enlargement.
      cells: of the grid.
      offset: the first pixel of the crop.
    """
    place = (jnp.arange(axis.side) + offset + 0.5) / axis.cell - 0.5
    last = cells - 1
    if axis.mirrored:
        place = last - jnp.abs(last - jnp.abs(place))
    place = jnp.clip(place, 0, last)
    return jnp.maximum(0.0, 1.0 - jnp.abs(place[:, None] - jnp.arange(cells)[None]))
