"""A generator of images and the discriminator that it was trained against: a DCGAN.

Radford, Metz and Chintala: Unsupervised representation learning with deep convolutional
generative adversarial networks (arXiv 1511.06434), in the geometry of Thakur and
Fischmeister's code for acceptable variations: a latent point uniform in [-1, 1]^100, a
coarse map of 1/16 of the image, four transposed 5x5 convolutions of stride 2, tanh;
four 5x5 convolutions of stride 2, leaky ReLUs of slope 0.2, one logit. At 64 pixels
theirs are 128 and 64 channels wide (the coarse map has 1024), at 224 pixels 448 and 56.

Inside, images are in [-1, 1], the range of tanh; at the public boundary in [0, 1].
"""

from functools import partial

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num

from saliency_jax.errors import InputError
from saliency_jax.masking import to_float
from saliency_jax.models.layers import batch_norm, with_rbg
from saliency_jax.types import PyTree

REDUCTION = 16
"""The image's side by that of the coarsest map."""

SLOPE = 0.2
_normal = with_rbg(nn.initializers.normal(0.02))
_BatchNorm = partial(batch_norm, dtype=jnp.float32)


def shifted_convolution(
    x: Float[Array, "B h w C"], kernel: Float[Array, "3 3 C D"]
) -> Float[Array, "B h w D"]:
    """A 3x3 convolution of stride 1, zeros around: nine products of shifted maps.

    XLA's convolutions are slow on a CPU in a loop, as the search for latent points is,
    and in the gradient of a transposed one's kernel; products are not.
    """
    batch, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        jnp.dot(
            padded[:, i : i + height, j : j + width].reshape(-1, channels), kernel[i, j]
        ).reshape(batch, height, width, -1)
        for i in range(3)
        for j in range(3)
    )


class Doubling(nn.Module):
    """A transposed 5x5 convolution of stride 2 that doubles the sides of a map.

    Equal to `nn.ConvTranspose(features, (5, 5), (2, 2), "SAME")`, whose parameters it
    has: each pixel of the result sees 3x3 of the map, through one of four kernels.

    Attributes:
      features: channels of the result.
      use_bias: whether it has one.
    """

    features: int
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W D"]:
        batch, height, width, channels = x.shape
        features = self.features
        kernel = self.param("kernel", _normal, (5, 5, channels, features))
        padded = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
        phases = padded.reshape(3, 2, 3, 2, channels, features)[:, ::-1, :, ::-1]
        phases = phases.transpose(0, 2, 4, 1, 3, 5)
        y = shifted_convolution(x, phases.reshape(3, 3, channels, 4 * features))
        y = y.reshape(batch, height, width, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
        y = y.reshape(batch, 2 * height, 2 * width, features)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (features,))
            y += bias.reshape(1, 1, 1, features)
        return y


class Halving(nn.Module):
    """A 5x5 convolution of stride 2 that halves the sides of a map, which are even.

    Equal to `nn.Conv(features, (5, 5), (2, 2), "SAME")`, whose parameters it has: of
    blocks of 2x2 pixels it is a 3x3 convolution of stride 1.

    Attributes:
      features: channels of the result.
      use_bias: whether it has one.
    """

    features: int
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        batch, height, width, channels = x.shape
        features = self.features
        kernel = self.param("kernel", _normal, (5, 5, channels, features))
        padded = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
        taps = padded.reshape(3, 2, 3, 2, channels, features)
        taps = taps.transpose(0, 2, 1, 3, 4, 5)
        blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        blocks = blocks.transpose(0, 1, 3, 2, 4, 5)
        blocks = blocks.reshape(batch, height // 2, width // 2, 4 * channels)
        y = shifted_convolution(blocks, taps.reshape(3, 3, 4 * channels, features))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (features,))
            y += bias.reshape(1, 1, 1, features)
        return y


class GeneratorNetwork(nn.Module):
    """From latent points to images in [-1, 1].

    Attributes:
      image_size: side of the images in pixels, a multiple of `REDUCTION`.
      width: channels of the last map before the image; the coarsest has eight times as
        many.
      latent_size: numbers of a latent point.
    """

    image_size: int
    width: int = 128
    latent_size: int = 100

    @nn.compact
    def __call__(
        self, latents: Float[Array, "B Z"], train: bool
    ) -> Float[Array, "B S S 3"]:
        side = self.image_size // REDUCTION
        channels = 8 * self.width
        x = nn.Dense(
            side * side * channels, use_bias=False, kernel_init=_normal, name="project"
        )(latents)
        x = x.reshape(-1, side, side, channels)
        x = nn.relu(_BatchNorm("bn0", train)(x))
        for number in (1, 2, 3):
            x = Doubling(channels >> number, name=f"doubling{number}")(x)
            x = nn.relu(_BatchNorm(f"bn{number}", train)(x))
        return jnp.tanh(Doubling(3, use_bias=True, name="doubling4")(x))


class DiscriminatorNetwork(nn.Module):
    """From images in [-1, 1] to a logit: above 0 for those of the data.

    Attributes:
      width: channels of the first map; the last has eight times as many.
    """

    width: int = 64

    @nn.compact
    def __call__(
        self, images: Float[Array, "B S S 3"], train: bool
    ) -> Float[Array, "B"]:
        x = Halving(self.width, use_bias=True, name="halving1")(images)
        x = nn.leaky_relu(x, SLOPE)
        for number in (2, 3, 4):
            channels = self.width << (number - 1)
            x = Halving(channels, name=f"halving{number}")(x)
            x = nn.leaky_relu(_BatchNorm(f"bn{number}", train)(x), SLOPE)
        x = x.reshape(len(x), -1)
        return nn.Dense(1, kernel_init=_normal, name="logit")(x)[:, 0]


@flax.struct.dataclass
class Generator:
    """A trained generator with its discriminator, as a pytree.

    Attributes:
      variables: of the generator.
      discriminator_variables: of the discriminator.
      module: the generator.
      discriminator: the discriminator.
    """

    variables: PyTree
    discriminator_variables: PyTree
    module: GeneratorNetwork = flax.struct.field(pytree_node=False)
    discriminator: DiscriminatorNetwork = flax.struct.field(pytree_node=False)

    def __call__(self, latents: Float[Array, "B Z"]) -> Float[Array, "B S S 3"]:
        """Returns the images of latent points, in [0, 1]."""
        return from_signed(self.module.apply(self.variables, latents, False))

    def realism(self, images: Num[Array | np.ndarray, "B S S 3"]) -> Float[Array, "B"]:
        """Returns the discriminator's logits of images, `uint8` or in [0, 1]."""
        signed = to_signed(images)
        return self.discriminator.apply(self.discriminator_variables, signed, False)

    def samples(self, key: Key[Array, ""], count: int) -> Float[Array, "B S S 3"]:
        """Returns images in [0, 1] of latent points drawn at random."""
        return self(draw_latents(key, count, self.module.latent_size))


def create_generator(
    image_size: int, *, width: int, latent_size: int, discriminator_width: int
) -> tuple[GeneratorNetwork, DiscriminatorNetwork]:
    """Returns the two networks; see there for the arguments.

    Raises:
      InputError: the image's side is no multiple of `REDUCTION`.
    """
    if image_size < REDUCTION or image_size % REDUCTION:
        raise InputError(
            f"a generator makes images whose side is a multiple of {REDUCTION}, and "
            f"config.data.image_size is {image_size}: choose such a size"
        )
    generator = GeneratorNetwork(image_size, width, latent_size)
    return generator, DiscriminatorNetwork(discriminator_width)


def init_generator(
    generator: GeneratorNetwork,
    discriminator: DiscriminatorNetwork,
    key: Key[Array, ""],
) -> dict[str, PyTree]:
    """Fresh variables, `{"generator": ..., "discriminator": ...}`."""
    key_generator, key_discriminator = jax.random.split(key)
    latents = jnp.zeros((1, generator.latent_size))
    size = generator.image_size
    images = jnp.zeros((1, size, size, 3))
    return {
        "generator": generator.init(key_generator, latents, False),
        "discriminator": discriminator.init(key_discriminator, images, False),
    }


def draw_latents(key: Key[Array, ""], count: int, size: int) -> Float[Array, "B Z"]:
    """Returns latent points, uniform in [-1, 1] in each of `size` numbers."""
    return jax.random.uniform(key, (count, size), minval=-1.0, maxval=1.0)


def to_signed(images: Num[Array | np.ndarray, "*B H W C"]) -> Float[Array, "*B H W C"]:
    """Images, `uint8` or in [0, 1], in the range of tanh, [-1, 1]."""
    return 2.0 * to_float(jnp.asarray(images)).astype(jnp.float32) - 1.0


def from_signed(signed: Float[Array, "*B H W C"]) -> Float[Array, "*B H W C"]:
    """The inverse of `to_signed`."""
    return 0.5 * (signed + 1.0)
