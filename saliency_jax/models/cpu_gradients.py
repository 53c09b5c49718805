"""Gradients that XLA is slow to compute on a CPU, computed another way there.

Of use in training only: a `custom_vjp` has no forward mode, and attribution knows an
operation by its primitive. On a GPU the gradients are JAX's own, as everywhere
`jax.lax.platform_dependent` chooses between the two.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

Pads = tuple[tuple[int, int], tuple[int, int]]


def shifted_products(
    padded: Float[Array, "B h w C"], kernel: Float[Array, "3 3 1 C"], stride: int
) -> Float[Array, "B _ _ C"]:
    """A 3x3 depthwise convolution as the sum of nine products of shifted maps."""
    rows, columns = ((side - 3) // stride * stride + 1 for side in padded.shape[1:3])
    return sum(
        padded[:, i : i + rows : stride, j : j + columns : stride]
        * kernel[i, j][None, None]
        for i in range(3)
        for j in range(3)
    )


def kernel_gradient_at_once(
    padded: Float[Array, "B h w C"],
    gradient: Float[Array, "B H W C"],
    stride: int,
) -> Float[Array, "3 3 1 C"]:
    """The gradient of the kernel of `shifted_products`, as JAX derives it."""
    kernel = jax.ShapeDtypeStruct((3, 3, 1, padded.shape[-1]), padded.dtype)
    apply = lambda kernel: shifted_products(padded, kernel, stride)
    return jax.linear_transpose(apply, kernel)(gradient)[0]


def kernel_gradient_row_by_row(
    padded: Float[Array, "B h w C"],
    gradient: Float[Array, "B H W C"],
    stride: int,
) -> Float[Array, "3 3 1 C"]:
    """The same, a row of all images at a time.

    At once, nine sums read all of both arrays, which no cache holds; of one row they
    read it nine times from the cache. Of each image by itself, so that devices that
    share a batch add up only once.
    """
    columns = (padded.shape[2] - 3) // stride * stride + 1

    def sums_of_row(row: int | Array) -> Float[Array, "B 9 C"]:
        three = jax.lax.dynamic_slice_in_dim(padded, row * stride, 3, axis=1)
        one = jax.lax.dynamic_slice_in_dim(gradient, row, 1, axis=1)
        products = [
            three[:, i : i + 1, j : j + columns : stride] * one
            for i in range(3)
            for j in range(3)
        ]
        return jnp.stack([jnp.sum(x, axis=(1, 2)) for x in products], axis=1)

    sums = jax.lax.fori_loop(
        1,
        gradient.shape[1],
        lambda row, sums: sums + sums_of_row(row),
        sums_of_row(0),  # not zeros: the sums lie on the devices where the images are
    )
    return jnp.sum(sums, axis=0).reshape(3, 3, 1, -1)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def trained_shifted_products(padded: Array, kernel: Array, stride: int) -> Array:
    """`shifted_products` with a faster gradient of the kernel on a CPU.

    It cannot be differentiated in forward mode, so it is for training only.
    """
    return shifted_products(padded, kernel, stride)


def _products_and_residuals(padded: Array, kernel: Array, stride: int) -> tuple:
    return shifted_products(padded, kernel, stride), (padded, kernel)


def _products_gradients(
    stride: int, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    padded, kernel = residuals
    apply = lambda padded: shifted_products(padded, kernel, stride)
    (of_padded,) = jax.linear_transpose(apply, padded)(gradient)
    of_kernel = jax.lax.platform_dependent(
        padded,
        gradient,
        cpu=partial(kernel_gradient_row_by_row, stride=stride),
        default=partial(kernel_gradient_at_once, stride=stride),
    )
    return of_padded, of_kernel


trained_shifted_products.defvjp(_products_and_residuals, _products_gradients)


def shifted(
    padded: Num[Array, "B h w C"], i: int, j: int, stride: int, size: tuple[int, int]
) -> Num[Array, "B _ _ C"]:
    """What the place (i, j) of a window sees, of `size` = (h, w) windows."""
    rows, columns = ((steps - 1) * stride + 1 for steps in size)
    return padded[:, i : i + rows : stride, j : j + columns : stride]


def kernel_gradient(
    x: Float[Array, "B h w c"],
    gradient: Float[Array, "B H W D"],
    size: tuple[int, int],
    stride: int,
    pads: Pads,
) -> Float[Array, "_ _ c D"]:
    """The gradient of the kernel of a convolution: one product for each of its rows.

    XLA's own convolution for it is three times as slow for the three channels of an
    image.

    Args:
      x: of the convolution.
      gradient: of its output.
      size: of the kernel.
      stride: of the window, both ways.
      pads: zeros around `x`.
    """
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    pixels = gradient.reshape(-1, gradient.shape[-1])
    rows = []
    for i in range(size[0]):
        seen = [
            shifted(padded, i, j, stride, gradient.shape[1:3]) for j in range(size[1])
        ]
        seen = jnp.concatenate(seen, axis=-1).reshape(len(pixels), -1)
        rows.append((seen.T @ pixels).reshape(size[1], x.shape[-1], -1))
    return jnp.stack(rows)


def convolution(
    x: Float[Array, "B h w c"], kernel: Float[Array, "_ _ c D"], stride: int, pads: Pads
) -> Float[Array, "B _ _ D"]:
    """A convolution as most networks have it: one stride, zeros around `x`."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def plain_gradient_of_maps(
    gradient: Array, kernel: Array, x: Array, stride: int, pads: Pads
) -> Array:
    """The gradient of a convolution's `x` as JAX derives it; only its shape counts."""
    of_maps = lambda x: convolution(x, kernel, stride, pads)
    return jax.linear_transpose(of_maps, x)(gradient)[0]


def plain_gradient_of_kernel(
    x: Array, gradient: Array, kernel: Array, stride: int, pads: Pads
) -> Array:
    """The gradient of its kernel, likewise."""
    of_kernel = lambda kernel: convolution(x, kernel, stride, pads)
    return jax.linear_transpose(of_kernel, kernel)(gradient)[0]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def trained_convolution(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """`convolution` with a faster gradient of the kernel on a CPU."""
    return convolution(x, kernel, stride, pads)


def _convolution_and_residuals(
    x: Array, kernel: Array, stride: int, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
    return convolution(x, kernel, stride, pads), (x, kernel)


def _convolution_gradients(
    stride: int, pads: Pads, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    plain = partial(plain_gradient_of_kernel, kernel=kernel, stride=stride, pads=pads)
    fast = partial(kernel_gradient, size=kernel.shape[:2], stride=stride, pads=pads)
    return (
        plain_gradient_of_maps(gradient, kernel, x, stride, pads),
        jax.lax.platform_dependent(x, gradient, cpu=fast, default=plain),
    )


trained_convolution.defvjp(_convolution_and_residuals, _convolution_gradients)


def plain_max_pool_3x3(
    x: Float[Array, "B h w C"], pads: Pads
) -> Float[Array, "B _ _ C"]:
    """The maximum of each 3x3 window, at stride 2.

    Args:
      x: any maps.
      pads: of each side, 0 or 1 before it and what windows need after it.
    """
    return nn.max_pool(x, (3, 3), (2, 2), pads)


def _place_of_maximum(
    x: Float[Array, "B h w C"], pads: Pads, size: tuple[int, int]
) -> Int[Array, "B H W C"]:
    """Where in each window the maximum is, the first of several: 3 i + j."""
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    greatest = shifted(padded, 0, 0, 2, size)
    place = jnp.zeros(greatest.shape, jnp.int8)
    for k in range(1, 9):
        value = shifted(padded, *divmod(k, 3), 2, size)
        place = jnp.where(value > greatest, jnp.int8(k), place)
        greatest = jnp.maximum(value, greatest)
    return place


def max_pool_3x3_gradient(
    x: Float[Array, "B h w C"], gradient: Float[Array, "B H W C"], pads: Pads
) -> Float[Array, "B h w C"]:
    """The gradient of `plain_max_pool_3x3`: values go where the maxima came from.

    In the padded maps an even row is the first of one window and the last of the one
    before, an odd row in the middle of one. So the four kinds of pixels see four, two,
    two and one windows, and nothing is scattered, which XLA does pixel by pixel.
    """
    height, width = gradient.shape[1:3]
    # Else it would be found again for each of nine terms.
    place = jax.lax.optimization_barrier(_place_of_maximum(x, pads, (height, width)))
    ring = ((0, 0), (1, 1), (1, 1), (0, 0))
    gradient = jnp.pad(gradient, ring)
    place = jnp.pad(place, ring, constant_values=-1)

    def windows(odd: int) -> list[tuple[int, int]]:
        """The place that such a row has in windows, and where in the ring they are."""
        return [(1, 1)] if odd else [(0, 1), (2, 0)]

    def of_kind(odd_row: int, odd_column: int) -> Float[Array, "B _ _ C"]:
        return sum(
            jnp.where(
                shifted(place, row, column, 1, (height + 1, width + 1)) == 3 * i + j,
                shifted(gradient, row, column, 1, (height + 1, width + 1)),
                0,
            )
            for i, row in windows(odd_row)
            for j, column in windows(odd_column)
        )

    rows = [
        jnp.stack([of_kind(odd_row, odd_column) for odd_column in (0, 1)], axis=3)
        for odd_row in (0, 1)
    ]
    whole = jnp.stack(rows, axis=2).reshape(
        len(x), 2 * (height + 1), 2 * (width + 1), x.shape[-1]
    )
    (top, _), (left, _) = pads
    return whole[:, top : top + x.shape[1], left : left + x.shape[2]]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def trained_max_pool_3x3(x: Array, pads: Pads) -> Array:
    """`plain_max_pool_3x3` with a faster gradient on a CPU, equal up to rounding."""
    return plain_max_pool_3x3(x, pads)


def _pool_and_residuals(x: Array, pads: Pads) -> tuple[Array, Array]:
    return plain_max_pool_3x3(x, pads), x


def _pool_gradient(pads: Pads, x: Array, gradient: Array) -> tuple[Array]:
    pool = partial(plain_max_pool_3x3, pads=pads)
    plain = lambda x, gradient: jax.vjp(pool, x)[1](gradient)[0]
    fast = partial(max_pool_3x3_gradient, pads=pads)
    return (jax.lax.platform_dependent(x, gradient, cpu=fast, default=plain),)


trained_max_pool_3x3.defvjp(_pool_and_residuals, _pool_gradient)
