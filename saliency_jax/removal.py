"""What a removed part of an image is replaced by: blur, or noise on a random colour.

Dabkowski and Gal (arXiv 1705.07857), with the constants of the authors' code
(PiotrDabkowski/pytorch-saliency), which are for images in [-1, 1] of 224x224 pixels;
here images are in [0, 1], so that noise and colours are half as large, and lengths
scale with the image.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from saliency_jax import prng
from saliency_jax.errors import InputError
from saliency_jax.masking import masked_in

REMOVALS = ("alternative", "zero")
REFERENCE_SIZE = 224


@dataclasses.dataclass(frozen=True)
class RemovalOptions:
    """How evidence is removed; the defaults are the authors' code's.

    Attributes:
      removal: "alternative", or "zero", which multiplies the image (in [-1, 1], so that
        the removed part is grey) by the mask and invites artefacts.
      blur_probability: how often the alternative is a blur of the image.
      blur_sigma: in pixels of a 224x224 image; 10 in the paper.
      blur_reach: how far the kernel goes to either side, in standard deviations; the
        code's is 55 pixels wide at sigma 11.
      colour_range: the random colour is uniform in 0.5 +- this.
      noise: standard deviation on the random colour.
      image_noise: standard deviation on the image itself.

    Raises:
      InputError: for an unknown removal.
    """

    removal: str = "alternative"
    blur_probability: float = 0.5
    blur_sigma: float = 11.0
    blur_reach: float = 27 / 11
    colour_range: float = 0.165
    noise: float = 0.055
    image_noise: float = 0.015

    def __post_init__(self) -> None:
        if self.removal not in REMOVALS:
            raise InputError(
                f"unknown removal {self.removal!r}: expected one of {REMOVALS}"
            )


def blur_matrix(
    size: int, sigma: float, reach: float
) -> Float[np.ndarray, "size size"]:
    """The Gaussian blur of a line of `size` pixels, mirrored at its ends, as a matrix.

    Every row sums to one, so that no border darkens. The kernel is centred.

    Args:
      size: of the line, in pixels.
      sigma: standard deviation in pixels; 0 leaves the line as it is.
      reach: of the kernel to either side, in standard deviations.
    """
    if sigma == 0.0:
        return np.eye(size, dtype=np.float32)
    radius = max(1, round(reach * sigma))
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    # Mirrored about the edge pixels' outer sides, as often as a wide kernel needs.
    places = np.arange(size)[:, None] + offsets
    places = np.mod(places, 2 * size)
    places = np.where(places < size, places, 2 * size - 1 - places)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], places), weights)
    return matrix.astype(np.float32)


def gaussian_blur(
    images: Float[Array, "B H W C"], sigma: float, reach: float
) -> Float[Array, "B H W C"]:
    """Blurs by a Gaussian of `sigma` pixels; see `blur_matrix`.

    Two matrix products, which are faster than a convolution with so wide a kernel.
    """
    rows, columns = (blur_matrix(side, sigma, reach) for side in images.shape[1:3])
    down = jnp.einsum("hy,byxc->bhxc", rows, images)
    return jnp.einsum("wx,bhxc->bhwc", columns, down)


def remove_evidence(
    key: Key[Array, ""],
    images: Float[Array, "B H W 3"],
    masks: Float[Array, "B H W"],
    options: RemovalOptions,
) -> Float[Array, "B H W 3"]:
    """Keeps what the masks show and replaces the rest, drawn anew for each image.

    No gradient passes through what is put in the place of the removed part. Call it
    with `1 - masks` and another key for the picture without the object.

    Args:
      key: of this call.
      images: in [0, 1].
      masks: in [0, 1], 1 = kept.
      options: of the removal.
    """
    if options.removal == "zero":
        return masked_in(images, masks, jnp.full((1, 1, 1, 3), 0.5))
    keys = {
        name: prng.stream_key(key, name)
        for name in ("image", "noise", "colour", "coin")
    }
    noisy = images + options.image_noise * jax.random.normal(
        keys["image"], images.shape
    )
    batch = images.shape[0]
    colours = 0.5 + options.colour_range * jax.random.uniform(
        keys["colour"], (batch, 1, 1, 3), minval=-1.0, maxval=1.0
    )
    plain = colours + options.noise * jax.random.normal(keys["noise"], images.shape)
    shorter = min(images.shape[1:3])
    sigma = options.blur_sigma * shorter / REFERENCE_SIZE
    blurred = gaussian_blur(noisy, sigma, options.blur_reach)
    coins = jax.random.uniform(keys["coin"], (batch, 1, 1, 1))
    other = jnp.where(coins < options.blur_probability, blurred, plain)
    return masked_in(noisy, masks, jax.lax.stop_gradient(other))
