"""A small network of our own, such as people write for a course.

Five 3x3 convolutions with BatchNorm and ReLU, pooling between them, and a linear layer
on the mean of the last maps: so its class activation map is exact.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from saliency_jax.models.backbone import Backbone
from saliency_jax.models.layers import (
    batch_norm,
    check_size,
    conv_layer,
    he_normal_fan_out,
    max_pool_2x2,
    uniform_fan_in,
)
from saliency_jax.models.weight_names import WeightNames, torch_names

CHANNELS = (1, 2, 4, 8, 8)  # times the width
SMALLEST = 16  # pixels: four poolings halve them


class SmallCnn(nn.Module):
    """Five convolutions over images of any size from 16 pixels.

    Attributes:
      num_classes: K.
      width: channels of the first convolution; the last has eight times that.
      epsilon: of BatchNorm.
      dtype: of the computation; parameters, batch statistics and logits stay float32.
    """

    num_classes: int
    width: int = 32
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    weight_names: ClassVar[WeightNames] = torch_names(".".join, head="fc")

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
          float32 logits `[B, K]`, and the maps after the first pooling (at 1/2 of the
          image) and after the activations 2 (1/2), 3 (1/4), 4 (1/8) and 5 (1/16), in
          `dtype`.

        Raises:
          InputError: the images are smaller than 16 pixels.
        """
        check_size(images_normalised, SMALLEST, "small_cnn")
        x, taps = images_normalised, []
        for number, channels in enumerate(CHANNELS, start=1):
            if number > 1:
                x = max_pool_2x2(x, train)
            if number == 2:
                taps.append(x)
            x = conv_layer(train)(
                channels * self.width,
                (3, 3),
                padding=1,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=he_normal_fan_out,
                name=f"conv{number}",
            )(x)
            x = nn.relu(batch_norm(f"bn{number}", train, self.dtype, self.epsilon)(x))
            if number > 1:
                taps.append(x)

        pooled = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        init = uniform_fan_in(pooled.shape[-1])
        logits = nn.Dense(
            self.num_classes, kernel_init=init, bias_init=init, name="fc"
        )(pooled)
        return logits, tuple(taps)


BACKBONES = {
    "small_cnn": Backbone(SmallCnn, options={"width": 32, "epsilon": 1e-5}),
}
