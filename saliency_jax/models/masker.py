"""The masker of CASM: from the maps of an encoder to a mask.

Zolna, Geras, Cho: Classifier-agnostic saliency map extraction (arXiv 1805.08249),
with the choice of maps of Phang, Park, Geras (arXiv 2010.09750), who read 3 and 4.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from saliency_jax.errors import InputError
from saliency_jax.models.layers import (
    Conv,
    batch_norm,
    he_normal_fan_out,
    uniform_fan_in,
)


def upsample(
    masks: Float[Array, "B h w"], size: tuple[int, int], method: str
) -> Float[Array, "B H W"]:
    """Returns the masks at `size` = (H, W) by "nearest" or half-pixel "bilinear"."""
    rows, row_rest = divmod(size[0], masks.shape[1])
    columns, column_rest = divmod(size[1], masks.shape[2])
    if method == "nearest" and row_rest == column_rest == 0:
        # The gradient of repeating is a plain sum; that of `resize` is a scatter, whose
        # sums come in no fixed order on a GPU.
        return jnp.repeat(jnp.repeat(masks, rows, axis=1), columns, axis=2)
    return jax.image.resize(masks, (masks.shape[0], *size), method, antialias=False)


class UpsampledConvolution(nn.Module):
    """A 3x3 convolution to one channel over maps upsampled to one size.

    Equal to upsampling every map (bilinear), concatenating their channels and
    convolving with zero padding. All of it is linear, so the channels are contracted
    first, at each map's own resolution: nine products per pixel, one for each place
    of the kernel, are upsampled, shifted and summed. The concatenated maps, the
    largest array of the masker by far, never exist.
    """

    @nn.compact
    def __call__(
        self, maps: Sequence[Float[Array, "B _ _ _"]], size: tuple[int, int]
    ) -> Float[Array, "B h w"]:
        """Returns float32 maps of `size`, summed in float32 whatever the maps are."""
        channels = np.cumsum([x.shape[-1] for x in maps])
        shape = (3, 3, int(channels[-1]), 1)
        kernel = self.param("kernel", he_normal_fan_out, shape)
        bias = self.param("bias", uniform_fan_in(9 * shape[2]), (1,))
        weights = jnp.split(kernel[..., 0].reshape(9, -1), channels[:-1], axis=1)
        products = jnp.zeros((maps[0].shape[0], *size, 9))
        for x, weight in zip(maps, weights, strict=True):
            product = jnp.einsum(
                "bhwc,kc->bhwk",
                x,
                weight.astype(x.dtype),
                preferred_element_type=jnp.float32,
            )
            products += jax.image.resize(product, products.shape, "bilinear")
        height, width = size
        padded = jnp.pad(products, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifted = [
            padded[:, place // 3 :, place % 3 :, place][:, :height, :width]
            for place in range(9)
        ]
        return sum(shifted) + bias[0]


class CasmMasker(nn.Module):
    """The decoder of CASM; it sees no class and so cannot depend on one.

    Map 0 enters as it is; every other map is brought to `features` channels (1x1
    convolution, BatchNorm, ReLU) and to the size of map 0. One 3x3 convolution makes
    the mask there. 249,153 parameters on the five maps of a ResNet-50.

    The 3x3 convolution starts, as the original's, at N(0, sqrt(2 / 9)) over some
    thousands of inputs: nearly every pixel of the first masks is 0 or 1.

    Attributes:
      taps: which maps to read; (3, 4) with ResNet-50 has 198,017 parameters.
      features: channels of each projected map.
      final_upsampling: "nearest", the original's (the mask has blocks), or "bilinear".
      dtype: of the computation; the sigmoid and the mask are float32.
    """

    taps: tuple[int, ...] = (0, 1, 2, 3, 4)
    features: int = 64
    final_upsampling: str = "nearest"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        taps: Sequence[Float[Array, "B _ _ _"]],
        image_size: tuple[int, int],
        train: bool,
    ) -> Float[Array, "B H W"]:
        """Returns masks in [0, 1], 1 = salient.

        Args:
          taps: all maps of the encoder, from the finest. Who trains the encoder on
            something else passes them through `jax.lax.stop_gradient`.
          image_size: (H, W) of the masks.
          train: normalise with the batch's statistics and update the running ones.

        Raises:
          InputError: an encoder without maps, a map that it does not have, none at all,
            or an unknown `final_upsampling`.
        """
        if not taps:
            raise InputError(
                "the classifier gives no maps, which a masker reads: let its network "
                "return (logits, maps)"
            )
        if not self.taps or not set(self.taps) <= set(range(len(taps))):
            raise InputError(
                f"masker taps {self.taps} are not among the encoder's; "
                f"choose from {tuple(range(len(taps)))} (config.masker.taps)"
            )
        if self.final_upsampling not in ("nearest", "bilinear"):
            raise InputError(
                f"final_upsampling {self.final_upsampling!r} is unknown; "
                "use 'nearest' or 'bilinear'"
            )
        maps = []
        for index in self.taps:
            x = taps[index].astype(self.dtype)
            if index > 0:
                x = Conv(
                    self.features,
                    (1, 1),
                    use_bias=False,
                    dtype=self.dtype,
                    kernel_init=he_normal_fan_out,
                    name=f"conv_{index}",
                )(x)
                x = nn.relu(batch_norm(f"bn_{index}", train, self.dtype)(x))
            maps.append(x)
        logits = UpsampledConvolution(name="final")(maps, taps[0].shape[1:3])
        mask = nn.sigmoid(logits)
        # The sigmoid comes before the upsampling, as in the original.
        return upsample(mask, image_size, self.final_upsampling)


class EncoderMasker(nn.Module):
    """A masker with an encoder of its own, trained with it.

    The encoder keeps its last layer, unused, so that a classifier's variables fit.
    """

    encoder: nn.Module
    decoder: CasmMasker

    def __call__(
        self, images_normalised: Float[Array, "B H W 3"], train: bool
    ) -> Float[Array, "B H W"]:
        """Returns masks in [0, 1] for images after `classifier.normalise`."""
        _, taps = self.encoder(images_normalised, train)
        return self.decoder(taps, images_normalised.shape[1:3], train)
