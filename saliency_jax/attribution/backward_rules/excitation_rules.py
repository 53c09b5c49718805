"""The rules of excitation backprop, as other gradients of a program.

The gradient of the rewritten program at a variable is the probability that a walk comes
by. Its sign says what excites: a negative one, that the variable is negative. So is the
probability at what is multiplied by a negative number, such as the scale of a
normalisation, and at what is subtracted: a layer is excited by its weights with the
normalisation that follows folded in, as if it had been written so.

What rearranges maps, negation and max pooling keep their own gradient.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Var
from jaxtyping import Array

from saliency_jax.attribution.backward_rules.activations import (
    activations,
    with_backward,
)
from saliency_jax.attribution.backward_rules.flow import (
    CHOOSING,
    REARRANGING,
    SUMMING,
    Flow,
    carries,
    find_flow,
    refuse_unknown,
)
from saliency_jax.attribution.backward_rules.sums import Sum, Term, find_sums
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.program import PRODUCTS, Atom, Program, Rewrite, bind
from saliency_jax.errors import InputError


class Rules(NamedTuple):
    """Static in jitted code.

    Attributes:
      ignore_skip: of a sum's terms those with the most layers get all.
      against: the last layer that has weights has them negated.
    """

    ignore_skip: bool
    against: bool


def rewrites(
    rules: Rules, program: Program, start: Var, wanted: Atom
) -> dict[Var, Rewrite]:
    """The ways of computing a program whose gradients are probabilities.

    Args:
      rules: which.
      program: a classifier.
      start: of the layer whose map is asked for.
      wanted: what is explained.

    Raises:
      InputError: there is no rule for something between the two, or no last weights.
    """
    found = activations(program)
    flow = find_flow(program, start, wanted, found)
    refuse_unknown("excitation backprop", flow, partial(_is_known, flow, found))
    sums = find_sums(program)
    depths = _depths(program) if rules.ignore_skip else {}
    changed = {}
    for equation in flow.equations:
        output, name = equation.outvars[0], equation.primitive.name
        if output in found:
            inputs, function = found[output].inputs, found[output].function
            changed[output] = Rewrite(inputs, with_backward(function, _handed_on))
        elif output in sums:
            changed[output] = _sum(sums[output], flow, depths)
        elif name in PRODUCTS:
            changed[output] = _weighted(equation, flow, sign=1)
        elif name in ("reduce_sum", "reduce_window_sum", "cumsum"):
            changed[output] = _pooled(equation)
        elif name in ("mul", "div"):
            changed[output] = _scaled(equation, flow)
    if rules.against:
        last = [x for x in flow.equations if x.primitive.name in PRODUCTS]
        if not last:
            raise InputError(
                "contrastive excitation backprop takes away what the last weights, "
                "negated, hand down, but the layer comes after them: pass an earlier "
                "layer"
            )
        changed[last[-1].outvars[0]] = _weighted(last[-1], flow, sign=-1)
    return changed


def _is_known(flow: Flow, found: Any, equation: JaxprEqn) -> bool:
    name = equation.primitive.name
    if equation.outvars[0] in found:
        return True
    if name in PRODUCTS:
        return len(flow.sources(equation)) == 1
    if name in ("mul", "div"):
        return _place(equation, flow) is not None
    return name in (*REARRANGING, *SUMMING, *CHOOSING)


def _place(equation: JaxprEqn, flow: Flow) -> int | None:
    """Which factor of a product or quotient gets all.

    A map that is repeated to meet a greater one scales it: a gate of squeeze and
    excitation, the sum of a softmax. It counts as a constant. None for two maps of one
    size, and for a quotient by the only map.
    """
    shape = equation.outvars[0].aval.shape
    places = [i for i, x in enumerate(equation.invars) if carries(x, flow.carrying)]
    if len(places) > 1:
        places = [i for i in places if equation.invars[i].aval.shape == shape]
    if len(places) != 1 or (equation.primitive.name == "div" and places == [1]):
        return None
    return places[0]


def _sum(found: Sum, flow: Flow, depths: dict[Var, int]) -> Rewrite:
    """A sum, shared by the positive part of each term."""
    shape = found.output.aval.shape
    sharing = [x for x in found.active if carries(x.atom, flow.carrying)]
    # As in a product: what is repeated, such as the mean in a normalisation, is none.
    sharing = [x for x in sharing if x.atom.aval.shape == shape] or sharing
    if depths:
        most = max(depths[x.atom] for x in sharing)
        sharing = [x for x in sharing if depths[x.atom] == most]
    others = [x for x in (*found.active, *found.constant) if x not in sharing]
    terms = (*sharing, *others)

    def total(*values: Any) -> Array:
        return sum(_signed(x, value) for x, value in zip(terms, values, strict=True))

    def rule(mass: Array, *values: Any) -> tuple[Array, ...]:
        """Of each term, with the sign that the term is added with."""
        values = values[: len(sharing)]
        if len(values) == 1:
            return (_signed(sharing[0], _handed_on(mass, *values)),)
        parts = [_signed(x, value) for x, value in zip(sharing, values, strict=True)]
        parts = [jnp.maximum(part * jnp.sign(mass), 0) for part in parts]
        each = quotient(mass, sum(parts))
        return tuple(
            _signed(x, _handed_on(part * each, value))
            for x, part, value in zip(sharing, parts, values, strict=True)
        )

    return Rewrite(tuple(x.atom for x in terms), with_backward(total, rule))


def _signed(term: Term, value: Any) -> Any:
    return value if term.sign > 0 else -value


def _depths(program: Program) -> dict[Var, int]:
    """How many layers with weights, at most, lie between the images and a variable."""
    depths = {program.images: 0}
    for equation in program.equations:
        if program.is_active(equation.outvars[0]):
            before = max(depths.get(x, 0) for x in equation.invars if not _literal(x))
            layers = before + (equation.primitive.name in PRODUCTS)
            depths |= dict.fromkeys(equation.outvars, layers)
    return depths


def _literal(atom: Atom) -> bool:
    return not isinstance(atom, Var)


def _weighted(equation: JaxprEqn, flow: Flow, sign: int) -> Rewrite:
    """A convolution or a matrix product, of a map and weights in either order."""
    first = carries(equation.invars[0], flow.carrying)
    inputs = tuple(equation.invars if first else equation.invars[::-1])

    def function(a: Array, weights: Any) -> Array:
        return bind(equation, [a, weights] if first else [weights, a])[0]

    def rule(mass: Array, a: Array, weights: Any) -> Array:
        up, down = jnp.maximum(sign * weights, 0), jnp.maximum(-sign * weights, 0)
        excited = _shared(lambda a: function(a, up), jnp.maximum(mass, 0), a)
        inhibited = _shared(lambda a: function(a, down), jnp.maximum(-mass, 0), a)
        return excited + inhibited

    return Rewrite(inputs, with_backward(function, rule))


def _pooled(equation: JaxprEqn) -> Rewrite:
    """A sum over places of one map."""

    def function(a: Array) -> Array:
        return bind(equation, [a])[0]

    def rule(mass: Array, a: Array) -> Array:
        excited = _shared(function, jnp.maximum(mass, 0), a)
        return excited - _shared(function, jnp.maximum(-mass, 0), -a)

    return Rewrite(tuple(equation.invars), with_backward(function, rule))


def _scaled(equation: JaxprEqn, flow: Flow) -> Rewrite:
    """A product with, or a quotient by, what counts as a constant."""
    place = _place(equation, flow)
    inputs = (equation.invars[place], equation.invars[1 - place])

    def function(a: Array, scale: Any) -> Array:
        return bind(equation, [a, scale] if place == 0 else [scale, a])[0]

    def rule(mass: Array, a: Array, scale: Any) -> Array:
        return _handed_on(jnp.where(scale < 0, -mass, mass), a)

    return Rewrite(inputs, with_backward(function, rule))


def _handed_on(mass: Array, a: Array, *_: Any) -> Array:
    """All mass, summed where `a` was repeated."""
    _, pull = jax.vjp(lambda a: jnp.broadcast_to(a, mass.shape).astype(mass.dtype), a)
    return pull(mass)[0]


def _shared(linear: Callable, mass: Array, a: Array) -> Array:
    """The mass of a linear function's results, in shares of what each input adds.

    Args:
      linear: with weights that are not negative.
      mass: of the results.
      a: the inputs; negative ones add nothing.
    """
    a = jnp.maximum(a, 0)
    total, pull = jax.vjp(linear, a)
    # Fast algorithms for convolutions may round a total of 0 to below that.
    return a * pull(quotient(mass, jnp.maximum(total, 0)))[0]
