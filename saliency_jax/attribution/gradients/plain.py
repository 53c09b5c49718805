"""Gradients of a class's score: at the images, or at any layer.

Simonyan, Vedaldi and Zisserman: Deep inside convolutional networks (arXiv 1312.6034),
section 3.
"""

from functools import partial

import jax
from jaxtyping import Array, Float, Key

from saliency_jax.attribution.asking import GivenImages, GivenTargets, LogitsFn, ask
from saliency_jax.attribution.batching import in_batches
from saliency_jax.attribution.gradients.at_layers import layer_gradients, origin
from saliency_jax.attribution.layers import (
    INPUT,
    AskedLayer,
    Layer,
    Targets,
    as_layer,
)
from saliency_jax.attribution.maps import Maps, Reduction, Upsampling, to_maps
from saliency_jax.models.classifier import Classifier


def gradient(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = None,
    reduction: Reduction = "max_abs",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """The gradient of a class's logit: how much each pixel would change it.

    Simonyan et al. (arXiv 1312.6034), section 3.1: `max_c |dS/dx|`. Captum's
    `Saliency` is `|dS/dx|`, without the maximum.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: a class, or one for each image; a function from an image's logits `[K]`
        to a number; a `Unit` of a layer; None for the predicted class.
      key: not used; all methods take one.
      batch_size: how many images go through the classifier at once; None means all.
      layer: where the gradient is taken, see `attribution.layers`; None: at the images.
      reduction: of channels: "max_abs", "sum_abs", "sum", or None, which keeps them.
      upsampling: of a layer's gradient to the images' size: "bilinear", "nearest", or
        None, which leaves its size.

    Returns:
      float32 maps; not negative unless the reduction is "sum" or None. In units of
      logits for a step of 1, the whole range of an image.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    asked = ask(logits_fn, images, targets, batch_size)
    return in_batches(
        _gradient,
        asked.batch_size,
        (asked.classifier, as_layer(layer or INPUT)),
        asked.images,
        asked.targets,
        times_input=False,
        reduction=reduction,
        upsampling=upsampling,
    )


def input_x_gradient(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = None,
    reduction: Reduction = "sum",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """The gradient times what it is taken at: a first-order share in the score.

    The input of a classifier is its normalised image, so the factor is the difference
    to the mean colour, and the product does not depend on the normalisation. At a layer
    it is what TorchRay calls linear approximation.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`.
      key: not used; all methods take one.
      batch_size: how many images go through the classifier at once; None means all.
      layer: as for `gradient`.
      reduction: as for `gradient`.
      upsampling: as for `gradient`.

    Returns:
      float32 maps, signed unless the reduction takes absolute values; in logits.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    asked = ask(logits_fn, images, targets, batch_size)
    return in_batches(
        _gradient,
        asked.batch_size,
        (asked.classifier, as_layer(layer or INPUT)),
        asked.images,
        asked.targets,
        times_input=True,
        reduction=reduction,
        upsampling=upsampling,
    )


@partial(jax.jit, static_argnames=("times_input", "reduction", "upsampling"))
def _gradient(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    targets: Targets,
    times_input: bool,
    reduction: Reduction,
    upsampling: Upsampling,
) -> Maps:
    classifier, layer = asked
    at, gradients = layer_gradients(classifier, images, targets, layer)
    if times_input:
        gradients = gradients * (at - origin(classifier, layer))
    return to_maps(gradients, images.shape[1:3], reduction, upsampling)
