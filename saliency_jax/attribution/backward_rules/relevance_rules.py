"""The rules of layer-wise relevance propagation, as other gradients of a program.

The relevance R of an activation a is a times a modified gradient c. So nothing is
divided by an activation, and affine steps, changes of shape and max pooling keep their
own gradient. A nonlinearity phi(u) hands R on: c_u = c_a (phi(u) - phi(0)) / u. One
that is infinite at 0, such as the logarithm in a log-softmax, has no rule. A linear
layer has the result z = sum of p + sum of n + bias, of the positive and the negative
contributions p and n of its inputs, and one of the rules below.

Bach et al.: On pixel-wise explanations for non-linear classifier decisions by
layer-wise relevance propagation (PLoS ONE 10(7), 2015); Montavon et al.: Layer-wise
relevance propagation: an overview (in Explainable AI, LNCS 11700, 2019).
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Var
from jaxtyping import Array, Float

from saliency_jax.attribution.backward_rules.activations import (
    activations,
    is_finite_at_zero,
    value_and_slope,
    with_backward,
)
from saliency_jax.attribution.backward_rules.flow import (
    CHOOSING,
    Flow,
    find_flow,
    is_linear,
    refuse_unknown,
)
from saliency_jax.attribution.backward_rules.linear_layers import (
    Contributions,
    LinearLayer,
    contributions,
    evaluate,
    find_linear_layers,
    from_images,
)
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.program import Atom, Program, Rewrite, bind
from saliency_jax.errors import InputError

Rule = Literal["composite", "epsilon", "gamma", "alpha_beta"]

Bias = Literal["absorbs", "ignored"]

Variant = Literal["signed", "captum"]


class Rules(NamedTuple):
    """Which rules, with their numbers; static in jitted code."""

    rule: Rule
    epsilon: float
    gamma: float
    alpha: float
    bias: Bias
    variant: Variant


def rewrites(
    rules: Rules, program: Program, start: Var, wanted: Atom
) -> dict[Var, Rewrite]:
    """The ways of computing a program whose gradients are relevances.

    Args:
      rules: which.
      program: a classifier.
      start: of the layer whose relevance is asked for: its gradient times what it
        gives, or, by `is_box`, its gradient.
      wanted: what is explained.

    Raises:
      InputError: there is no rule for something between the two.
    """
    found = activations(program)
    flow = find_flow(program, start, wanted, found)

    def known(equation: JaxprEqn) -> bool:
        if activation := found.get(equation.outvars[0]):
            return is_finite_at_zero(activation)
        name = equation.primitive.name
        return is_linear(equation, flow) or name in (*CHOOSING, "mul")

    refuse_unknown("lrp", flow, known)
    changed = {x.outvars[0]: _constant(x) for x in flow.held}
    for equation in flow.equations:
        output = equation.outvars[0]
        if output in found:
            function = with_backward(
                found[output].function, partial(_secant, found[output].function)
            )
            changed[output] = Rewrite(found[output].inputs, function)
        elif equation.primitive.name == "mul" and len(flow.sources(equation)) == 2:
            changed[output] = Rewrite(tuple(equation.invars), _shared_product)
    layers = find_linear_layers(program, flow.carrying, {start, wanted})
    for layer in layers:
        if layer.output not in found:
            changed[layer.output] = _rewrite(layer, rules)
    if is_box(rules, start is program.images):
        changed |= _box_rewrites(program, flow, layers, rules)
    return changed


def is_box(rules: Rules, at_images: bool) -> bool:
    """Whether gradients at the start are relevances, and not to be multiplied."""
    return rules.rule == "composite" and at_images


def _constant(equation: JaxprEqn) -> Rewrite:
    hold = lambda *inputs: jax.lax.stop_gradient(bind(equation, inputs)[0])
    return Rewrite(tuple(equation.invars), hold)


def _rewrite(layer: LinearLayer, rules: Rules) -> Rewrite:
    rule = rules.rule
    if rule == "composite":
        rule = "gamma" if layer.kind == "convolution" else "epsilon"
    if layer.kind in ("convolution", "dense"):
        if rule == "epsilon" and rules.bias == "ignored":
            rule, rules = "gamma", rules._replace(gamma=0.0)
        if rule != "epsilon":
            rule = partial(_gamma if rule == "gamma" else _alpha_beta, layer, rules)
            function = with_backward(partial(evaluate, layer), rule)
            return Rewrite((layer.input, *layer.constants), function)
    damped = with_backward(lambda z: z, partial(_epsilon, rules.epsilon))
    last = layer.equations[-1]
    return Rewrite(tuple(last.invars), lambda *x: damped(bind(last, x)[0]))


def _secant(function: Any, gradient: Array, value: Array, *constants: Any) -> Array:
    """Of a nonlinearity: (phi(u) - phi(0)) / u in the place of the derivative."""
    result, slope = value_and_slope(function, value, *constants)
    at_zero = function(jnp.zeros_like(value), *constants)
    # So near to zero the difference is lost in rounding, and the derivative is as good.
    near = jnp.abs(value) < 1e-3
    secant = (result - at_zero) / jnp.where(near, 1, value)
    return gradient * jnp.where(near, slope, secant).astype(gradient.dtype)


@jax.custom_vjp
def _shared_product(one: Array, other: Array) -> Array:
    """A product of two activations, which share its relevance in halves.

    Achtibat et al., AttnLRP (arXiv 2402.05602), the uniform rule.
    """
    return one * other


def _product_and_factors(one: Array, other: Array) -> tuple[Array, tuple]:
    return one * other, (one, other)


def _half_gradients(factors: tuple[Array, Array], gradient: Array) -> tuple:
    _, pull = jax.vjp(jnp.multiply, *factors)
    return pull(gradient / 2)


_shared_product.defvjp(_product_and_factors, _half_gradients)


def _ratio(
    numerator: Float[Array, "..."], denominator: Float[Array, "..."], epsilon: float
) -> Float[Array, "..."]:
    """A quotient whose denominator is moved away from zero; 0 / 0 is 0."""
    moved = denominator + jnp.where(denominator < 0, -epsilon, epsilon)
    return quotient(numerator, moved)


def _epsilon(epsilon: float, gradient: Array, z: Array) -> Array:
    if epsilon == 0:
        return gradient
    z = z.astype(jnp.float32)
    return gradient * _ratio(z, z, epsilon).astype(gradient.dtype)


def _gamma(
    layer: LinearLayer, rules: Rules, gradient: Array, value: Array, *constants: Any
) -> Array:
    """Shares by p + n + gamma p where z is positive, by p + n + gamma n elsewhere.

    With inputs and z >= 0 it is the rule of Montavon et al., weights w + gamma w^+;
    beyond that it is what zennit calls the generalised gamma rule.
    """
    relevance = _relevance(layer, gradient, value, constants)

    def favouring(value: Array) -> tuple[Array, Array]:
        positive, negative, bias = _by_sign(layer, rules, value, constants)
        total = positive + negative
        if rules.variant == "captum":
            return total + rules.gamma * positive, bias
        up = total + bias > 0
        favoured = jnp.where(up, jnp.maximum(bias, 0), jnp.minimum(bias, 0))
        bias = bias + rules.gamma * favoured
        return total + rules.gamma * jnp.where(up, positive, negative), bias

    total, pull, bias = jax.vjp(favouring, value.astype(jnp.float32), has_aux=True)
    (shares,) = pull(_ratio(relevance, total + bias, rules.epsilon))
    return shares.astype(value.dtype)


def _alpha_beta(
    layer: LinearLayer, rules: Rules, gradient: Array, value: Array, *constants: Any
) -> Array:
    """Shares alpha R by the positive and -beta R by the negative contributions.

    Bach et al.; beta = alpha - 1. The positive part of the bias belongs to the positive
    contributions, the negative part to the negative ones.
    """
    relevance = _relevance(layer, gradient, value, constants)
    beta = rules.alpha - 1

    def both(value: Array) -> tuple[tuple[Array, ...], Array]:
        positive, negative, bias = _by_sign(layer, rules, value, constants)
        return (positive, negative) if beta else (positive,), bias

    sums, pull, bias = jax.vjp(both, value.astype(jnp.float32), has_aux=True)
    up = bias if rules.variant == "captum" else jnp.maximum(bias, 0)
    quotients = [_ratio(rules.alpha * relevance, sums[0] + up, rules.epsilon)]
    if beta:
        down = sums[1] + jnp.minimum(bias, 0)
        quotients.append(_ratio(-beta * relevance, down, rules.epsilon))
    (shares,) = pull(tuple(quotients))
    return shares.astype(value.dtype)


def _relevance(
    layer: LinearLayer, gradient: Array, value: Array, constants: tuple
) -> Float[Array, "..."]:
    z = evaluate(layer, value, *constants)
    return gradient.astype(jnp.float32) * z.astype(jnp.float32)


def _by_sign(
    layer: LinearLayer, rules: Rules, value: Float[Array, "..."], constants: tuple
) -> Contributions:
    """Positive and negative contributions, and the bias as far as it counts."""
    parts = value, None
    if layer.signed and rules.variant != "captum":
        parts = jnp.maximum(value, 0), jnp.minimum(value, 0)
    found = contributions(layer, *parts, *constants)
    if rules.bias == "ignored":
        return found._replace(bias=jnp.zeros(()))
    return found


def _box_rewrites(
    program: Program, flow: Flow, layers: list[LinearLayer], rules: Rules
) -> dict[Var, Rewrite]:
    """The first layers with the rule for pixels, which give relevances themselves.

    Raises:
      InputError: something else reads the images too.
    """
    first = {}
    for layer in layers:
        extended = (
            None if layer.input is None else from_images(program, layer, flow.carrying)
        )
        if extended is not None and extended.output not in first:
            first[extended.output] = extended
    inside = {equation for layer in first.values() for equation in layer.equations}
    pixels = {program.images} | {x for equation in inside for x in equation.outvars}
    pixels -= first.keys()
    others = [
        equation.primitive.name
        for equation in flow.equations
        if equation not in inside and not pixels.isdisjoint(flow.sources(equation))
    ]
    if others:
        raise InputError(
            f"rule='composite' needs a classifier whose images go into linear layers, "
            f"but {', '.join(dict.fromkeys(others))} reads them too: use another rule, "
            f"or pass a layer"
        )
    return {
        output: Rewrite(
            (layer.input, *layer.constants),
            with_backward(partial(evaluate, layer), partial(_box, layer, rules)),
        )
        for output, layer in first.items()
    }


def _box(
    layer: LinearLayer, rules: Rules, gradient: Array, images: Array, *constants: Any
) -> Array:
    """Shares by x w - l w^+ - h w^- with the bounds l = 0 and h = 1 of pixels x.

    Montavon et al.: Explaining nonlinear classification decisions with deep Taylor
    decomposition (Pattern Recognition 65, 2017), the z^B rule.
    """
    relevance = _relevance(layer, gradient, images, constants)

    def by_weight(images: Array) -> tuple[Array, Array]:
        return contributions(layer, images, None, *constants)[:2]

    white = jnp.ones_like(images)
    (positive, negative), pull = jax.vjp(by_weight, images)
    total = positive + negative - by_weight(white)[1]
    quotient = _ratio(relevance, total, rules.epsilon)
    (of_pixels,) = pull((quotient, quotient))
    (of_white,) = pull((jnp.zeros_like(quotient), quotient))
    return images * of_pixels - of_white
