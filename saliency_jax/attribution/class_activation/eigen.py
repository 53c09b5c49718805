"""The first principal component of a layer: what stands out, for no class.

Muhammad and Yeasin: Eigen-CAM (arXiv 2008.00299).
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_option,
)
from saliency_jax.attribution.batching import in_batches
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.layers import AskedLayer, Layer, as_layer, cut
from saliency_jax.attribution.maps import Maps, Upsampling, upsampled
from saliency_jax.models.classifier import Classifier

CENTRED = {"paper": False, "pytorch-grad-cam": True}


def eigen_cam(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = None,
    variant: Literal["paper", "pytorch-grad-cam"] = "paper",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """The activations, projected on the first principal component of their channels.

    Muhammad and Yeasin (arXiv 2008.00299): with the activations of an image as a matrix
    `O` of positions by channels, `O = U S V^T`, the map is `O V_1`. No class and no
    gradient has a part in it.

    Neither says where the object is: the sign of a component is arbitrary. Here it is
    the one for which the map goes with the sum of the activations over channels (their
    scalar product is not negative). The variant "pytorch-grad-cam" takes each
    channel's mean over positions off first, so that the map has the mean 0; that
    library leaves the sign to the decomposition.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: checked, and without effect.
      key: not used; all methods take one.
      batch_size: how many images go through the classifier at once; None means all.
      layer: see `attribution.layers`; None: the activation after the last convolution.
      variant: "paper" or "pytorch-grad-cam".
      upsampling: to the images' size: "bilinear", "nearest", or None, which leaves the
        layer's size.

    Returns:
      float32 maps in units of the activations: not negative for "paper" if they are
      not, signed otherwise. Zero where all positions are alike, but for "paper" then
      constant.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_option("variant", variant, CENTRED)
    asked = ask(logits_fn, images, targets, batch_size)
    return in_batches(
        _eigen_cam,
        asked.batch_size,
        (asked.classifier, as_layer(layer)),
        asked.images,
        centred=CENTRED[variant],
        upsampling=upsampling,
    )


@partial(jax.jit, static_argnames=("centred", "upsampling"))
def _eigen_cam(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    centred: bool,
    upsampling: Upsampling,
) -> Maps:
    classifier, layer = asked
    maps = cut(classifier, images, layer).activations(images).astype(jnp.float32)
    count, height, width, channels = maps.shape
    pixels = maps.reshape(count, height * width, channels)
    if centred:
        pixels = pixels - jnp.mean(pixels, axis=1, keepdims=True)
    projected = jax.vmap(_on_first_component)(pixels)
    return upsampled(
        projected.reshape(count, height, width), images.shape[1:3], upsampling
    )


def _on_first_component(pixels: Float[Array, "P D"]) -> Float[Array, "P"]:
    """Vectors times their first right singular vector, of the documented sign.

    From the smaller of the two Gram matrices, since only one vector is wanted: a full
    decomposition of 50 positions and 2,000 channels has far more.
    """
    product = partial(jnp.matmul, precision="highest")
    if pixels.shape[0] < pixels.shape[1]:
        _, vectors = jnp.linalg.eigh(product(pixels, pixels.T))
        direction = product(vectors[:, -1], pixels)
    else:
        _, vectors = jnp.linalg.eigh(product(pixels.T, pixels))
        direction = vectors[:, -1]
    # Of length 0 where all positions are alike: then the map is zero.
    direction = quotient(direction, jnp.linalg.norm(direction))
    sign = jnp.where(jnp.sum(direction) < 0, -1.0, 1.0)
    return sign * product(pixels, direction)
