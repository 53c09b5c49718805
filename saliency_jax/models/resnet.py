"""ResNet with torchvision's geometry, returning the five maps that maskers read.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (CVPR 2016), in the
form torchvision ships ("v1.5"): the stride of a bottleneck sits on its 3x3
convolution. Convolutions pad symmetrically, as PyTorch does; 'SAME' would shift every
strided layer by a pixel. Submodules carry torchvision's names (`layer1.0.conv1` is
`layer1_0/conv1`), so that one becomes the other by rule.
"""

from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from saliency_jax.errors import InputError
from saliency_jax.models.backbone import Backbone
from saliency_jax.models.layers import (
    batch_norm,
    conv_layer,
    he_normal_fan_out,
    max_pool_3x3,
    uniform_fan_in,
)
from saliency_jax.models.weight_names import WeightNames, torch_names

STEMS = ("imagenet", "small", "small_stride2")
PAD_1 = ((1, 1), (1, 1))
PAD_3 = ((3, 3), (3, 3))

LAYER_NAMES = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}


def layer_name(path: tuple[str, ...]) -> str:
    """Returns torchvision's name of a layer.

    For example ("layer1_0", "downsample_bn") is "layer1.0.downsample.1".
    """
    *blocks, layer = path
    blocks = [block.replace("_", ".") for block in blocks]
    return ".".join([*blocks, LAYER_NAMES.get(layer, layer)])


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1 that widens by four."""

    features: int
    stride: int
    bottleneck: bool
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"], train: bool) -> Array:
        conv = partial(
            conv_layer(train),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=he_normal_fan_out,
        )
        norm = partial(batch_norm, train=train, dtype=self.dtype, epsilon=self.epsilon)
        strides = (self.stride, self.stride)

        if self.bottleneck:
            out_features = 4 * self.features
            y = conv(self.features, (1, 1), name="conv1")(x)
            y = nn.relu(norm("bn1")(y))
            y = conv(self.features, (3, 3), strides, PAD_1, name="conv2")(y)
            y = nn.relu(norm("bn2")(y))
            y = conv(out_features, (1, 1), name="conv3")(y)
            y = norm("bn3")(y)
        else:
            out_features = self.features
            y = conv(out_features, (3, 3), strides, PAD_1, name="conv1")(x)
            y = nn.relu(norm("bn1")(y))
            y = conv(out_features, (3, 3), padding=PAD_1, name="conv2")(y)
            y = norm("bn2")(y)

        if self.stride != 1 or x.shape[-1] != out_features:
            x = conv(out_features, (1, 1), strides, name="downsample_conv")(x)
            x = norm("downsample_bn")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """A residual network over images of any size.

    Attributes:
      stage_sizes: blocks in each of the four stages.
      bottleneck: bottleneck blocks (ResNet-50 and deeper) or basic ones.
      num_classes: K.
      width: channels of the stem; stage i has `width * 2**i`, four times that with
        bottlenecks.
      stem: "imagenet" (7x7 stride 2, then max-pool: maps at 1/4 of the image),
        "small" (3x3: full resolution) or "small_stride2" (3x3 stride 2: 1/2), the
        last two without a max-pool, for images of 32 or 64 pixels.
      epsilon: of BatchNorm.
      dtype: of the computation, such as bfloat16; parameters, batch statistics and
        logits stay float32.
    """

    stage_sizes: tuple[int, ...]
    bottleneck: bool
    num_classes: int
    width: int = 64
    stem: str = "imagenet"
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    weight_names: ClassVar[WeightNames] = torch_names(layer_name, head="fc")

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
          float32 logits `[B, K]`, and the maps after the stem (max-pool included) and
          after each stage, in `dtype`.

        Raises:
          InputError: the stem is unknown.
        """
        if self.stem not in STEMS:
            raise InputError(f"stem {self.stem!r} is unknown; use one of {STEMS}")
        conv = partial(
            conv_layer(train),
            self.width,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=he_normal_fan_out,
            name="conv1",
        )
        if self.stem == "imagenet":
            x = conv((7, 7), (2, 2), PAD_3)(images_normalised)
        else:
            stride = 2 if self.stem == "small_stride2" else 1
            x = conv((3, 3), (stride, stride), PAD_1)(images_normalised)
        x = nn.relu(batch_norm("bn1", train, self.dtype, self.epsilon)(x))
        if self.stem == "imagenet":
            x = max_pool_3x3(x, train)

        taps = [x]
        for stage, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                x = ResidualBlock(
                    features=self.width * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    bottleneck=self.bottleneck,
                    epsilon=self.epsilon,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{block}",
                )(x, train)
            taps.append(x)

        pooled = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        init = uniform_fan_in(pooled.shape[-1])
        logits = nn.Dense(
            self.num_classes, kernel_init=init, bias_init=init, name="fc"
        )(pooled)
        return logits, tuple(taps)


DEPTHS = {
    "resnet10": ((1, 1, 1, 1), False),
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}


BACKBONES = {
    name: Backbone(
        partial(ResNet, stage_sizes, bottleneck),
        options={"width": 64, "stem": "imagenet", "epsilon": 1e-5},
    )
    for name, (stage_sizes, bottleneck) in DEPTHS.items()
}
