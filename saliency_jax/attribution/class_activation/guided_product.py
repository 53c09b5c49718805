"""Guided Grad-CAM: guided backpropagation where Grad-CAM says so."""

from typing import Literal

from jaxtyping import Array, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    check_option,
)
from saliency_jax.attribution.backward_rules.guided import guided_backprop
from saliency_jax.attribution.class_activation.gradient_weighted import grad_cam
from saliency_jax.attribution.layers import Layer
from saliency_jax.attribution.maps import Maps, Reduction


def guided_grad_cam(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = None,
    reduction: Reduction = "max_abs",
    upsampling: Literal["bilinear", "nearest"] = "bilinear",
) -> Maps:
    """Guided backpropagation at the images, times Grad-CAM at a layer.

    Selvaraju et al. (arXiv 1610.02391), section 3.2: the product at each pixel, with
    Grad-CAM after its ReLU. It is upsampled bilinearly in the paper, and to the nearest
    cell by default in captum.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `grad_cam`.
      key: not used; all methods take one.
      batch_size: how many images go through the classifier at once; None means all.
      layer: of Grad-CAM; None: the activation after the last convolution.
      reduction: of channels: "max_abs", "sum_abs", "sum", or None, which keeps them.
      upsampling: of Grad-CAM: "bilinear" or "nearest".

    Returns:
      float32 maps; not negative unless the reduction is "sum" or None.

    Raises:
      InputError: as for `guided_backprop` and `grad_cam`.
    """
    check_option("upsampling", upsampling, ("bilinear", "nearest"))
    asked = {"logits_fn": logits_fn, "images": images, "targets": targets}
    guided = guided_backprop(**asked, batch_size=batch_size, reduction=reduction)
    coarse = grad_cam(
        **asked, batch_size=batch_size, layer=layer, upsampling=upsampling
    )
    # Grad-CAM is not negative, so that all reductions of the product are this.
    return guided * (coarse[..., None] if reduction is None else coarse)
