"""Class activation maps: a layer's channels, weighted for a class and summed.

Of a layer's maps `A` [h, w, D] and the score `S` of what is explained, with the
gradient `G = dS/dA`. What is summed is as large as the layer; then it is upsampled.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    Question,
    ask,
    check_option,
)
from saliency_jax.attribution.batching import in_batches
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.gradients.at_layers import layer_gradients
from saliency_jax.attribution.layers import AskedLayer, Layer, Targets, as_layer
from saliency_jax.attribution.maps import Maps, Upsampling, upsampled
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier

LayerMaps = Float[Array, "B h w D"]
Combination = Callable[[LayerMaps, LayerMaps], Float[Array, "B h w"]]
"""From a layer's maps and their gradient to the class activation map."""


def grad_cam(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = None,
    variant: Literal["paper", "captum"] = "paper",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """Channels weighted by the mean of their gradient.

    Selvaraju et al. (arXiv 1610.02391), equations 1 and 2: with `w_k = mean_ij G_ijk`,
    `ReLU(sum_k w_k A_k)`. The score is the logit. The variant "captum" is the default
    of captum's `LayerGradCam`: without the ReLU.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: a class, or one for each image; a function from an image's logits `[K]`
        to a number; a `Unit` of a layer; None for the predicted class.
      key: not used; all methods take one.
      batch_size: how many images go through the classifier at once; None means all.
      layer: see `attribution.layers`; None: the activation after the last convolution.
      variant: "paper" or "captum".
      upsampling: to the images' size: "bilinear", "nearest", or None, which leaves the
        layer's size.

    Returns:
      float32 maps in units of logits, not negative; signed for "captum".

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_option("variant", variant, GRAD_CAM)
    asked = ask(logits_fn, images, targets, batch_size)
    return _combined(asked, layer, GRAD_CAM[variant], upsampling)


def grad_cam_plus_plus(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = None,
    variant: Literal["author", "peers", "xplique"] = "author",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """Channels weighted by their positive gradients, so that each object counts.

    Chattopadhyay et al. (arXiv 1710.11063), equations 7 and 19, of the score `exp(S)`:
    `a_ijk = G^2 / (2 G^2 + G^3 sum_ab A_abk)`, `w_k = sum_ij a_ijk ReLU(G_ijk)`,
    `ReLU(sum_k w_k A_k)`. The common factor `exp(S)` of all weights is left out. Where
    the denominator is zero, so is a.

    Variants: the author's code ("author") scales a to a sum of 1 over a channel's
    positions of positive gradient. pytorch-grad-cam and torch-cam ("peers") do not.
    "xplique" takes means over positions in the place of both sums.

    Args:
      logits_fn: as for `grad_cam`.
      images: as for `grad_cam`.
      targets: as for `grad_cam`.
      key: not used; all methods take one.
      batch_size: as for `grad_cam`.
      layer: as for `grad_cam`.
      variant: "author", "peers" or "xplique".
      upsampling: as for `grad_cam`.

    Returns:
      float32 maps, not negative.

    Raises:
      InputError: as for `grad_cam`.
    """
    check_option("variant", variant, _GRAD_CAM_PLUS_PLUS)
    asked = ask(logits_fn, images, targets, batch_size)
    return _combined(asked, layer, _GRAD_CAM_PLUS_PLUS[variant], upsampling)


def xgrad_cam(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = None,
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """Channels weighted by the mean of their gradient where they are active.

    Fu et al. (arXiv 2008.02312): `w_k = sum_ij A_ijk G_ijk / sum_ij A_ijk`,
    `ReLU(sum_k w_k A_k)`. A channel whose activations sum to zero has the weight 0.

    Args:
      logits_fn: as for `grad_cam`.
      images: as for `grad_cam`.
      targets: as for `grad_cam`.
      key: not used; all methods take one.
      batch_size: as for `grad_cam`.
      layer: as for `grad_cam`; one of activations that are not negative, since else the
        sum may be near zero.
      upsampling: as for `grad_cam`.

    Returns:
      float32 maps in units of logits, not negative.

    Raises:
      InputError: as for `grad_cam`.
    """
    asked = ask(logits_fn, images, targets, batch_size)
    return _combined(asked, layer, _xgrad_cam, upsampling)


def hires_cam(
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
    """Activations times their gradients, summed over channels.

    Draelos and Carin (arXiv 2011.08891): `sum_k G_ijk A_ijk`. Where one linear layer
    follows, these are the shares of the positions in the logit, which they and the bias
    sum to. The variant "pytorch-grad-cam" has a ReLU, which the author's code has not.

    Args:
      logits_fn: as for `grad_cam`.
      images: as for `grad_cam`.
      targets: as for `grad_cam`.
      key: not used; all methods take one.
      batch_size: as for `grad_cam`.
      layer: as for `grad_cam`.
      variant: "paper" or "pytorch-grad-cam".
      upsampling: as for `grad_cam`.

    Returns:
      float32 maps in units of logits, signed; not negative for "pytorch-grad-cam".

    Raises:
      InputError: as for `grad_cam`.
    """
    check_option("variant", variant, _HIRES_CAM)
    asked = ask(logits_fn, images, targets, batch_size)
    return _combined(asked, layer, _HIRES_CAM[variant], upsampling)


def layer_cam(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer | Sequence[Layer] = None,
    gamma: float = 2.0,
    deep: int = 1,
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """Activations times their positive gradients, of one layer or of several fused.

    Jiang et al. (LayerCAM, IEEE TIP 2021): `M = ReLU(sum_k ReLU(G_ijk) A_ijk)`, which
    is sharp at shallow layers too. Of several layers each map is `M / max M`, those of
    the shallow ones `tanh(gamma M / max M)`, and the fused map has the greatest of
    these at each pixel. torch-cam scales all layers (`deep=0`); pytorch-grad-cam
    takes the mean and scales none.

    Args:
      logits_fn: as for `grad_cam`.
      images: as for `grad_cam`.
      targets: as for `grad_cam`.
      key: not used; all methods take one.
      batch_size: as for `grad_cam`.
      layer: as for `grad_cam`, or several, from shallow to deep, such as
        ("tap_2", "tap_3", "tap_4").
      gamma: of several layers: how much the weak parts of shallow maps are raised.
      deep: of several layers: how many at the end are not shallow.
      upsampling: as for `grad_cam`; None fuses at the size of the largest layer.

    Returns:
      float32 maps, not negative, in units of logits; of several layers in [0, 1].

    Raises:
      InputError: there is no layer, `deep` is negative, or as for `grad_cam`.
    """
    asked = ask(logits_fn, images, targets, batch_size)
    if not _is_several(layer):
        return _combined(asked, layer, _layer_cam, upsampling)
    if not len(layer) or deep < 0:
        raise InputError(
            f"layer={layer!r} and deep={deep}: expected at least one layer, and at "
            f"least 0 that are deep"
        )
    return in_batches(
        _fused,
        asked.batch_size,
        (asked.classifier, [as_layer(one) for one in layer], gamma),
        asked.images,
        asked.targets,
        shallow=max(len(layer) - deep, 0),
        upsampling=upsampling,
    )


def _is_several(layer: Layer | Sequence[Layer]) -> bool:
    """Whether it is a sequence of layers: `(features, head)` is one."""
    if layer is None or isinstance(layer, str):
        return False
    return not (len(layer) == 2 and all(map(callable, layer)))


def _combined(
    asked: Question, layer: Layer, combination: Combination, upsampling: Upsampling
) -> Maps:
    return in_batches(
        class_activation_maps,
        asked.batch_size,
        (asked.classifier, as_layer(layer)),
        asked.images,
        asked.targets,
        combination=combination,
        upsampling=upsampling,
    )


@partial(jax.jit, static_argnames=("combination", "upsampling"))
def class_activation_maps(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    targets: Targets,
    combination: Combination,
    upsampling: Upsampling,
) -> Maps:
    """What a combination makes of a layer and its gradient."""
    classifier, layer = asked
    maps = combination(*layer_gradients(classifier, images, targets, layer))
    return upsampled(maps, images.shape[1:3], upsampling)


@partial(jax.jit, static_argnames=("shallow", "upsampling"))
def _fused(
    asked: tuple[Classifier, list[AskedLayer], float | Float[Array, ""]],
    images: Float[Array, "B H W C"],
    targets: Targets,
    shallow: int,
    upsampling: Upsampling,
) -> Maps:
    classifier, layers, gamma = asked
    # XLA makes one forward and one backward pass of these.
    maps = [
        _layer_cam(*layer_gradients(classifier, images, targets, layer))
        for layer in layers
    ]
    maps = [quotient(x, jnp.max(x, axis=(1, 2), keepdims=True)) for x in maps]
    maps[:shallow] = [jnp.tanh(gamma * x) for x in maps[:shallow]]
    if upsampling is None:
        size = tuple(max(x.shape[i] for x in maps) for i in (1, 2))
        upsampling = "bilinear"
    else:
        size = images.shape[1:3]
    return jnp.max(jnp.stack([upsampled(x, size, upsampling) for x in maps]), axis=0)


def _weighted(
    maps: LayerMaps, weights: Float[Array, "B 1 1 D"]
) -> Float[Array, "B h w"]:
    return jnp.sum(weights * maps, axis=-1)


def _positive(
    combination: Combination, maps: LayerMaps, gradients: LayerMaps
) -> Float[Array, "B h w"]:
    return jax.nn.relu(combination(maps, gradients))


def _grad_cam(maps: LayerMaps, gradients: LayerMaps) -> Float[Array, "B h w"]:
    return _weighted(maps, jnp.mean(gradients, axis=(1, 2), keepdims=True))


def _grad_cam_plus_plus(
    pooled: Callable, normalised: bool, maps: LayerMaps, gradients: LayerMaps
) -> Float[Array, "B h w"]:
    """See `grad_cam_plus_plus`; the quotient is reduced by the gradient's square."""
    positive = jax.nn.relu(gradients)
    denominator = 2 + gradients * pooled(maps, axis=(1, 2), keepdims=True)
    shares = jnp.where(positive > 0, quotient(jnp.ones_like(maps), denominator), 0.0)
    if normalised:
        shares = quotient(shares, jnp.sum(shares, axis=(1, 2), keepdims=True))
    weights = pooled(shares * positive, axis=(1, 2), keepdims=True)
    return jax.nn.relu(_weighted(maps, weights))


def _xgrad_cam(maps: LayerMaps, gradients: LayerMaps) -> Float[Array, "B h w"]:
    total = lambda x: jnp.sum(x, axis=(1, 2), keepdims=True)
    weights = quotient(total(maps * gradients), total(maps))
    return jax.nn.relu(_weighted(maps, weights))


def _hires_cam(maps: LayerMaps, gradients: LayerMaps) -> Float[Array, "B h w"]:
    return jnp.sum(maps * gradients, axis=-1)


def _layer_cam(maps: LayerMaps, gradients: LayerMaps) -> Float[Array, "B h w"]:
    return jax.nn.relu(jnp.sum(maps * jax.nn.relu(gradients), axis=-1))


# Made once: as static arguments of jitted code they are told apart by identity.
GRAD_CAM = {"paper": partial(_positive, _grad_cam), "captum": _grad_cam}
_GRAD_CAM_PLUS_PLUS = {
    "author": partial(_grad_cam_plus_plus, jnp.sum, True),
    "peers": partial(_grad_cam_plus_plus, jnp.sum, False),
    "xplique": partial(_grad_cam_plus_plus, jnp.mean, False),
}
_HIRES_CAM = {
    "paper": _hires_cam,
    "pytorch-grad-cam": partial(_positive, _hires_cam),
}
