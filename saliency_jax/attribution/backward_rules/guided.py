"""Guided backpropagation and the deconvnet: gradients with another rule at ReLUs.

Springenberg et al.: Striving for simplicity (arXiv 1412.6806); Zeiler and Fergus:
Visualizing and understanding convolutional networks (arXiv 1311.2901).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.extend.core import Var
from jaxtyping import Array, Float, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_option,
)
from saliency_jax.attribution.backward_rules.activations import (
    activations,
    rectifiers_out_of_reach,
    value_and_slope,
    with_backward,
)
from saliency_jax.attribution.batching import in_batches
from saliency_jax.attribution.gradients.at_layers import gradients_at
from saliency_jax.attribution.layers import (
    INPUT,
    AskedLayer,
    Layer,
    Targets,
    as_layer,
    cut,
)
from saliency_jax.attribution.maps import Maps, Reduction, Upsampling, to_maps
from saliency_jax.attribution.program import Atom, Program, Rewrite, place
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier

AtZero = Literal["blocks", "passes"]

Rule = Callable[..., Array]
"""From an activation's function, the gradient at its result, its input and its
constants to the gradient at its input."""


def guided_backprop(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = None,
    at_zero: AtZero = "blocks",
    reduction: Reduction = "max_abs",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """The gradient along paths where both units and gradients are positive.

    Springenberg et al. (arXiv 1412.6806), figure 1. At an activation phi with input u
    and gradient g from above, `g phi'(u)` passes where u > 0 and g > 0, and nothing
    elsewhere. For a ReLU that is the paper's rule. It is the same for all activations
    of ReLU's kind: ReLU6 passes nothing above 6, and what leaky ReLU, ELU, GELU, SiLU
    or hard swish would pass below zero is blocked. Everything else, also tanh, sigmoid,
    softmax and normalisation, keeps its gradient.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: a class, or one for each image; a function from an image's logits `[K]`
        to a number; a `Unit`, for guided backpropagation from a layer; None for the
        predicted class.
      key: not used; all methods take one.
      batch_size: how many images go through the classifier at once; None means all.
      layer: where the map is taken, see `attribution.layers`; None: at the images.
      at_zero: whether a ReLU whose input is exactly zero "blocks", as its gradient in
        JAX does and captum's, or "passes", as in TorchRay.
      reduction: of channels: "max_abs", "sum_abs", "sum", or None, which keeps them.
      upsampling: of a layer's map to the images' size: "bilinear", "nearest", or None,
        which leaves its size.

    Returns:
      float32 maps; not negative unless the reduction is "sum" or None. In units of
      logits for a step of 1, the whole range of an image.

    Raises:
      InputError: for arguments that do not fit each other or the classifier, or an
        activation inside a loop or a conditional, which has no place in the program.
    """
    check_option("at_zero", at_zero, get_args(AtZero))
    rule = _guided if at_zero == "blocks" else _guided_at_zero
    asked = ask(logits_fn, images, targets, batch_size)
    return in_batches(
        _ruled_gradient,
        asked.batch_size,
        (asked.classifier, as_layer(layer or INPUT)),
        asked.images,
        asked.targets,
        rule=rule,
        reduction=reduction,
        upsampling=upsampling,
    )


def deconvnet(
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
    """The gradient with a ReLU of what comes back in the place of a ReLU's derivative.

    Zeiler and Fergus (arXiv 1311.2901), section 2.1. At every activation of ReLU's kind
    `max(g, 0)` passes, whatever the activation's input and derivative: also through
    ReLU6 above 6, and unscaled through leaky ReLU, GELU and SiLU.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `guided_backprop`.
      key: not used; all methods take one.
      batch_size: how many images go through the classifier at once; None means all.
      layer: as for `guided_backprop`.
      reduction: as for `guided_backprop`.
      upsampling: as for `guided_backprop`.

    Returns:
      float32 maps; not negative unless the reduction is "sum" or None.

    Raises:
      InputError: as for `guided_backprop`.
    """
    asked = ask(logits_fn, images, targets, batch_size)
    return in_batches(
        _ruled_gradient,
        asked.batch_size,
        (asked.classifier, as_layer(layer or INPUT)),
        asked.images,
        asked.targets,
        rule=_deconv,
        reduction=reduction,
        upsampling=upsampling,
    )


def _guided(phi: Callable, gradient: Array, u: Array, *constants: Any) -> Array:
    _, slope = value_and_slope(phi, u, *constants)
    return jnp.where((u > 0) & (gradient > 0), gradient.astype(slope.dtype) * slope, 0)


def _guided_at_zero(phi: Callable, gradient: Array, u: Array, *constants: Any) -> Array:
    # The slope to the right of zero: libraries differ in what it is at zero.
    u = jnp.where(u == 0, jnp.finfo(u.dtype).tiny, u)
    return _guided(phi, gradient, u, *constants)


def _deconv(phi: Callable, gradient: Array, u: Array, *constants: Any) -> Array:
    return jnp.maximum(gradient, 0).astype(u.dtype)


@partial(jax.jit, static_argnames=("rule", "reduction", "upsampling"))
def _ruled_gradient(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    targets: Targets,
    rule: Rule,
    reduction: Reduction,
    upsampling: Upsampling,
) -> Maps:
    classifier, layer = asked
    parts = cut(classifier, images, layer, targets, partial(_rewrites, rule))
    at = parts.activations(images)
    gradients = gradients_at(parts, images, at, targets)
    return to_maps(gradients, images.shape[1:3], reduction, upsampling)


def _rewrites(
    rule: Rule, program: Program, layer: Var, explained: Atom
) -> Mapping[Var, Rewrite]:
    """The program with a rule in the place of its activations' derivatives."""
    hidden = rectifiers_out_of_reach(program, layer, explained)
    if hidden:
        raise InputError(
            f"the activations inside of {', '.join(map(place, hidden))} cannot be "
            f"reached by guided backpropagation or the deconvnet: write the loop or "
            f"the conditional in Python, or take the map at a layer behind it"
        )
    return {
        output: Rewrite(
            found.inputs, with_backward(found.function, partial(rule, found.function))
        )
        for output, found in activations(program).items()
        if found.rectifies
    }
