"""The unknown of a class image: pixels, or waves of decorrelated colours.

A canvas of zeros is the mean colour everywhere, whatever it is made of.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from saliency_jax.removal import gaussian_blur

Canvas = Num[Array, "B h w 3"]
"""Differences to the mean colour, or complex amplitudes of waves."""

Parametrisation = Literal["pixels", "fourier"]

BLUR_REACH = 4.0

# The square root of the covariance of red, green and blue over the pixels of the 2,000
# training images of imagenet-mini: v sqrt(w) of its eigenvectors and eigenvalues.
COLOURS = np.array(
    [
        [0.26585, 0.09491, 0.02708],
        [0.27509, 0.00602, -0.05128],
        [0.28662, -0.09381, 0.02410],
    ],
    np.float32,
)
# Of the colour with the greatest variance a step of one is a step of one.
COLOURS_SCALED = COLOURS / np.linalg.norm(COLOURS, axis=0).max()


def blank(
    count: int, size: tuple[int, int], parametrisation: Parametrisation
) -> Canvas:
    """A canvas of zeros.

    Args:
      count: B.
      size: (H, W) in pixels.
      parametrisation: see `to_images`.
    """
    height, width = size
    if parametrisation == "pixels":
        return jnp.zeros((count, height, width, 3))
    return jnp.zeros((count, height, width // 2 + 1, 3), jnp.complex64)


def to_images(
    canvas: Canvas,
    mean: Float[Array, "1 1 1 3"],
    size: tuple[int, int],
    parametrisation: Parametrisation,
    smoothness: float = 1.0,
) -> Float[Array, "B H W 3"]:
    """What the canvas shows.

    Args:
      canvas: see `blank`.
      mean: the colour of a canvas of zeros, in [0, 1].
      size: (H, W).
      parametrisation: "pixels" are added to the mean colour, and nothing keeps the sum
        in [0, 1]. "fourier": waves, of which short ones are as much weaker as they are
        in photographs (by 1 / frequency), of colours that do not correlate in
        photographs; a sigmoid keeps the images in [0, 1]. After Olah, Mordvintsev and
        Schubert: Feature visualization (Distill, 2017), section "Preconditioning".
      smoothness: the power of 1 / frequency that "fourier" takes.
    """
    if parametrisation == "pixels":
        return mean + canvas
    scaled = canvas * _amplitudes(size, smoothness)[None, ..., None]
    waves = jnp.fft.irfft2(scaled, s=size, axes=(1, 2), norm="ortho")
    colours = jnp.einsum("byxk,ck->byxc", waves, COLOURS_SCALED)
    mean = jnp.clip(mean, 0.01, 0.99)
    return jax.nn.sigmoid(jnp.log(mean / (1 - mean)) + colours)


def blurred(
    canvas: Canvas,
    sigma: float,
    size: tuple[int, int],
    parametrisation: Parametrisation,
) -> Canvas:
    """A canvas that shows the image blurred.

    Args:
      canvas: see `blank`.
      sigma: standard deviation of the Gaussian, in pixels.
      size: (H, W).
      parametrisation: see `to_images`.
    """
    if parametrisation == "pixels":
        return gaussian_blur(canvas, sigma, BLUR_REACH)
    damping = np.exp(-2 * (np.pi * sigma * _frequencies(size)) ** 2)
    return canvas * damping.astype(np.float32)[None, ..., None]


def _frequencies(size: tuple[int, int]) -> Float[np.ndarray, "H w"]:
    """Of each wave, in cycles per pixel."""
    height, width = size
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])


def _amplitudes(size: tuple[int, int], smoothness: float) -> Float[np.ndarray, "H w"]:
    """Of each wave; in a photograph, with a smoothness of 1.

    Waves of unit variance then give pixels of unit variance (but for the scale of the
    colours), so that a step is as large at any size.
    """
    weights = np.maximum(_frequencies(size), 1 / max(size)) ** -smoothness
    # Every column but the first, and the last of an even width, stands for two.
    times = np.full(weights.shape[1], 2.0)
    times[0] = 1
    if size[1] % 2 == 0:
        times[-1] = 1
    power = np.sum(times * weights**2) / np.prod(size)
    return (weights / np.sqrt(power)).astype(np.float32)
