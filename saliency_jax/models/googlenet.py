"""GoogLeNet with torchvision's geometry, without its auxiliary heads.

Szegedy et al.: Going Deeper with Convolutions (CVPR 2015), in the form torchvision
ships: with BatchNorm, and 3x3 convolutions where the paper has 5x5 ones. The dropout
before the last layer is left out, so that a training step needs no random key for it.

torchvision's pretrained weights come with `transform_input=True`: the model itself
takes images normalised for ImageNet on to (x - 0.5) / 0.5. Here that is plainly the
normalisation of this network, mean 0.5 and std 0.5.
"""

from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from saliency_jax.models.backbone import Backbone
from saliency_jax.models.layers import (
    batch_norm,
    conv_layer,
    max_pool_ceil,
    normal_hundredth,
    uniform_fan_in,
)
from saliency_jax.models.weight_names import WeightNames, torch_names

# Channels: 1x1; 1x1 and 3x3; 1x1 and 3x3 (the paper's 5x5); 1x1 after pooling.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED_BEFORE = {"3a": 3, "4a": 3, "5a": 2}  # the window
TAPS = ("3b", "4e", "5b")


def layer_name(path: tuple[str, ...]) -> str:
    """Returns torchvision's name of a layer.

    For example ("inception3a", "branch2_1", "bn") is "inception3a.branch2.1.bn".
    """
    return ".".join(path).replace("_", ".")


class ConvNorm(nn.Module):
    """A convolution without bias, padded to keep its size, BatchNorm, ReLU."""

    features: int
    side: int
    train: bool
    epsilon: float
    dtype: Any
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Array:
        x = conv_layer(self.train)(
            self.features,
            (self.side, self.side),
            (self.stride, self.stride),
            padding=self.side // 2,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=normal_hundredth,
            name="conv",
        )(x)
        return nn.relu(batch_norm("bn", self.train, self.dtype, self.epsilon)(x))


class Inception(nn.Module):
    """Four branches side by side; see `INCEPTIONS` for the channels."""

    channels: tuple[int, ...]
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"], train: bool) -> Array:
        layer = partial(ConvNorm, train=train, epsilon=self.epsilon, dtype=self.dtype)
        one, reduce_2, three_2, reduce_3, three_3, pooled = self.channels
        second = layer(reduce_2, 1, name="branch2_0")(x)
        third = layer(reduce_3, 1, name="branch3_0")(x)
        fourth = nn.max_pool(x, (3, 3), (1, 1), "SAME")
        branches = [
            layer(one, 1, name="branch1")(x),
            layer(three_2, 3, name="branch2_1")(second),
            layer(three_3, 3, name="branch3_1")(third),
            layer(pooled, 1, name="branch4_1")(fourth),
        ]
        return jnp.concatenate(branches, axis=-1)


class GoogLeNet(nn.Module):
    """GoogLeNet over images of any size.

    Attributes:
      num_classes: K.
      epsilon: of BatchNorm; torchvision's is 1e-3 in this network.
      dtype: of the computation; parameters, batch statistics and logits stay float32.
    """

    num_classes: int
    epsilon: float = 1e-3
    dtype: Any = jnp.float32

    weight_names: ClassVar[WeightNames] = torch_names(
        layer_name, head="fc", ignored=("aux1.", "aux2.")
    )

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
          float32 logits `[B, K]`, and the maps after the first pooling, the third
          convolution (both at 1/4 of the image), inception 3b (1/8), 4e (1/16) and 5b
          (1/32), in `dtype`.
        """
        layer = partial(ConvNorm, train=train, epsilon=self.epsilon, dtype=self.dtype)
        x = layer(64, 7, stride=2, name="conv1")(images_normalised)
        x = max_pool_ceil(x, 3, 2)
        taps = [x]
        x = layer(64, 1, name="conv2")(x)
        x = layer(192, 3, name="conv3")(x)
        taps.append(x)
        for number, channels in INCEPTIONS.items():
            if number in POOLED_BEFORE:
                x = max_pool_ceil(x, POOLED_BEFORE[number], 2)
            name = f"inception{number}"
            x = Inception(channels, self.epsilon, self.dtype, name=name)(x, train)
            if number in TAPS:
                taps.append(x)

        pooled = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        logits = nn.Dense(
            self.num_classes,
            kernel_init=normal_hundredth,
            bias_init=uniform_fan_in(pooled.shape[-1]),
            name="fc",
        )(pooled)
        return logits, tuple(taps)


BACKBONES = {
    "googlenet": Backbone(
        GoogLeNet,
        options={"epsilon": 1e-3},
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
}
