"""MobileNet (v1) with Keras's geometry and names.

Howard et al.: MobileNets (arXiv 1704.04861). Layers have the names of Keras
Applications. The dropout of 0.1 % before the last layer is left out, so that a training
step needs no random key for it.
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
from saliency_jax.models.weight_names import WeightNames, keras_names

# Of each block, a depthwise and a pointwise convolution: channels and stride.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *5 * ((512, 1),),
    (1024, 2),
    (1024, 1),
)
TAPS = (2, 3, 5, 11, 13)  # blocks, counted from 1


class MobileNetV1(nn.Module):
    """MobileNet (v1) over images of any size, from 32 pixels with padding "keras".

    Attributes:
      num_classes: K.
      width_multiplier: of all channels; Keras's alpha.
      padding: of the 3x3 convolutions; see `layers.padding_3x3`. At even sizes (224
        pixels and its halves down to 14) "keras" and "tensorflow" are the same.
      epsilon: of BatchNorm; Keras's is 1e-3.
      dtype: of the computation; parameters, batch statistics and logits stay float32.
    """

    num_classes: int
    width_multiplier: float = 1.0
    padding: str = "tensorflow"
    epsilon: float = 1e-3
    dtype: Any = jnp.float32

    weight_names: ClassVar[WeightNames] = keras_names(head="conv_preds")

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
          5 (1/8), 11 (1/16) and 13 (1/32), in `dtype`.

        Raises:
          InputError: the padding is unknown, or too small an image for it.
        """
        check_padding(self.padding, images_normalised)
        conv = partial(
            Conv, use_bias=False, dtype=self.dtype, kernel_init=he_normal_fan_out
        )
        norm = partial(batch_norm, train=train, dtype=self.dtype, epsilon=self.epsilon)
        pads = padding_3x3(self.padding, images_normalised.shape[1:3], stride=2)
        features = int(32 * self.width_multiplier)
        x = conv(features, (3, 3), (2, 2), pads, name="conv1")(images_normalised)
        x = nn.relu6(norm("conv1_bn")(x))

        taps = []
        for number, (channels, stride) in enumerate(BLOCKS, start=1):
            name = f"conv_dw_{number}"
            x = DepthwiseConv3x3(stride, self.padding, self.dtype, name=name)(x, train)
            x = nn.relu6(norm(f"{name}_bn")(x))
            name = f"conv_pw_{number}"
            x = conv(int(channels * self.width_multiplier), (1, 1), name=name)(x)
            x = nn.relu6(norm(f"{name}_bn")(x))
            if number in TAPS:
                taps.append(x)

        pooled = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)
        logits = Conv(
            self.num_classes, (1, 1), kernel_init=normal_hundredth, name="conv_preds"
        )(pooled)
        return logits[:, 0, 0], tuple(taps)


BACKBONES = {
    "mobilenet_v1": Backbone(
        MobileNetV1,
        options={"width_multiplier": 1.0, "padding": "tensorflow", "epsilon": 1e-3},
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
}
