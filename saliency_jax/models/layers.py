"""What several networks share: initialisers, BatchNorm, convolutions, pooling."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from saliency_jax.errors import InputError

Initialiser = Callable[..., Array]

PADDINGS = ("symmetric", "tensorflow", "keras")


def with_rbg(init: Initialiser) -> Initialiser:
    """The initialiser, drawing from XLA's own generator, to compile faster.

    XLA compiles JAX's default generator anew for each shape of array, about half a
    second each on a CPU; that is most of the time it takes to initialise a network.
    """

    def init_with_rbg(
        key: Key[Array, ""], shape: tuple[int, ...], dtype: Any = jnp.float32
    ) -> Array:
        data = jnp.tile(jax.random.key_data(key), 2)
        return init(jax.random.wrap_key_data(data, impl="rbg"), shape, dtype)

    return init_with_rbg


# PyTorch's `kaiming_normal_(mode="fan_out")`: N(0, sqrt(2 / (k * k * out))).
he_normal_fan_out = with_rbg(nn.initializers.variance_scaling(2.0, "fan_out", "normal"))
# PyTorch's `kaiming_uniform_` with the gain of a ReLU: +-sqrt(6 / (k * k * in)).
he_uniform_fan_in = with_rbg(nn.initializers.variance_scaling(2.0, "fan_in", "uniform"))
normal_hundredth = with_rbg(nn.initializers.normal(0.01))


def uniform_fan_in(fan_in: int) -> Initialiser:
    """Returns PyTorch's default initialiser: uniform in +-1 / sqrt(fan_in)."""
    bound = fan_in**-0.5
    return with_rbg(
        lambda key, shape, dtype: jax.random.uniform(
            key, shape, dtype, minval=-bound, maxval=bound
        )
    )


def batch_norm(
    name: str, train: bool, dtype: Any, epsilon: float = 1e-5
) -> nn.BatchNorm:
    """Returns PyTorch's BatchNorm2d; its momentum 0.1 is Flax's keep rate 0.9."""
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=epsilon,
        dtype=dtype,
        name=name,
    )


def check_padding(padding: str, images: Float[Array, "B H W C"]) -> None:
    """Checks a network's `padding` before its first layer.

    Raises:
      InputError: it is unknown, or the images are too small for it.
    """
    if padding not in PADDINGS:
        raise InputError(f"padding {padding!r} is unknown; use one of {PADDINGS}")
    height, width = images.shape[1:3]
    if padding == "keras" and min(height, width) < 32:
        raise InputError(
            f"images of {height}x{width} pixels are too small for padding 'keras', "
            "which takes 32 or more; use 'tensorflow' or larger images"
        )


def check_size(images: Float[Array, "B H W C"], smallest: int, network: str) -> None:
    """Checks images before a network's first layer.

    Args:
      images: the network's input.
      smallest: pixels that either side must have.
      network: its name, for the message.

    Raises:
      InputError: a side is smaller.
    """
    height, width = images.shape[1:3]
    if min(height, width) < smallest:
        raise InputError(
            f"images of {height}x{width} pixels are too small for {network}, "
            f"which takes {smallest} or more"
        )


def padding_3x3(
    padding: str, size: tuple[int, int], stride: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The zeros around maps of `size` = (h, w) that a 3x3 convolution sees.

    Args:
      padding: "symmetric" is PyTorch's, one on every side. "tensorflow" is SAME: at
        stride 2 one at the bottom and the right of an even size, on both sides of an
        odd one. "keras" is what Keras's MobileNet (v1) does at stride 2: one at the
        bottom and the right of any size, which drops the last row of an odd one.
      size: (h, w) before the convolution.
      stride: 1 or 2.
    """
    if padding == "symmetric" or stride == 1:
        return ((1, 1), (1, 1))
    if padding == "keras":
        return ((0, 1), (0, 1))
    return tuple((side % 2, 1) for side in size)


def conv_or_product(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    strides: Sequence[int],
    padding: Any,
    **options: Any,
) -> Float[Array, "..."]:
    """`jax.lax.conv_general_dilated`, but a 1x1 convolution is one matrix product.

    XLA's convolutions are slow on a CPU, most of all in the gradient of the kernel: a
    1x1 one of 64 maps of 64x64, from 24 channels to 48, took thirty times as long as
    the product. The pixels become one axis first; a product that sums over three axes
    is nearly as slow as the convolution.

    Args:
      x: `[B, h, w, c]`.
      kernel: `[kh, kw, c, D]`.
      strides: of the window.
      padding: "SAME", "VALID" or a pair of numbers for each side.
      **options: what Flax passes besides.
    """
    # "SAME" and "VALID" add nothing around a 1x1 kernel, nor does its own dilation.
    padded = not isinstance(padding, str) and any(map(any, padding))
    spread = any(factor != 1 for factor in options["lhs_dilation"])
    is_1x1 = kernel.ndim == 4 and kernel.shape[:2] == (1, 1)
    if not is_1x1 or padded or spread or options["feature_group_count"] != 1:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    x = x[:, :: strides[0], :: strides[1]]
    pixels = x.reshape(-1, x.shape[-1])
    products = jnp.dot(pixels, kernel[0, 0], precision=options["precision"])
    return products.reshape(*x.shape[:-1], kernel.shape[-1])


# Flax's convolution, with its parameters and names; see `conv_or_product`.
Conv = partial(nn.Conv, conv_general_dilated=conv_or_product)


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


class DepthwiseConv3x3(nn.Module):
    """A 3x3 convolution of each channel with its own kernel, without bias.

    Equal to `nn.Conv(C, (3, 3), feature_group_count=C)`, whose kernel it has, but
    written as nine products of shifted maps, because XLA's grouped convolution is slow
    on a CPU: with it MobileNetV2 takes three to four times as long. The sum is in
    float32 whatever `dtype` is.
    """

    stride: int
    padding: str
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w C"], train: bool
    ) -> Float[Array, "B _ _ C"]:
        """Returns the maps; `train` only chooses how gradients are computed."""
        kernel = self.param("kernel", he_normal_fan_out, (3, 3, 1, x.shape[-1]))
        pads = padding_3x3(self.padding, x.shape[1:3], self.stride)
        kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
        padded = jnp.pad(x, ((0, 0), *pads, (0, 0))).astype(jnp.float32)
        convolve = trained_shifted_products if train else shifted_products
        total = convolve(padded, kernel.astype(jnp.float32), self.stride)
        return total.astype(self.dtype)


def max_pool_2x2(x: Float[Array, "B h w C"], train: bool) -> Float[Array, "B _ _ C"]:
    """PyTorch's `max_pool2d(x, 2)`, which drops an odd last row and column.

    XLA's gradient of a pooling is slow on a CPU. Maxima of shifted maps have a fast
    one, the same but where several of four values are the greatest: they share it. So
    `x` comes after a ReLU, which passes nothing on of zeros, the only likely ties.
    Attribution knows the pooling by its primitive and gets that.

    Args:
      x: after a ReLU.
      train: choose the fast gradient.
    """
    if not train:
        return nn.max_pool(x, (2, 2), (2, 2))
    height, width = (side // 2 * 2 for side in x.shape[1:3])
    x = x[:, :height, :width]
    x = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(x[:, :, ::2], x[:, :, 1::2])


def max_pool_ceil(
    x: Float[Array, "B h w C"], window: int, stride: int
) -> Float[Array, "B _ _ C"]:
    """PyTorch's `max_pool2d(..., ceil_mode=True)` without padding.

    The last window may reach over the edge, so that no row is lost. A map smaller than
    the window, which PyTorch may refuse, gives its maximum.
    """
    pads = []
    for side in x.shape[1:3]:
        steps = max(-(-(side - window) // stride), 0)
        pads.append((0, max(steps * stride + window - side, 0)))
    return nn.max_pool(x, (window, window), (stride, stride), pads)
