"""The real-time masker of one classifier's classes: a U-Net with a feature filter.

Dabkowski and Gal: Real time image saliency for black box classifiers (arXiv
1705.07857), in two forms: "paper" as the paper describes the decoder, "author" as the
authors' code (PiotrDabkowski/pytorch-saliency) builds it, and a third of our own,
"resize", which cannot leave the checkerboards of the other two.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from saliency_jax.errors import InputError
from saliency_jax.models.layers import (
    Conv,
    batch_norm,
    conv_layer,
    he_normal_fan_out,
    with_rbg,
)
from saliency_jax.models.masker import upsample
from saliency_jax.types import Labels

UPSAMPLINGS = ("author", "paper", "resize")
EPSILON = 1e-6


class FeatureFilter(nn.Module):
    """Keeps of the coarsest map what looks like a class: `Y = X * sigmoid(X . C_s)`.

    Attributes:
      num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(
        self,
        maps: Float[Array, "B h w C"],
        labels: Labels,
        confidence: float | Float[Array, ""],
    ) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w"]]:
        """Returns the filtered map and the scores `X . C_s` in front of the gate.

        Args:
          maps: the encoder's coarsest map.
          labels: the classes to look for.
          confidence: what is subtracted from the scores before the sigmoid; in the
            authors' code 0 in training, 6 in use.
        """
        channels = maps.shape[-1]
        embedding = self.param(
            "embedding",
            with_rbg(nn.initializers.normal(channels**-0.5)),
            (self.num_classes, channels),
        )
        scores = jnp.einsum(
            "bhwc,bc->bhw",
            maps,
            embedding[labels].astype(maps.dtype),
            preferred_element_type=jnp.float32,
        )
        gate = nn.sigmoid(scores - confidence)
        return maps * gate[..., None].astype(maps.dtype), scores


class Bottleneck(nn.Module):
    """1x1 to a quarter of the channels, 3x3, 1x1, beside a shortcut; then ReLU.

    A shortcut that changes the channels is a 1x1 convolution with bias and without
    BatchNorm, as in the authors' code.
    """

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"], train: bool) -> Array:
        conv = partial(
            conv_layer(train),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=he_normal_fan_out,
        )
        inner = self.features // 4
        y = conv(inner, (1, 1), name="conv1")(x)
        y = nn.relu(batch_norm("bn1", train, self.dtype)(y))
        y = conv(inner, (3, 3), name="conv2")(y)
        y = nn.relu(batch_norm("bn2", train, self.dtype)(y))
        y = conv(self.features, (1, 1), name="conv3")(y)
        y = batch_norm("bn3", train, self.dtype)(y)
        if x.shape[-1] != self.features:
            x = Conv(self.features, (1, 1), dtype=self.dtype, name="shortcut")(x)
        return nn.relu(x + y)


def pixel_shuffle(x: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
    """Four channels become 2x2 pixels: channel `4 c + 2 dy + dx` goes to (dy, dx)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // 4, 2, 2)
    x = x.transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


class UpsamplingBlock(nn.Module):
    """Doubles a map, joins the encoder's map of that size, and mixes the two.

    Attributes:
      features: channels of the result.
      upsampling: "paper" doubles by a transposed 3x3 convolution and mixes by three
        bottlenecks; "author" by a 3x3 convolution to four times the channels, shuffled
        into pixels, and one bottleneck; "resize" by bilinear resizing, a 3x3
        convolution and one bottleneck.
      dtype: of the computation.
    """

    features: int
    upsampling: str
    dtype: Any

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B h w C"],
        skip: Float[Array, "B H W D"],
        train: bool,
    ) -> Float[Array, "B H W E"]:
        """Returns a map of the size of `skip`, whatever the size of `x`."""
        size = skip.shape[1:3]
        norm = batch_norm("up_bn", train, self.dtype)
        conv = partial(
            conv_layer(train),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=he_normal_fan_out,
        )
        if self.upsampling == "paper":
            x = nn.ConvTranspose(
                self.features,
                (3, 3),
                (2, 2),
                use_bias=False,
                dtype=self.dtype,
                kernel_init=he_normal_fan_out,
                name="up",
            )(x)
            x = nn.relu(norm(x))
        elif self.upsampling == "author":
            # The code applies a ReLU on either side of the shuffle; one does the same.
            x = nn.relu(norm(conv(4 * self.features, (3, 3), name="up")(x)))
            x = pixel_shuffle(x)
        else:
            x = jax.image.resize(x, (len(x), *size, x.shape[-1]), "bilinear")
            x = nn.relu(norm(conv(self.features, (3, 3), name="up")(x)))
        if x.shape[1:3] != size:  # of an image whose side is no multiple of 32
            x = jax.image.resize(x, (len(x), *size, x.shape[-1]), "bilinear")
        x = jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)
        for number in range(3 if self.upsampling == "paper" else 1):
            x = Bottleneck(self.features, self.dtype, name=f"mix_{number}")(x, train)
        return x


class MaskHead(nn.Module):
    """A 1x1 convolution to two channels: `|C0| / (|C0| + |C1|)`, one half where both
    are zero."""

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w"]:
        """Returns masks in [0, 1]."""
        first, second = jnp.moveaxis(
            jnp.abs(Conv(2, (1, 1), dtype=jnp.float32, name="head")(x)), -1, 0
        )
        return (first + EPSILON / 2) / (first + second + EPSILON)


class SelectiveDecoder(nn.Module):
    """What is trained: the class selector and the upsampling part of the U-Net.

    Attributes:
      num_classes: K.
      upsampling: one of `UPSAMPLINGS`.
      base: channels of the finest of the three upsampling steps.
      dtype: of the computation; the gate's scores and the mask are float32.
    """

    num_classes: int
    upsampling: str = "author"
    base: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        taps: Sequence[Float[Array, "B _ _ _"]],
        image_size: tuple[int, int],
        labels: Labels,
        train: bool,
        confidence: float | Float[Array, ""] = 0.0,
    ) -> tuple[Float[Array, "B H W"], Float[Array, "B h w"]]:
        """Returns masks in [0, 1], 1 = salient, and the selector's scores.

        Args:
          taps: at least four maps of the encoder, from the finest.
          image_size: (H, W) of the masks.
          labels: the class that each mask is asked to show.
          train: normalise with the batch's statistics and update the running ones.
          confidence: see `FeatureFilter`.

        Raises:
          InputError: too few maps, or an unknown `upsampling`.
        """
        if len(taps) < 4:
            raise InputError(
                f"the encoder gives {len(taps)} maps, and the masker reads the four "
                "coarsest: choose another encoder"
            )
        if self.upsampling not in UPSAMPLINGS:
            raise InputError(
                f"upsampling {self.upsampling!r} is unknown; use one of {UPSAMPLINGS}"
            )
        *skips, x = [tap.astype(self.dtype) for tap in taps[-4:]]
        x, scores = FeatureFilter(self.num_classes, name="selector")(
            x, labels, confidence
        )
        for factor, skip in zip((4, 2, 1), reversed(skips), strict=True):
            block = UpsamplingBlock(
                factor * self.base, self.upsampling, self.dtype, name=f"up_{factor}"
            )
            x = block(x, skip, train)
        masks = MaskHead(name="mask")(x)
        return upsample(masks, image_size, "bilinear"), scores


class SelectiveMasker(nn.Module):
    """The decoder on a pretrained encoder of its own, which never changes."""

    encoder: nn.Module
    decoder: SelectiveDecoder

    def __call__(
        self,
        images_normalised: Float[Array, "B H W 3"],
        labels: Labels,
        train: bool,
        confidence: float | Float[Array, ""] = 0.0,
    ) -> tuple[Float[Array, "B H W"], Float[Array, "B h w"]]:
        """Returns the masks and the selector's scores; see `SelectiveDecoder`.

        The encoder's BatchNorm runs in evaluation and takes no gradient, also in
        training: the authors' code let its statistics drift there.
        """
        _, taps = self.encoder(images_normalised, False)
        taps = jax.lax.stop_gradient(taps)
        return self.decoder(
            taps, images_normalised.shape[1:3], labels, train, confidence
        )


def presence_logits(scores: Float[Array, "B h w"], pooling: str) -> Float[Array, "B 2"]:
    """What says whether the class is there: `(-z / 2, z / 2)`.

    Args:
      scores: of `FeatureFilter`.
      pooling: z is their "mean" (the authors' code) or their "max" (the paper drives
        the gate's maximum).

    Raises:
      InputError: for any other pooling.
    """
    pools = {"mean": jnp.mean, "max": jnp.max}
    if pooling not in pools:
        raise InputError(f"pooling {pooling!r} is unknown; use one of {tuple(pools)}")
    z = pools[pooling](scores, axis=(1, 2))
    return jnp.stack([-z / 2, z / 2], axis=-1)
