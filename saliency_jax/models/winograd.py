"""3x3 convolutions of stride 1 in Winograd's form, with fewer products.

Lavin and Gray: Fast algorithms for convolutional neural networks (arXiv 1509.09308),
section 4. A tile of m x m results needs (m + 2)^2 products for each pair of channels
and not 9 m^2: 2.25 times fewer with m = 2, four times with m = 4. The rest is sums,
so it pays where there are many channels.

For training on a CPU, as `cpu_gradients` is, and chosen by what was measured there.
With m = 2 rounding is that of a convolution. With m = 4 it is ten times that of a
convolution's output, but no more than that of a large map's gradient of the kernel,
where thousands of pixels are added up; it is used for that alone.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from saliency_jax.models.cpu_gradients import (
    convolution,
    plain_gradient_of_kernel,
    plain_gradient_of_maps,
)

PADS = ((1, 1), (1, 1))

MANY_CHANNELS = 256  # from here on fewer products repay the additions
SMALLEST_MAP, LARGE_MAP = 8, 16  # pixels of a side


class Transforms(NamedTuple):
    """The matrices of the paper's equation 8, of one axis.

    Attributes:
      tile: B^T, from what m results see to m + 2 factors.
      kernel: G, from three weights to m + 2 factors.
      results: A^T, from m + 2 products to m results.
    """

    tile: Float[np.ndarray, "n n"]
    kernel: Float[np.ndarray, "n 3"]
    results: Float[np.ndarray, "m n"]


TRANSFORMS = {
    2: Transforms(
        np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], float),
        np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
        np.array([[1, 1, 1, 0], [0, 1, -1, -1]], float),
    ),
    4: Transforms(
        np.array(
            [
                [4, 0, -5, 0, 1, 0],
                [0, -4, -4, 1, 1, 0],
                [0, 4, -4, -1, 1, 0],
                [0, -2, -1, 2, 1, 0],
                [0, 2, -1, -2, 1, 0],
                [0, 4, 0, -5, 0, 1],
            ],
            float,
        ),
        np.array(
            [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
        )
        / 24,
        np.array(
            [
                [1, 1, 1, 1, 1, 0],
                [0, 1, -1, 2, -2, 0],
                [0, 1, 1, 4, 4, 0],
                [0, 1, -1, 8, -8, 1],
            ],
            float,
        ),
    ),
}

Grid = Sequence[Sequence[Array]]
"""Arrays of one shape, in rows and columns."""


def convolve(
    x: Float[Array, "B h w c"], kernel: Float[Array, "3 3 c D"], m: int
) -> Float[Array, "B h w D"]:
    """The convolution with one zero on every side.

    Args:
      x: any maps.
      kernel: of the convolution.
      m: side of the tiles that are computed together, 2 or 4.
    """
    return _results(_tiles(x, m), _of_kernel(kernel, m), "tpc,tcd->tpd", x, m)


def gradient_of_maps(
    gradient: Float[Array, "B h w D"], kernel: Float[Array, "3 3 c D"], m: int
) -> Float[Array, "B h w c"]:
    """The gradient of the convolution's `x`: one with the kernel turned around."""
    turned = _of_kernel(kernel[::-1, ::-1], m)
    return _results(_tiles(gradient, m), turned, "tpd,tcd->tpc", gradient, m)


def gradient_of_kernel(
    x: Float[Array, "B h w c"], gradient: Float[Array, "B h w D"], m: int
) -> Float[Array, "3 3 c D"]:
    """The gradient of the convolution's kernel."""
    rows, columns = _steps(x, m)
    height, width = gradient.shape[1:3]
    ends = ((0, 0), (0, rows * m - height), (0, columns * m - width), (0, 0))
    blocks = jnp.pad(gradient, ends)
    blocks = blocks.reshape(len(x), rows, m, columns, m, -1)
    transforms = TRANSFORMS[m]
    spread = _both_axes(
        transforms.results.T,
        [[blocks[:, :, i, :, j] for j in range(m)] for i in range(m)],
    )
    products = jnp.einsum("tpc,tpd->tcd", _tiles(x, m), _stacked(spread))
    products = products.reshape(m + 2, m + 2, *products.shape[1:])
    return jnp.stack(list(map(jnp.stack, _both_axes(transforms.kernel.T, products))))


def _results(
    tiles: Float[Array, "t p c"],
    factors: Float[Array, "t _ _"],
    contraction: str,
    like: Float[Array, "B h w _"],
    m: int,
) -> Float[Array, "B h w D"]:
    """The results of all tiles of maps that lie `like` others."""
    rows, columns = _steps(like, m)
    batch, height, width, _ = like.shape
    products = jnp.einsum(contraction, tiles, factors)
    products = products.reshape(m + 2, m + 2, batch, rows, columns, -1)
    results = _both_axes(TRANSFORMS[m].results, products)
    whole = jnp.stack([jnp.stack(row, axis=3) for row in results], axis=2)
    whole = whole.reshape(batch, rows * m, columns * m, -1)
    return whole[:, :height, :width]


def _tiles(x: Float[Array, "B h w c"], m: int) -> Float[Array, "t p c"]:
    """What each tile of m x m results sees, as factors of its products."""
    rows, columns = _steps(x, m)
    batch, height, width, channels = x.shape
    bottom, right = (rows + 1) * m - height - 1, (columns + 1) * m - width - 1
    padded = jnp.pad(x, ((0, 0), (1, bottom), (1, right), (0, 0)))
    # A tile reaches two pixels into the next block; whole blocks are quick to cut out.
    blocks = padded.reshape(batch, rows + 1, m, columns + 1, m, channels)
    seen = [
        [
            blocks[:, i // m : i // m + rows, i % m, j // m : j // m + columns, j % m]
            for j in range(m + 2)
        ]
        for i in range(m + 2)
    ]
    return _stacked(_both_axes(TRANSFORMS[m].tile, seen))


def _of_kernel(kernel: Float[Array, "3 3 c D"], m: int) -> Float[Array, "t c D"]:
    return jnp.stack(sum(_both_axes(TRANSFORMS[m].kernel, kernel), []))


def _steps(x: Float[Array, "B h w _"], m: int) -> tuple[int, int]:
    """How many tiles lie below each other, and side by side."""
    height, width = x.shape[1:3]
    return -(-height // m), -(-width // m)


def _both_axes(matrix: Float[np.ndarray, "a b"], grid: Grid | Array) -> list[list]:
    """`matrix @ grid @ matrix.T` of a grid of arrays, as additions."""
    columns = [_combined(matrix, [row[j] for row in grid]) for j in range(len(grid[0]))]
    return [
        _combined(matrix, [column[i] for column in columns]) for i in range(len(matrix))
    ]


def _combined(matrix: Float[np.ndarray, "a b"], arrays: Sequence[Array]) -> list[Array]:
    """Sums of arrays by the rows of a matrix."""
    return [
        sum(
            (weight * array for weight, array in terms[1:]),
            start=terms[0][0] * terms[0][1],
        )
        for row in matrix.tolist()
        if (terms := [pair for pair in zip(row, arrays, strict=True) if pair[0]])
    ]


def _stacked(grid: Grid) -> Float[Array, "t p c"]:
    """A grid of maps as one array, with one axis for all their pixels."""
    return jnp.stack(
        [array.reshape(-1, array.shape[-1]) for row in grid for array in row]
    )


def pays(x: Float[Array, "B h w c"], kernel: Float[Array, "3 3 c D"]) -> bool:
    """Whether `trained_3x3` is faster than a convolution, as far as was measured."""
    is_known = min(kernel.shape[2:]) >= 32 and max(x.shape[1:3]) >= SMALLEST_MAP
    return is_known and x.dtype == kernel.dtype == jnp.float32


@jax.custom_vjp
def trained_3x3(
    x: Float[Array, "B h w c"], kernel: Float[Array, "3 3 c D"]
) -> Float[Array, "B h w D"]:
    """A convolution with one zero on every side, fast to train on a CPU.

    It cannot be differentiated in forward mode, so it is for training only.
    """
    return _forwards(x, kernel)


def _forwards(x: Array, kernel: Array) -> Array:
    plain = partial(convolution, stride=1, pads=PADS)
    if not _has_many(x, kernel):
        return plain(x, kernel)
    fast = partial(convolve, m=2)
    return jax.lax.platform_dependent(x, kernel, cpu=fast, default=plain)


def _has_many(x: Array, kernel: Array) -> bool:
    """Channels, for maps that are not too large to come from memory many times."""
    return min(kernel.shape[2:]) >= MANY_CHANNELS and max(x.shape[1:3]) <= 2 * LARGE_MAP


def _forwards_and_residuals(x: Array, kernel: Array) -> tuple:
    return _forwards(x, kernel), (x, kernel)


def _gradients(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    plain_of_maps = partial(plain_gradient_of_maps, x=x, stride=1, pads=PADS)
    plain_of_kernel = partial(
        plain_gradient_of_kernel, kernel=kernel, stride=1, pads=PADS
    )
    if _has_many(x, kernel):
        of_maps = jax.lax.platform_dependent(
            gradient,
            kernel,
            cpu=partial(gradient_of_maps, m=2),
            default=plain_of_maps,
        )
    else:
        of_maps = plain_of_maps(gradient, kernel)
    m = 4 if max(x.shape[1:3]) > LARGE_MAP else 2
    of_kernel = jax.lax.platform_dependent(
        x, gradient, cpu=partial(gradient_of_kernel, m=m), default=plain_of_kernel
    )
    return of_maps, of_kernel


trained_3x3.defvjp(_forwards_and_residuals, _gradients)
