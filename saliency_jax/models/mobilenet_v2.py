"""MobileNetV2 with torchvision's geometry and names, or TensorFlow's padding.

Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2 (CVPR 2018). The dropout before the
last layer is left out, so that a training step needs no random key for it.
"""

from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from saliency_jax.models.backbone import Backbone
from saliency_jax.models.layers import (
    Conv,
    DepthwiseConv3x3,
    batch_norm,
    check_padding,
    he_normal_fan_out,
    normal_hundredth,
    padding_3x3,
)
from saliency_jax.models.weight_names import WeightNames, torch_names

# Of each stage: expansion, channels, blocks, stride of the first.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
TAPS = (2, 3, 6, 13)  # blocks; the fifth map is the last convolution's

LAYER_NAMES = {
    "stem": "features.0.0",
    "stem_bn": "features.0.1",
    "last": "features.18.0",
    "last_bn": "features.18.1",
    "classifier": "classifier.1",
}
BLOCK_LAYER_NAMES = {
    "expand": "0.0",
    "expand_bn": "0.1",
    "depthwise": "1.0",
    "depthwise_bn": "1.1",
    "project": "2",
    "project_bn": "3",
}
FIRST_BLOCK_LAYER_NAMES = {  # the only one that does not expand
    "depthwise": "0.0",
    "depthwise_bn": "0.1",
    "project": "1",
    "project_bn": "2",
}


def layer_name(path: tuple[str, ...]) -> str:
    """Returns torchvision's name of a layer.

    For example ("block_2", "depthwise") is "features.2.conv.1.0".
    """
    *blocks, layer = path
    if not blocks:
        return LAYER_NAMES[layer]
    number = int(blocks[0].removeprefix("block_"))
    names = FIRST_BLOCK_LAYER_NAMES if number == 1 else BLOCK_LAYER_NAMES
    return f"features.{number}.conv.{names[layer]}"


def divisible_by_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and not below 0.9 of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, 3x3 depthwise, 1x1 to `features`."""

    features: int
    expansion: int
    stride: int
    padding: str
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"], train: bool) -> Array:
        conv = partial(
            Conv,
            kernel_size=(1, 1),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=he_normal_fan_out,
        )
        norm = partial(batch_norm, train=train, dtype=self.dtype, epsilon=self.epsilon)
        y = x
        if self.expansion != 1:
            y = conv(self.expansion * x.shape[-1], name="expand")(y)
            y = nn.relu6(norm("expand_bn")(y))
        depthwise = DepthwiseConv3x3(
            self.stride, self.padding, self.dtype, name="depthwise"
        )
        y = depthwise(y, train)
        y = nn.relu6(norm("depthwise_bn")(y))
        y = norm("project_bn")(conv(self.features, name="project")(y))
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


class MobileNetV2(nn.Module):
    """MobileNetV2 over images of any size.

    Attributes:
      num_classes: K.
      width_multiplier: of all channels, rounded to multiples of 8; the 1,280 of the
        last convolution only grow.
      padding: of the 3x3 convolutions; see `layers.padding_3x3`.
      epsilon: of BatchNorm; torchvision's is 1e-5, Keras's 1e-3.
      dtype: of the computation; parameters, batch statistics and logits stay float32.
    """

    num_classes: int
    width_multiplier: float = 1.0
    padding: str = "symmetric"
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    weight_names: ClassVar[WeightNames] = torch_names(layer_name, head="classifier.1")

    @nn.compact
    def __call__(
        self, images_normalised: Float[Array, "B H W 3"], train: bool
    ) -> tuple[Float[Array, "B K"], tuple[Float[Array, "B h w C"], ...]]:
        """Returns the logits and five maps.

        Args:
          images_normalised: images after `classifier.normalise`.
          train: normalise with the batch's statistics and update the running ones
            (pass `mutable=["batch_stats"]`).

        Returns:
          float32 logits `[B, K]`, and the maps after blocks 2, 3 (at 1/4 of the image),
          6 (1/8), 13 (1/16) and the last convolution (1/32), in `dtype`.

        Raises:
          InputError: the padding is unknown, or too small an image for it.
        """
        check_padding(self.padding, images_normalised)
        conv = partial(
            Conv,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=he_normal_fan_out,
        )
        norm = partial(batch_norm, train=train, dtype=self.dtype, epsilon=self.epsilon)
        pads = padding_3x3(self.padding, images_normalised.shape[1:3], stride=2)
        features = divisible_by_8(32 * self.width_multiplier)
        x = conv(features, (3, 3), (2, 2), pads, name="stem")(images_normalised)
        x = nn.relu6(norm("stem_bn")(x))

        taps, number = [], 0
        for expansion, channels, blocks, first_stride in STAGES:
            for block in range(blocks):
                number += 1
                x = InvertedResidual(
                    features=divisible_by_8(channels * self.width_multiplier),
                    expansion=expansion,
                    stride=first_stride if block == 0 else 1,
                    padding=self.padding,
                    epsilon=self.epsilon,
                    dtype=self.dtype,
                    name=f"block_{number}",
                )(x, train)
                if number in TAPS:
                    taps.append(x)
        features = divisible_by_8(1280 * max(1.0, self.width_multiplier))
        x = nn.relu6(norm("last_bn")(conv(features, (1, 1), name="last")(x)))
        taps.append(x)

        pooled = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        logits = nn.Dense(
            self.num_classes, kernel_init=normal_hundredth, name="classifier"
        )(pooled)
        return logits, tuple(taps)


BACKBONES = {
    "mobilenet_v2": Backbone(
        MobileNetV2,
        options={"width_multiplier": 1.0, "padding": "symmetric", "epsilon": 1e-5},
    )
}
