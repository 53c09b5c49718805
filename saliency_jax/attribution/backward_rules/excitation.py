"""Excitation backprop: the chance that a walk down from a class comes by a unit.

Zhang et al.: Top-down neural attention by excitation backprop (arXiv 1608.00507).
"""

from functools import partial
from typing import Literal, get_args

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
from saliency_jax.attribution.backward_rules.excitation_rules import Rules, rewrites
from saliency_jax.attribution.batching import in_batches
from saliency_jax.attribution.gradients.at_layers import gradients_at
from saliency_jax.attribution.layers import (
    MIDDLE,
    AskedLayer,
    Layer,
    Targets,
    as_layer,
    cut,
)
from saliency_jax.attribution.maps import Maps, Upsampling, upsampled
from saliency_jax.models.classifier import Classifier

Variant = Literal["split", "ignore_skip"]


def excitation_backprop(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = MIDDLE,
    variant: Variant = "split",
    upsampling: Upsampling = "bilinear",
    return_aux: bool = False,
) -> Maps | tuple[Maps, dict[str, Float[Array, "B"]]]:
    """How probably a top-down walk from a class, along excitations, meets each place.

    Zhang et al. (arXiv 1608.00507). The class has probability 1. A layer with inputs a
    and weights w hands what its outputs have to its inputs, in shares of a^+ w^+, its
    weights being those with the normalisation that follows folded in; its bias gets
    none. Average pooling and sums share in the same way, max pooling gives all to the
    maximum. Activations and what is gated (by squeeze and excitation) hand on what they
    have. The map is the sum of channels.

    Where no input is negative the sum of a map is 1, before upsampling, unless a unit
    has no excitation at all: what it has is lost. Negative inputs, as in MobileNetV2's
    linear bottlenecks, count as zero.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`. With a function of the logits, its gradient takes the
        place of the class's probability.
      key: not used; all methods take one.
      batch_size: how many images go through the classifier at once; None means all.
      layer: where the map is taken, see `attribution.layers`; None: the activation
        after the last convolution. "middle" is the last layer with maps of at least
        a 16th of the images' size, see `layers.MIDDLE`; published maps are from about
        there. The images themselves, "input", have signs, which excitations do not.
      variant: of residual sums. "split" shares by the positive part of each term, as
        TorchRay and the authors' code do; "ignore_skip" hands all to the terms with the
        most layers, as the authors' instructions say: to the residual branch.
      upsampling: of the map to the images' size: "bilinear", "nearest", or None, which
        leaves its size.
      return_aux: also return `{"lost_mass": [B]}`: 1 minus the sum of the map before
        upsampling.

    Returns:
      float32 maps, not negative: probabilities; with `return_aux` a pair.

    Raises:
      InputError: for arguments that do not fit each other or the classifier, and where
        there is no rule for something that the classifier computes.
    """
    asked = ask(logits_fn, images, targets, batch_size)
    maps, lost = _excitation(asked, layer, variant, upsampling, against=False)
    return (maps, {"lost_mass": lost}) if return_aux else maps


def contrastive_excitation_backprop(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = MIDDLE,
    variant: Variant = "split",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """Excitation backprop of a class, minus that of all that speaks against it.

    Zhang et al. (arXiv 1608.00507). The other map is that of a class with the negated
    weights of the last layer that has any. The rules are linear in what is handed down,
    so it does not matter at which layer below that one takes the difference: here it is
    that of the two maps. What is negative in it is left out.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `excitation_backprop`.
      key: not used; all methods take one.
      batch_size: how many images go through the classifier at once; None means all.
      layer: as for `excitation_backprop`; before the last weights.
      variant: as for `excitation_backprop`.
      upsampling: as for `excitation_backprop`.

    Returns:
      float32 maps, not negative: differences of probabilities.

    Raises:
      InputError: as for `excitation_backprop`, and where no weights come after the
        layer.
    """
    asked = ask(logits_fn, images, targets, batch_size)
    mass, _ = _excitation(asked, layer, variant, None, against=False)
    against, _ = _excitation(asked, layer, variant, None, against=True)
    difference = jnp.maximum(mass - against, 0)
    return upsampled(difference, asked.images.shape[1:3], upsampling)


def _excitation(
    asked: Question,
    layer: Layer,
    variant: Variant,
    upsampling: Upsampling,
    against: bool,
) -> tuple[Maps, Float[Array, "B"]]:
    check_option("variant", variant, get_args(Variant))
    return in_batches(
        _excited,
        asked.batch_size,
        (asked.classifier, as_layer(layer)),
        asked.images,
        asked.targets,
        rules=Rules(variant == "ignore_skip", against),
        upsampling=upsampling,
    )


@partial(jax.jit, static_argnames=("rules", "upsampling"))
def _excited(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    targets: Targets,
    rules: Rules,
    upsampling: Upsampling,
) -> tuple[Maps, Float[Array, "B"]]:
    """Maps, and what is lost of each."""
    classifier, layer = asked
    parts = cut(classifier, images, layer, targets, partial(rewrites, rules))
    at = parts.activations(images)
    maps = jnp.sum(jnp.abs(gradients_at(parts, images, at, targets)), axis=-1)
    return (
        upsampled(maps, images.shape[1:3], upsampling),
        1 - jnp.sum(maps, axis=(1, 2)),
    )
