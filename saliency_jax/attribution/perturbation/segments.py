"""Superpixels, and the scores of images of which some superpixels are hidden."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num

from saliency_jax.attribution.asking import (
    GivenImages,
    Question,
    check_option,
    keys_of,
)
from saliency_jax.attribution.batching import is_traced
from saliency_jax.attribution.perturbation.edits import (
    Colour,
    Output,
    as_colour,
    scores_of_edits,
)
from saliency_jax.errors import InputError
from saliency_jax.masking import check_images, to_float

Algorithm = Literal["quickshift", "slic", "grid"]

Segments = Algorithm | Int[Array | np.ndarray, "..."]
"""An algorithm's name, or the number of each pixel's segment: `[B, H, W]`, or `[H, W]`
for all images."""

HiddenColour = Literal["segment"] | Colour
"""What hidden segments show: "segment", their own mean colour, or a colour."""

Draw = Callable[
    [Key[Array, ""], Int[Array, ""], Bool[Array, "S"], int], Bool[Array, "S"]
]
"""`draw(key, sample, used, samples)`: which segments a sample shows."""

# Draws come in blocks, so that they do not depend on how many segments there are, and
# few different numbers are compiled for.
BLOCK = 64

# LIME's, with a seed, for the order of equals.
_QUICKSHIFT = {"kernel_size": 4, "max_dist": 200, "ratio": 0.2, "rng": 0}
GRID = 8


def superpixels(
    images: GivenImages, method: Algorithm = "quickshift", **options: Any
) -> Int[np.ndarray, "B H W"]:
    """Cuts images into segments, numbered from 0 without gaps.

    On the host, with scikit-image; so not inside `jax.jit`.

    Args:
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      method: "quickshift", as LIME does it (kernel_size=4, max_dist=200, ratio=0.2), in
        Lab colours where there are three channels; "slic"; or "grid", 8 times 8 equal
        rectangles (without scikit-image).
      **options: of `skimage.segmentation.quickshift` or `slic`; of a grid `cells`,
        along each side.

    Raises:
      InputError: the images have another shape or are not known yet, or the method is
        unknown.
    """
    check_images(images)
    check_option("method", method, get_args(Algorithm))
    if method == "grid":
        one = _grid(*images.shape[1:3], **options)
        return np.broadcast_to(one, images.shape[:3])
    if is_traced(images):
        raise InputError(
            "superpixels are made on the host, which does not know the images inside "
            "jax.jit: make them outside with saliency_jax.attribution.perturbation."
            "segments.superpixels(images) and pass them in as segments=, or use "
            "segments='grid'"
        )
    from skimage import segmentation  # slow to import, and few need it

    images = np.asarray(to_float(jnp.asarray(images)), np.float64)
    if method == "quickshift":
        in_lab = {"convert2lab": images.shape[-1] == 3}
        cut = partial(segmentation.quickshift, **{**_QUICKSHIFT, **in_lab, **options})
    else:
        cut = partial(segmentation.slic, **options)
    return np.stack([_numbered(cut(image)) for image in images])


def _grid(height: int, width: int, cells: int = GRID) -> Int[np.ndarray, "H W"]:
    if not 1 <= cells <= min(height, width):
        raise InputError(
            f"a grid of {cells} cells along sides of {height} and {width} pixels: "
            f"expected 1 to {min(height, width)}"
        )
    row, column = (np.arange(side) * cells // side for side in (height, width))
    return (row[:, None] * cells + column[None]).astype(np.int32)


def _numbered(segments: Int[np.ndarray, "H W"]) -> Int[np.ndarray, "H W"]:
    _, numbers = np.unique(segments, return_inverse=True)
    return numbers.reshape(segments.shape).astype(np.int32)


@flax.struct.dataclass
class Segmented:
    """Images, or one image, cut into segments.

    Attributes:
      segments: the number of each pixel's.
      used: which of S numbers an image has; S is a multiple of `BLOCK`.
      pixels: of each segment.
      mean: colour of each.
      hidden: colour of each where it is hidden.
    """

    segments: Int[Array, "*B H W"]
    used: Bool[Array, "*B S"]
    pixels: Float[Array, "*B S"]
    mean: Float[Array, "*B S C"]
    hidden: Float[Array, "*B S C"]


def segmented(
    asked: Question,
    given: GivenImages,
    segments: Segments,
    max_segments: int | None,
    value: HiddenColour,
) -> tuple[Segmented, int]:
    """Checks a user's segments, or makes them.

    Args:
      asked: about the images.
      given: the images as the user passed them, which may be known where those of the
        `asked` are not.
      segments: see `Segments`.
      max_segments: more than the greatest number in `segments`; needed where these are
        an array inside the user's `jax.jit`.
      value: what hidden segments show.

    Returns:
      The segments, and how many numbers a user sees, at most S. They are apart because
      code is compiled for S alone.

    Raises:
      InputError: segments of another shape or type or with negative numbers, or it is
        not known how many there are.
    """
    if isinstance(segments, str):
        check_option("segments", segments, get_args(Algorithm))
        segments = superpixels(given, segments)
    shape = asked.images.shape[:3]
    if segments.shape not in (shape, shape[1:]):
        raise InputError(
            f"segments of shape {segments.shape} for images of {shape}: expected "
            f"{shape}, or {shape[1:]} for all images"
        )
    if is_traced(segments):
        if max_segments is None:
            raise InputError(
                "inside jax.jit it is not known how many segments there are: pass "
                "max_segments=, more than their greatest number"
            )
        count = max_segments
    else:
        known = np.asarray(segments)
        if known.min() < 0:
            raise InputError(
                f"segment {known.min()}: expected numbers from 0, as of superpixels"
            )
        count = int(known.max()) + 1 if max_segments is None else max_segments
        if known.max() >= count:
            raise InputError(
                f"segment {known.max()}, but max_segments is {count}: it must be more "
                f"than the greatest number"
            )
    segments = jnp.broadcast_to(jnp.asarray(segments, jnp.int32), shape)
    padded = -(-count // BLOCK) * BLOCK
    pixels, mean = _means(asked.images, segments, padded)
    colour = None
    if not (isinstance(value, str) and value == "segment"):
        colour = as_colour(value, asked.classifier, asked.images)
        colour = jnp.broadcast_to(colour[None, None], mean.shape)
    hidden = mean if colour is None else colour
    return Segmented(segments, pixels > 0, pixels, mean, hidden), count


@partial(jax.jit, static_argnames="count")
def _means(
    images: Float[Array, "B H W C"], segments: Int[Array, "B H W"], count: int
) -> tuple[Float[Array, "B S"], Float[Array, "B S C"]]:
    """The pixels and the mean colour of each segment.

    Segment by segment, since sums that are scattered have no fixed order on a GPU.
    """

    def of_segment(number: Int[Array, ""]) -> tuple[Array, Array]:
        inside = segments == number
        pixels = jnp.sum(inside, axis=(1, 2)).astype(jnp.float32)
        sums = jnp.sum(jnp.where(inside[..., None], images, 0.0), axis=(1, 2))
        return pixels, sums / jnp.maximum(pixels, 1.0)[:, None]

    pixels, means = jax.lax.map(of_segment, jnp.arange(count))
    return jnp.moveaxis(pixels, 0, 1), jnp.moveaxis(means, 0, 1)


def scores_of_coalitions(
    asked: Question,
    cut: Segmented,
    draw: Draw,
    samples: int,
    output: Output,
    key: Key[Array, ""],
) -> Float[Array, "B N"]:
    """The scores of images of which each sample shows some segments.

    Args:
      asked: with targets.
      cut: the images' segments.
      draw: a function of a module.
      samples: N.
      output: which scores.
      key: of the draws.
    """
    details = (cut.segments, cut.used, cut.hidden)
    return scores_of_edits(
        asked, _shown, (draw, samples), samples, output, details, key
    )


def _shown(
    static: tuple[Draw, int],
    sample: Int[Array, ""],
    image: Float[Array, "H W C"],
    details: tuple[Int[Array, "H W"], Bool[Array, "S"], Float[Array, "S C"]],
    key: Key[Array, ""],
) -> Float[Array, "H W C"]:
    draw, samples = static
    segments, used, hidden = details
    present = draw(key, sample, used, samples)
    return jnp.where(present[segments][..., None], image, hidden[segments])


def in_blocks(
    draw: Callable[[Key[Array, ""]], Num[Array, "_"] | Bool[Array, "_"]],
    key: Key[Array, ""],
    count: int,
) -> Num[Array, "S"] | Bool[Array, "S"]:
    """Draws for `count` segments, `BLOCK` by `BLOCK`: more of them change none."""
    keys = keys_of(key, jnp.arange(count // BLOCK))
    return jax.vmap(draw)(keys).reshape(count)


@jax.jit
def painted(
    values: Float[Array, "B S *C"], segments: Int[Array, "B H W"]
) -> Float[Array, "B H W *C"]:
    """Maps, or images, in which each pixel has the value of its segment."""
    return jax.vmap(lambda values, segments: values[segments])(values, segments)
