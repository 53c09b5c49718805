"""What several networks share: initialisers, BatchNorm, convolutions, pooling."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from saliency_jax.errors import InputError
from saliency_jax.models import winograd
from saliency_jax.models.cpu_gradients import (
    Pads,
    plain_max_pool_3x3,
    shifted_products,
    trained_convolution,
    trained_max_pool_3x3,
    trained_shifted_products,
)

Initialiser = Callable[..., Array]

PADDINGS = ("symmetric", "tensorflow", "keras")
SMALL_MAP = 4  # pixels of a side


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
    the product.

    Args:
      x: `[B, h, w, c]`.
      kernel: `[kh, kw, c, D]`.
      strides: of the window.
      padding: "SAME", "VALID" or a pair of numbers for each side.
      **options: what Flax passes besides.
    """
    pads = _pads_if_plain(x, kernel, strides, padding, options)
    if pads and kernel.shape[:2] == (1, 1) and not any(map(any, pads)):
        return _product(x, kernel, strides, pads, options["precision"])
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


def trained_conv_or_product(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    strides: Sequence[int],
    padding: Any,
    **options: Any,
) -> Float[Array, "..."]:
    """`conv_or_product` in forms that are faster to train on a CPU.

    Small maps are a product for any kernel: a 3x3 convolution of 512 channels took,
    with its gradients, 2.7 times as long for 8 maps of 4x4, and 60 to 120 times for
    2x2. For 3x3 kernels see `winograd`. Of an image's channels there are the gradients
    of `cpu_gradients`, which lose with more channels.

    Attribution knows a convolution by its primitive, so it is one without training.
    """
    pads = _pads_if_plain(x, kernel, strides, padding, options)
    if pads and max(x.shape[1:3]) <= SMALL_MAP:
        return _product(x, kernel, strides, pads, options["precision"])
    if pads and len(set(strides)) == 1 and options["precision"] is None:
        is_3x3 = kernel.shape[:2] == (3, 3) and strides[0] == 1
        if is_3x3 and pads == winograd.PADS and winograd.pays(x, kernel):
            return winograd.trained_3x3(x, kernel)
        if kernel.shape[:2] != (1, 1) and kernel.shape[2] <= 4:
            return trained_convolution(x, kernel, strides[0], pads)
    return conv_or_product(x, kernel, strides, padding, **options)


def _pads_if_plain(
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    strides: Sequence[int],
    padding: Any,
    options: Mapping[str, Any],
) -> Pads | None:
    """The zeros around maps; None if they are no maps, or not plainly convolved."""
    spread = {*options["lhs_dilation"], *options["rhs_dilation"]}
    if kernel.ndim != 4 or options["feature_group_count"] != 1 or spread != {1}:
        return None
    if isinstance(padding, str):
        sides = x.shape[1:3], kernel.shape[:2]
        padding = jax.lax.padtype_to_pads(*sides, strides, padding)
    rows, columns = map(tuple, padding)
    return rows, columns


def _product(
    x: Float[Array, "B h w c"],
    kernel: Float[Array, "kh kw c D"],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    precision: Any,
) -> Float[Array, "B _ _ D"]:
    """A convolution as a product of what each window sees and the kernel."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = (
        (side - length) // stride * stride + 1
        for side, length, stride in zip(
            x.shape[1:3], kernel.shape[:2], strides, strict=True
        )
    )
    shifted = [
        x[:, i : i + rows : strides[0], j : j + columns : strides[1]]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    seen = shifted[0] if len(shifted) == 1 else jnp.concatenate(shifted, axis=-1)
    # A product that sums over three axes is nearly as slow as the convolution.
    products = jnp.dot(
        seen.reshape(-1, seen.shape[-1]),
        kernel.reshape(-1, kernel.shape[-1]),
        precision=precision,
    )
    return products.reshape(*seen.shape[:-1], kernel.shape[-1])


# Flax's convolution, with its parameters and names; see `conv_or_product`.
Conv = partial(nn.Conv, conv_general_dilated=conv_or_product)
_TrainedConv = partial(nn.Conv, conv_general_dilated=trained_conv_or_product)


def conv_layer(train: bool) -> Callable[..., nn.Conv]:
    """Returns `Conv`; `train` only chooses how gradients are computed."""
    return _TrainedConv if train else Conv


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


def max_pool_3x3(x: Float[Array, "B h w C"], train: bool) -> Float[Array, "B _ _ C"]:
    """PyTorch's `max_pool2d(x, 3, stride=2, padding=1)`.

    Args:
      x: any maps.
      train: only chooses how gradients are computed.
    """
    pool = trained_max_pool_3x3 if train else plain_max_pool_3x3
    return pool(x, ((1, 1), (1, 1)))


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
