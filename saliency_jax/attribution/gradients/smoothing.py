"""Gradients of noisy copies of an image: their mean, mean square and variance.

Smilkov, Thorat, Kim, Viegas and Wattenberg: SmoothGrad (arXiv 1706.03825); Adebayo,
Gilmer, Goodfellow and Kim: Local explanation methods (arXiv 1810.03307).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    Question,
    ask,
    by_channel,
    check_at_least,
    key_or_default,
    keys_of,
    with_targets,
)
from saliency_jax.attribution.batching import chunk_of, in_batches, over_samples
from saliency_jax.attribution.gradients.at_layers import (
    activations_shape,
    layer_gradients,
)
from saliency_jax.attribution.layers import (
    INPUT,
    AskedLayer,
    Layer,
    Targets,
    as_layer,
)
from saliency_jax.attribution.maps import Maps, Reduction, Upsampling, to_maps
from saliency_jax.models.classifier import Classifier

Sigma = float | Float[Array | np.ndarray, "_"] | None
"""The standard deviation of noise, of images in [0, 1]: one, or one for each channel;
None where it goes by the range of each image."""


class _Moments(NamedTuple):
    """Of the gradients so far: how many, their mean, and the sum of squares about it.

    Two plain sums would lose a small variance in float32, or make it negative.
    """

    count: Float[Array, "B"]
    mean: Float[Array, "B h w D"]
    squares: Float[Array, "B h w D"]


def smooth_grad(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    samples: int = 25,
    noise_level: float = 0.15,
    sigma: Sigma = None,
    layer: Layer = None,
    reduction: Reduction = "max_abs",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """The mean gradient of noisy copies of an image, which sharpens its map.

    Smilkov et al. (arXiv 1706.03825). The noise has the standard deviation
    `noise_level * (max - min)` of each image. The signed gradients of all channels are
    averaged first, and the mean is reduced to a map.

    Defaults are those of PAIR's `saliency`, which however squares the gradients unless
    it is told otherwise: that is `smooth_grad_squared`. Captum's noise has one `sigma`
    for all images.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`; None for the class that is predicted without noise.
      key: of the noise, which is the same for all images of a batch, but for its size;
        None is `jax.random.key(0)`.
      batch_size: how many noisy images go through the classifier at once; None means
        32, or all images if they are more.
      samples: noisy copies of each image.
      noise_level: the noise's standard deviation as a share of an image's range.
      sigma: the standard deviation itself, of images in [0, 1], instead of
        `noise_level`. Captum's `stdevs` is of normalised images: `stdevs * std`.
      layer: as for `gradient`; the noise is on the images nevertheless.
      reduction: as for `gradient`, of the mean.
      upsampling: as for `gradient`.

    Returns:
      float32 maps; not negative unless the reduction is "sum" or None. In units of
      logits for a step of 1, the whole range of an image.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    return _of_noisy(
        "mean",
        ask(logits_fn, images, targets, batch_size),
        key,
        samples,
        noise_level,
        sigma,
        layer,
        reduction,
        upsampling,
    )


def smooth_grad_squared(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    samples: int = 25,
    noise_level: float = 0.15,
    sigma: Sigma = None,
    layer: Layer = None,
    reduction: Reduction = "max_abs",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """The mean squared gradient of noisy copies of an image.

    What PAIR's `saliency` calls SmoothGrad by default (`magnitude=True`), and captum
    `smoothgrad_sq`: each gradient of each channel is squared, then averaged, then
    reduced.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `smooth_grad`.
      key: as for `smooth_grad`.
      batch_size: as for `smooth_grad`.
      samples: noisy copies of each image.
      noise_level: as for `smooth_grad`.
      sigma: as for `smooth_grad`.
      layer: as for `smooth_grad`.
      reduction: as for `gradient`, of the mean square.
      upsampling: as for `gradient`.

    Returns:
      float32 maps, not negative, in squared units of `smooth_grad`.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    return _of_noisy(
        "mean_square",
        ask(logits_fn, images, targets, batch_size),
        key,
        samples,
        noise_level,
        sigma,
        layer,
        reduction,
        upsampling,
    )


def var_grad(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    samples: int = 25,
    noise_level: float = 0.15,
    sigma: Sigma = None,
    layer: Layer = None,
    reduction: Reduction = "max_abs",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """The variance of the gradient over noisy copies of an image.

    Adebayo et al. (arXiv 1810.03307). The mean squared gradient of each channel less
    the square of the mean, divided by the number of samples as in captum, not by one
    less.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `smooth_grad`.
      key: as for `smooth_grad`.
      batch_size: as for `smooth_grad`.
      samples: noisy copies of each image; of one the variance is 0.
      noise_level: as for `smooth_grad`.
      sigma: as for `smooth_grad`.
      layer: as for `smooth_grad`.
      reduction: as for `gradient`, of the variance.
      upsampling: as for `gradient`.

    Returns:
      float32 maps, not negative, in squared units of `smooth_grad`.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    return _of_noisy(
        "variance",
        ask(logits_fn, images, targets, batch_size),
        key,
        samples,
        noise_level,
        sigma,
        layer,
        reduction,
        upsampling,
    )


def _of_noisy(
    statistic: str,
    asked: Question,
    key: Key[Array, ""] | None,
    samples: int,
    noise_level: float,
    sigma: Sigma,
    layer: Layer,
    reduction: Reduction,
    upsampling: Upsampling,
) -> Maps:
    """Maps of one statistic of the gradients."""
    check_at_least(1, samples=samples)
    asked = with_targets(asked)
    return in_batches(
        _of_batch,
        asked.batch_size,
        (asked.classifier, as_layer(layer or INPUT), key_or_default(key)),
        asked.images,
        _deviations(asked.images, noise_level, sigma),
        asked.targets,
        statistic=statistic,
        samples=samples,
        at_once=asked.batch_size,
        reduction=reduction,
        upsampling=upsampling,
    )


def _deviations(
    images: Float[Array, "B H W C"], noise_level: float, sigma: Sigma
) -> Float[Array, "B 1 1 _"]:
    """The standard deviation of the noise on each image."""
    if sigma is None:
        check_at_least(0, noise_level=noise_level)
        axes = (1, 2, 3)
        lowest, greatest = (f(images, axes, keepdims=True) for f in (jnp.min, jnp.max))
        return noise_level * (greatest - lowest)
    sigma = by_channel("sigma", sigma, images.shape[-1])
    return jnp.broadcast_to(sigma, (len(images), 1, 1, len(sigma)))


def _of_batch(
    asked: tuple[Classifier, AskedLayer, Key[Array, ""]],
    images: Float[Array, "B H W C"],
    deviations: Float[Array, "B 1 1 _"],
    targets: Targets,
    samples: int,
    at_once: int,
    **options: Any,
) -> Maps:
    zeros = jnp.zeros(activations_shape(asked[:2], images))
    count = jnp.zeros(len(images))
    moments = over_samples(
        _add_chunk,
        _Moments(count, zeros, zeros),
        len(images),
        samples,
        at_once,
        asked,
        images,
        deviations,
        targets,
    )
    return _to_maps(moments, size=images.shape[1:3], **options)


@partial(jax.jit, static_argnames=("size", "samples"))
def _add_chunk(
    moments: _Moments,
    i: Int[Array, ""],
    asked: tuple[Classifier, AskedLayer, Key[Array, ""]],
    images: Float[Array, "B H W C"],
    deviations: Float[Array, "B 1 1 _"],
    targets: Targets,
    size: int,
    samples: int,
) -> _Moments:
    classifier, layer, key = asked
    chunk = chunk_of(i, size, len(images), samples)
    draw = lambda key: jax.random.normal(key, images.shape[1:])
    noise = jax.vmap(draw)(keys_of(key, chunk.samples))
    noisy = chunk.of(images) + chunk.of(deviations) * noise
    _, gradients = layer_gradients(classifier, noisy, chunk.of(targets), layer)

    # Mean and squares of the chunk, then those of all so far (Chan, Golub and LeVeque).
    each = lambda count: count[:, None, None, None]
    count = chunk.add(jnp.zeros(len(images)), jnp.ones(size))
    mean = chunk.add(jnp.zeros_like(moments.mean), gradients)
    mean = mean / each(jnp.maximum(count, 1))
    squares = (gradients - chunk.of(mean)) ** 2
    difference = mean - moments.mean
    total = moments.count + count
    share = count / jnp.maximum(total, 1)
    return _Moments(
        total,
        moments.mean + each(share) * difference,
        chunk.add(moments.squares, squares)
        + each(share * moments.count) * difference**2,
    )


@partial(jax.jit, static_argnames=("size", "statistic", "reduction", "upsampling"))
def _to_maps(
    moments: _Moments,
    size: tuple[int, int],
    statistic: str,
    reduction: Reduction,
    upsampling: Upsampling,
) -> Maps:
    variance = moments.squares / moments.count[:, None, None, None]
    values = {
        "mean": moments.mean,
        "mean_square": variance + moments.mean**2,
        "variance": variance,
    }
    return to_maps(values[statistic], size, reduction, upsampling)
