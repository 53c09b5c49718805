"""Masks of few cells, and how they become as large as an image."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from saliency_jax.attribution.optimised_masks.blending import scaled
from saliency_jax.removal import blur_matrix

BLUR_REACH = 4.0


def upsampling(
    size: int, cells: int, blur: float, method: str
) -> Float[np.ndarray, "P h"]:
    """A line of cells to one of pixels, and their blur, as one matrix.

    Args:
      size: pixels.
      cells: of the line.
      blur: standard deviation, in pixels.
      method: "nearest", or "aligned", between the middles of the first and the last
        cell.
    """
    pixels = np.arange(size)[:, None]
    if method == "nearest":
        matrix = (pixels * cells // size == np.arange(cells)).astype(np.float32)
    else:
        places = pixels * (cells - 1) / max(size - 1, 1)
        matrix = np.maximum(0.0, 1.0 - np.abs(places - np.arange(cells)))
    return (blur_matrix(size, blur, BLUR_REACH) @ matrix).astype(np.float32)


def in_cells(maps: Float[Array, "I H W"], grid: int) -> Float[Array, "I h w"]:
    """The mean of the pixels in each cell."""
    lines = []
    for side in maps.shape[1:]:
        cell = np.arange(side) * grid // side == np.arange(grid)[:, None]
        lines.append(cell / np.maximum(cell.sum(axis=1, keepdims=True), 1))
    down, across = (line.astype(np.float32) for line in lines)
    return jnp.einsum("hy,iyx,wx->ihw", down, maps, across)


def circle(radius: Float[Array, "*B"], size: tuple[int, int]) -> Float[Array, "*B H W"]:
    """Masks that remove a circle in the middle, with a soft edge.

    Args:
      radius: in pixels of a 224x224 image; the edge's standard deviation is 10 of them.
      size: (H, W) of the image.
    """
    rows, columns = (np.arange(side) - side // 2 for side in size)
    distance = np.hypot(rows[:, None], columns[None])
    radius = scaled(1.0, size) * radius[..., None, None]
    inside = jnp.less_equal(
        jnp.broadcast_to(distance, (*radius.shape[:-2], *size)), radius
    ).astype(jnp.float32)
    down, across = (blur_matrix(side, scaled(10.0, size), BLUR_REACH) for side in size)
    return 1.0 - jnp.einsum("yh,...hw,xw->...yx", down, inside, across)


def smooth_maximum(
    cells: Float[Array, "B h w"],
    size: tuple[int, int],
    margin: int,
    side: int,
    sigma: float,
    coldness: float,
) -> Float[Array, "B _ _"]:
    """Masks from cells: at each pixel the softest maximum of kernel times cell.

    The mean of `k c` over the cells near a pixel, weighted by `exp(coldness k c)`.

    Args:
      cells: in [0, 1]; around them there are zeros.
      size: (H, W) of the image, in pixels; a cell is in the middle of its pixels.
      margin: how many pixels around the image there are.
      side: of a cell, in pixels.
      sigma: width of the kernel, in pixels.
      coldness: the higher, the nearer to the maximum; at most 80, or float32 ends.

    Returns:
      In [0, 1], with the margin.
    """
    reach = 1 + math.ceil(sigma / side)
    around = -(-margin // side)
    window = 2 * reach + 1
    rows, columns = (count + 2 * around for count in cells.shape[1:])
    padding = 2 * ((reach + around, reach + around),)
    padded = jnp.pad(cells, ((0, 0), *padding))
    # From a pixel to the middle of a cell, by the cell's place and the pixel's.
    places = side * (np.arange(window) - reach)[:, None] - (
        np.arange(side) - (side - 1) / 2
    )
    squares = places**2
    distances = np.sqrt(squares[:, None, :, None] + squares[None, :, None, :])
    kernel = np.exp(-2.0 * np.maximum(distances / sigma - 0.5, 0.0) ** 2)
    kernel = jnp.asarray(kernel, jnp.float32)

    @jax.checkpoint  # what is computed for each row of the window is not kept
    def add_row(
        sums: tuple[Float[Array, "B s t h w"], Float[Array, "B s t h w"]],
        y: Int[Array, ""],
    ) -> tuple[tuple[Float[Array, "B s t h w"], Float[Array, "B s t h w"]], None]:
        weighted, total = sums
        near = jax.lax.dynamic_slice_in_dim(padded, y, rows, axis=1)
        for x in range(window):
            of_cell = near[:, None, None, :, x : x + columns]
            products = of_cell * kernel[y, x][None, :, :, None, None]
            weights = jnp.exp(coldness * products)
            weighted, total = weighted + weights * products, total + weights
        return (weighted, total), None

    # Sums of whole arrays, the cells last: a reduction over the window is ten times
    # slower on a CPU.
    nothing = jnp.zeros((len(cells), side, side, rows, columns))
    sums, _ = jax.lax.scan(add_row, (nothing, nothing), jnp.arange(window))
    masks = jnp.transpose(sums[0] / sums[1], (0, 3, 1, 4, 2))
    masks = masks.reshape(len(cells), rows * side, columns * side)
    first = around * side - margin
    height, width = (pixels + 2 * margin for pixels in size)
    return masks[:, first : first + height, first : first + width]


def total_variation(
    masks: Float[Array, "B h w"], power: float, means: bool
) -> Float[Array, "B"]:
    """How much neighbouring cells differ, to a power.

    Args:
      masks: of any range.
      power: beta.
      means: the mean of `|dy|^beta` plus that of `|dx|^beta`; else the sum of
        `(dy^2 + dx^2)^(beta / 2)`, with differences to the next cell.
    """
    down = masks[:, 1:] - masks[:, :-1]
    across = masks[:, :, 1:] - masks[:, :, :-1]
    # The power of 0 has no finite gradient for a beta below two.
    raised = lambda squares: jnp.maximum(squares, 1e-12) ** (power / 2)
    if means:
        mean = lambda x: jnp.mean(raised(x**2), axis=(1, 2))
        return mean(down) + mean(across)
    down = jnp.pad(down, ((0, 0), (0, 1), (0, 0)))
    across = jnp.pad(across, ((0, 0), (0, 0), (0, 1)))
    return jnp.sum(raised(down**2 + across**2), axis=(1, 2))
