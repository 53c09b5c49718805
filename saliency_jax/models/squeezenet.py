"""SqueezeNet 1.1 with torchvision's geometry.

Iandola et al.: SqueezeNet (arXiv 1602.07360), in the authors' later form with the 3x3
stem. The dropout before the last convolution is left out, so that a training step needs
no random key for it. There is no BatchNorm, so `batch_stats` is empty.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from saliency_jax.models.backbone import Backbone
from saliency_jax.models.layers import (
    Conv,
    check_size,
    he_uniform_fan_in,
    max_pool_ceil,
    normal_hundredth,
)
from saliency_jax.models.weight_names import WeightNames, torch_names

# torchvision's number of each fire module: channels squeezed to and of each branch.
FIRES = {
    3: (16, 64),
    4: (16, 64),
    6: (32, 128),
    7: (32, 128),
    9: (48, 192),
    10: (48, 192),
    11: (64, 256),
    12: (64, 256),
}
POOLED_BEFORE = (3, 6, 9)
TAPS = (4, 7, 10, 12)  # fire modules; map 0 is the first pooling's
SMALLEST = 3  # pixels: the stem does not pad

LAYER_NAMES = {"stem": "features.0", "classifier": "classifier.1"}


def layer_name(path: tuple[str, ...]) -> str:
    """Returns torchvision's name of a layer.

    For example ("fire_3", "expand1x1") is "features.3.expand1x1".
    """
    *blocks, layer = path
    if not blocks:
        return LAYER_NAMES[layer]
    return f"features.{blocks[0].removeprefix('fire_')}.{layer}"


class Fire(nn.Module):
    """1x1 to `squeezed` channels, then 1x1 and 3x3 to `expanded` channels each."""

    squeezed: int
    expanded: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w D"]:
        def conv(features: int, side: int, name: str, x: Array) -> Array:
            layer = Conv(
                features,
                (side, side),
                padding=side // 2,
                dtype=self.dtype,
                kernel_init=he_uniform_fan_in,
                name=name,
            )
            return nn.relu(layer(x))

        x = conv(self.squeezed, 1, "squeeze", x)
        one = conv(self.expanded, 1, "expand1x1", x)
        three = conv(self.expanded, 3, "expand3x3", x)
        return jnp.concatenate([one, three], axis=-1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 over images of any size from 3 pixels.

    Attributes:
      num_classes: K.
      dtype: of the computation; parameters and logits stay float32.
    """

    num_classes: int
    dtype: Any = jnp.float32

    weight_names: ClassVar[WeightNames] = torch_names(layer_name, head="classifier.1")

    @nn.compact
    def __call__(
        self, images_normalised: Float[Array, "B H W 3"], train: bool
    ) -> tuple[Float[Array, "B K"], tuple[Float[Array, "B h w C"], ...]]:
        """Returns the logits and five maps.

        Args:
          images_normalised: images after `classifier.normalise`.
          train: without effect; other networks need it.

        Returns:
          float32 logits `[B, K]`, and the maps after the first pooling, fire modules 4
          (both at 1/4 of the image), 7 (1/8), 10 and 12 (1/16), in `dtype`.

        Raises:
          InputError: the images are smaller than the first convolution.
        """
        check_size(images_normalised, SMALLEST, "squeezenet1_1")
        x = Conv(
            64,
            (3, 3),
            (2, 2),
            padding="VALID",
            dtype=self.dtype,
            kernel_init=he_uniform_fan_in,
            name="stem",
        )(images_normalised)
        x = nn.relu(x)
        taps = []
        for number, (squeezed, expanded) in FIRES.items():
            if number in POOLED_BEFORE:
                x = max_pool_ceil(x, 3, 2)
            if not taps:
                taps.append(x)
            x = Fire(squeezed, expanded, self.dtype, name=f"fire_{number}")(x)
            if number in TAPS:
                taps.append(x)

        scores = Conv(
            self.num_classes,
            (1, 1),
            dtype=self.dtype,
            kernel_init=normal_hundredth,
            name="classifier",
        )(x)
        logits = jnp.mean(nn.relu(scores), axis=(1, 2), dtype=jnp.float32)
        return logits, tuple(taps)


BACKBONES = {"squeezenet1_1": Backbone(SqueezeNet, options={})}
