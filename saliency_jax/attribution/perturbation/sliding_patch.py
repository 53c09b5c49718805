"""Occlusion: how far the score falls when a patch covers a part of the image.

Zeiler and Fergus: Visualizing and understanding convolutional networks (arXiv
1311.2901).
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_option,
    with_targets,
)
from saliency_jax.attribution.maps import Maps
from saliency_jax.attribution.perturbation.edits import (
    Colour,
    Output,
    as_colour,
    scores_of_edits,
    scores_of_images,
)
from saliency_jax.errors import InputError

# Of 224 pixels: patches of 32, every 16.
PATCHES_ACROSS = 7
PATCHES_OVER_A_PIXEL = 2

Sides = int | Sequence[int] | Int[Array | np.ndarray, "2"] | None
"""Rows and columns, or one number for both."""

Windows = tuple[int, int, int]
"""Of an axis: the size of the patch, its stride, and how many there are."""


def occlusion(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    patch_size: Sides = None,
    stride: Sides = None,
    value: Colour = None,
    variant: Literal["mean", "sum"] = "mean",
    output: Output = "logit",
) -> Maps:
    """How far a class's score falls when a patch covers the pixel.

    Zeiler and Fergus (arXiv 1311.2901). The patch starts in the upper left corner and
    moves by the stride until all is covered; the last one is cut off at the border, as
    in captum. Variants: "mean" over the patches that cover a pixel (captum), and their
    "sum" (PAIR's saliency, xplique), in which pixels at the border count less, since
    fewer patches cover them.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`.
      key: not used; all methods take one.
      batch_size: how many images go through the classifier at once; None means 32, or
        all images if they are more.
      patch_size: rows and columns of the patch; None: a seventh of the image's.
      stride: of the patch; None: half a patch. At most a patch.
      value: the patch's colour; None: the mean colour of the classifier.
      variant: "mean" or "sum", see above.
      output: "logit", or "probability".

    Returns:
      float32 maps, in units of the output; positive where the patch makes the class
      less likely.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    check_option("output", output, get_args(Output))
    check_option("variant", variant, ("mean", "sum"))
    windows = tuple(
        _windows(axis, side, *of_axis)
        for axis, (side, *of_axis) in enumerate(
            zip(
                asked.images.shape[1:3],
                _of_axes("patch_size", patch_size),
                _of_axes("stride", stride),
                strict=True,
            )
        )
    )
    scores = scores_of_edits(
        asked,
        _covered,
        windows,
        windows[0][2] * windows[1][2],
        output,
        (),
        as_colour(value, asked.classifier, asked.images),
    )
    return _spread(
        scores_of_images(asked, output), scores, asked.images, windows, variant
    )


def _of_axes(name: str, sides: Sides) -> tuple[int, int] | tuple[None, None]:
    """The number of each axis, where there may be one for both.

    Raises:
      InputError: it is neither one whole number nor two.
    """
    if sides is None:
        return None, None
    try:
        given = np.asarray(sides)
        known = given.shape in ((), (2,)) and np.issubdtype(given.dtype, np.integer)
    except ValueError:  # such as rows of two lengths
        known = False
    if not known:
        raise InputError(
            f"{name}={sides!r}: expected a whole number, or two (rows, columns)"
        )
    rows, columns = np.broadcast_to(given, 2).tolist()
    return rows, columns


def _windows(axis: int, side: int, patch: int | None, stride: int | None) -> Windows:
    patch = max(1, round(side / PATCHES_ACROSS)) if patch is None else patch
    stride = max(1, patch // PATCHES_OVER_A_PIXEL) if stride is None else stride
    name = ("rows", "columns")[axis]
    if not 1 <= patch <= side:
        raise InputError(
            f"patch_size is {patch} for images of {side} {name}: expected 1 to {side}"
        )
    if stride < 1 or (stride > patch and patch < side):
        raise InputError(
            f"stride is {stride} for a patch of {patch} {name}: expected 1 to {patch}, "
            f"so that the patches cover all of the image"
        )
    return patch, stride, -(-(side - patch) // stride) + 1


def _covered(
    windows: tuple[Windows, Windows],
    position: Int[Array, ""],
    image: Float[Array, "H W C"],
    details: tuple[()],
    colour: Float[Array, "C"],
) -> Float[Array, "H W C"]:
    """The image with the patch at a position; they are numbered row by row."""
    (rows, down, _), (columns, right, across) = windows
    top, left = position // across * down, position % across * right
    row, column = (jnp.arange(side) for side in image.shape[:2])
    row = (row >= top) & (row < top + rows)
    column = (column >= left) & (column < left + columns)
    patch = row[:, None] & column[None, :]
    return jnp.where(patch[..., None], colour[None, None], image)


@partial(jax.jit, static_argnames=("windows", "variant"))
def _spread(
    before: Float[Array, "B"],
    scores: Float[Array, "B P"],
    images: Float[Array, "B H W C"],
    windows: tuple[Windows, Windows],
    variant: str,
) -> Maps:
    """What each pixel gets of the patches over it."""
    falls = (before[:, None] - scores).reshape(-1, windows[0][2], windows[1][2])
    over_row, over_column = (
        _over(side, *of_axis)
        for side, of_axis in zip(images.shape[1:3], windows, strict=True)
    )
    sums = jnp.einsum(
        "bij,ih,jw->bhw", falls, over_row, over_column, precision="highest"
    )
    if variant == "sum":
        return sums
    return sums / np.outer(over_row.sum(axis=0), over_column.sum(axis=0))[None]


def _over(side: int, patch: int, stride: int, count: int) -> Float[np.ndarray, "P L"]:
    """1 where a window covers a place of an axis, 0 elsewhere."""
    places = np.arange(side)[None] - stride * np.arange(count)[:, None]
    return ((places >= 0) & (places < patch)).astype(np.float32)
