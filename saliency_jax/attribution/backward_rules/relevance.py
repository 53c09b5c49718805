"""Layer-wise relevance propagation: a score, handed back layer by layer to pixels."""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_at_least,
    check_option,
)
from saliency_jax.attribution.backward_rules.relevance_rules import (
    Bias,
    Rule,
    Rules,
    Variant,
    is_box,
    rewrites,
)
from saliency_jax.attribution.batching import in_batches
from saliency_jax.attribution.gradients.at_layers import (
    gradients_at,
    is_input,
    origin,
)
from saliency_jax.attribution.layers import (
    INPUT,
    AskedLayer,
    Cut,
    Layer,
    Targets,
    Unit,
    as_layer,
    cut,
    target_scores,
)
from saliency_jax.attribution.maps import Maps, Reduction, Upsampling, to_maps
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier


def lrp(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    rule: Rule = "composite",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 1.0,
    bias: Bias = "absorbs",
    layer: Layer = None,
    reduction: Reduction = "sum",
    upsampling: Upsampling = "bilinear",
    variant: Variant = "signed",
    return_aux: bool = False,
) -> Maps | tuple[Maps, dict[str, Float[Array, "B"]]]:
    """Layer-wise relevance propagation: each pixel's share in a class's logit.

    Bach et al. (PLoS ONE 10(7), 2015); rules by the names of Montavon et al. (LNCS
    11700, 2019). Of a linear layer with inputs a, weights w and the result
    z = sum of a w + bias, an input gets of the relevance R of z

    - "epsilon": a w / (z + epsilon sign z) R. As epsilon goes to 0, it is the gradient
      times the input where the only nonlinearities are ReLU and max pooling.
    - "gamma": a (w + gamma w^+) / (the sum of these) R, for inputs that are not
      negative; for others, contributions a w of z's sign are favoured.
    - "alpha_beta": (alpha (a w)^+ / z^+ - beta (a w)^- / z^-) R, beta = alpha - 1.
    - "composite": gamma in convolutions, epsilon in dense layers, and in the first
      layer, where pixels lie between 0 and 1, the z^B rule.

    Weights are those with the BatchNorm that follows folded in. Average pooling and
    sums of activations, such as residual ones, always have the epsilon rule.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`. The relevance of the logits is their gradient times
        their value: for a class, its logit.
      key: not used; all methods take one.
      batch_size: how many images go through the classifier at once; None means all.
      rule: see above.
      epsilon: moves all denominators away from zero; at least 0.
      gamma: how much contributions of the right sign are favoured; at least 0.
      alpha: at least 1; 1 lets only positive contributions count.
      bias: of linear layers; it "absorbs" its share, or it is "ignored": the inputs
        then share all relevance. By the rules that go by signs, biases may absorb
        nearly all of it in a deep network with BatchNorm.
      layer: whose relevance is returned, as for `gradient`; None: that of the images.
      reduction: as for `gradient`.
      upsampling: as for `gradient`.
      variant: "signed" goes by the sign of the contribution a w, and treats the bias as
        the weight of an input of 1. "captum" goes by the sign of the weight, whatever
        the input's, and leaves the bias as it is (its `GammaRule` and
        `Alpha1_Beta0_Rule`); for "gamma" and "alpha_beta" with alpha 1.
      return_aux: also return `{"relevance": [B], "conservation_gap": [B]}`: the sum of
        the relevance at the layer before channels are reduced, and what is missing to
        that of the explained score: what biases absorbed, and epsilon.

    Returns:
      float32 maps, signed, in logits; with `return_aux` a pair.

    Raises:
      InputError: for arguments that do not fit each other or the classifier, and where
        there is no rule for something that the classifier computes.
    """
    rules = _checked(Rules(rule, epsilon, gamma, alpha, bias, variant))
    asked = ask(logits_fn, images, targets, batch_size)
    maps, aux = in_batches(
        _relevance,
        asked.batch_size,
        (asked.classifier, as_layer(layer or INPUT)),
        asked.images,
        asked.targets,
        rules=rules,
        reduction=reduction,
        upsampling=upsampling,
    )
    return (maps, aux) if return_aux else maps


def _checked(rules: Rules) -> Rules:
    for name, choices in (("rule", Rule), ("bias", Bias), ("variant", Variant)):
        check_option(name, getattr(rules, name), get_args(choices))
    check_at_least(0, epsilon=rules.epsilon, gamma=rules.gamma)
    check_at_least(1, alpha=rules.alpha)
    captum_has_it = rules.rule == "gamma" or (rules.rule, rules.alpha) == (
        "alpha_beta",
        1,
    )
    if rules.variant == "captum" and not captum_has_it:
        raise InputError(
            "variant='captum' is for rule='gamma', and for rule='alpha_beta' with "
            "alpha=1: leave it out"
        )
    return rules


@partial(jax.jit, static_argnames=("rules", "reduction", "upsampling"))
def _relevance(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    targets: Targets,
    rules: Rules,
    reduction: Reduction,
    upsampling: Upsampling,
) -> tuple[Maps, dict[str, Float[Array, "B"]]]:
    classifier, layer = asked
    parts = cut(classifier, images, layer, targets, partial(rewrites, rules))
    at = parts.activations(images)
    found = gradients_at(parts, images, at, targets)
    if not is_box(rules, is_input(layer)):
        found = found * (at.astype(jnp.float32) - origin(classifier, layer))
    total = jnp.sum(found, axis=(1, 2, 3))
    gap = _starting_relevance(parts, images, at, targets) - total
    maps = to_maps(found, images.shape[1:3], reduction, upsampling)
    return maps, {"relevance": total, "conservation_gap": gap}


def _starting_relevance(
    parts: Cut, images: Float[Array, "B H W C"], at: Array, targets: Targets
) -> Float[Array, "B"]:
    """The logits times the gradient of the score: for a class, its logit."""
    if isinstance(targets, Unit):
        return parts.scores(images, at, targets).astype(jnp.float32)
    logits = parts.logits(images, at)
    gradients = jax.grad(lambda x: jnp.sum(target_scores(x, targets)))(logits)
    return jnp.sum((logits * gradients).astype(jnp.float32), axis=-1)
