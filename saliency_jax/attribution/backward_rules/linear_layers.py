"""The linear layers of a program, and what each input contributes to their results.

A layer is a convolution, a matrix product, a sum or an average pooling with all affine
steps of single numbers that follow it: its bias, a BatchNorm, a change of shape. So the
sign of a weight is that of the weight with the normalisation folded in, which matters
to rules that treat positive and negative weights differently.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Var
from jaxtyping import Array, Float

from saliency_jax.attribution.backward_rules.flow import carries, sources_of
from saliency_jax.attribution.backward_rules.signs import non_negative
from saliency_jax.attribution.backward_rules.sums import Sum, count_uses, find_sums
from saliency_jax.attribution.program import PRODUCTS, Program, bind

_SHAPES = (
    *("broadcast_in_dim", "convert_element_type", "copy", "copy_p", "name"),
    *("reduce_precision", "reshape", "rev", "sharding_constraint", "slice"),
    *("squeeze", "transpose"),
)
_AFFINE = ("add", "add_any", "sub", "mul", "div", "neg")
_POOLINGS = ("reduce_sum", "reduce_window_sum")


class LinearLayer(NamedTuple):
    """An affine function of one variable, or the end of a sum of several.

    Attributes:
      kind: "convolution" (a product of weights with each position), "dense" (one with
        each image), "pooling" or "sum" (of several variables).
      input: what it is a function of; None for a sum.
      constants: the other variables that the equations read.
      signed: whether the input may be negative.
      equations: in order; the last gives the result. Of a sum only the end.
    """

    kind: str
    input: Var | None
    constants: tuple[Var, ...]
    signed: bool
    equations: tuple[JaxprEqn, ...]

    @property
    def output(self) -> Var:
        """The variable of the result."""
        return self.equations[-1].outvars[0]


class Contributions(NamedTuple):
    """What a layer adds up to each of its results.

    Attributes:
      positive: the sum of all positive products of an input and a weight.
      negative: the sum of the negative ones; None for nothing.
      bias: the rest.
    """

    positive: Float[Array, "..."]
    negative: Float[Array, "..."] | None
    bias: Float[Array, "..."]


def find_linear_layers(
    program: Program, carrying: Collection[Var], cuts: Collection[Var]
) -> list[LinearLayer]:
    """Finds the linear layers of a program, in order.

    Args:
      program: a classifier.
      carrying: the variables that count as variable; all others are constants.
      cuts: variables that no layer may reach across.
    """
    uses = count_uses(program)
    only_reader = {
        atom: equation
        for equation in program.equations
        for atom in equation.invars
        if isinstance(atom, Var) and uses[atom] == 1
    }
    makers = {x: equation for equation in program.equations for x in equation.outvars}
    sums, unsigned = find_sums(program), non_negative(program)
    layers = []
    for equation in program.equations:
        output = equation.outvars[0]
        if output not in carrying:
            continue
        source, kind, core = None, _kind(equation, program, carrying), (equation,)
        if kind == "dense":
            after = _affine_steps(output, only_reader, carrying, cuts=())
            if _is_of_pixels(equation, makers, after):
                kind = "convolution"
        if kind != "sum" and kind is not None:
            (source,) = sources_of(equation, carrying)
        elif output in sums:
            terms = [x for x in sums[output].active if carries(x.atom, carrying)]
            if len(terms) < 2:
                continue
            kind, source = "sum", _common_source(sums[output], makers, uses, carrying)
            if source is not None:
                kind, core = "convolution", program.between(source, output)
        if kind is None:
            continue
        after = _affine_steps(output, only_reader, carrying, cuts)
        # Changes of shape at the end say nothing of the layer.
        while after and after[-1].primitive.name in _SHAPES:
            after.pop()
        signed = source not in unsigned
        layers.append(_layer(kind, source, signed, (*core, *after), carrying))
    return layers


def from_images(
    program: Program, layer: LinearLayer, carrying: Collection[Var]
) -> LinearLayer | None:
    """A layer as a function of the images, if all before it are affine steps."""
    makers = {x: equation for equation in program.equations for x in equation.outvars}
    steps, variable = [], layer.input
    while variable is not program.images:
        equation = makers.get(variable)
        if equation is None or not _is_affine_step(equation, carrying, padding=True):
            return None
        steps.append(equation)
        (variable,) = sources_of(equation, carrying)
    equations = (*reversed(steps), *layer.equations)
    return _layer(layer.kind, variable, False, equations, carrying)


def evaluate(layer: LinearLayer, value: Array, *constants: Any) -> Array:
    """What a layer gives, exactly as the classifier computes it."""
    known = {layer.input: value, **dict(zip(layer.constants, constants, strict=True))}
    for equation in layer.equations:
        inputs = [known[x] if isinstance(x, Var) else x.val for x in equation.invars]
        known[equation.outvars[0]] = bind(equation, inputs)[0]
    return known[layer.output]


def contributions(
    layer: LinearLayer,
    positive: Float[Array, "..."],
    negative: Float[Array, "..."] | None,
    *constants: Any,
) -> Contributions:
    """The positive and the negative contributions to a layer's results, in float32.

    Linear in `positive` and `negative`, so that gradients give the share of each input.

    Args:
      layer: no sum.
      positive: the positive part of the input.
      negative: the negative part, or None for nothing. Given the whole input and None
        instead, the results are those of the positive and of the negative weights.
      *constants: values of `layer.constants`.
    """
    known = dict(zip(layer.constants, map(_float32, constants), strict=True))
    found = {layer.input: Contributions(positive, negative, jnp.zeros(()))}
    for equation in layer.equations:
        inputs = [
            found.get(x, known.get(x)) if isinstance(x, Var) else _float32(x.val)
            for x in equation.invars
        ]
        found[equation.outvars[0]] = _step(equation, inputs)
    positive, negative, bias = found[layer.output]
    if negative is None:
        negative = jnp.zeros_like(positive)
    return Contributions(positive, negative, bias)


def _step(equation: JaxprEqn, inputs: Sequence[Any]) -> Contributions:
    """The contributions after an equation, of those before it and of constants."""
    name, shape = equation.primitive.name, equation.outvars[0].aval.shape
    if name in ("add", "add_any"):
        return _added(shape, *inputs)
    if name == "sub":
        return _added(shape, inputs[0], _negated(inputs[1]))
    if name == "neg":
        return _negated(inputs[0])
    if name == "convert_element_type":
        return inputs[0]
    place = [isinstance(x, Contributions) for x in inputs].index(True)
    positive, negative, bias = inputs[place]

    def apply(value: Array, constant: Array | None = None) -> Array:
        if name in ("mul", "div"):
            return value * constant
        # A bias may have fewer elements than what it is added to.
        value = jnp.broadcast_to(value, equation.invars[place].aval.shape)
        values = [value if i == place else constant for i in range(len(inputs))]
        parameters = equation.params
        if name in PRODUCTS:
            parameters = {**parameters, "preferred_element_type": None}
        return bind(equation.replace(params=parameters), values)[0]

    if name in ("mul", "div", *PRODUCTS):
        weights = 1 / inputs[1] if name == "div" else inputs[1 - place]
        up, down = jnp.maximum(weights, 0), jnp.minimum(weights, 0)
        rises, falls = apply(positive, up), apply(positive, down)
        if negative is not None:
            rises, falls = rises + apply(negative, down), falls + apply(negative, up)
        bias = apply(bias, weights) if bias.ndim else bias
        return Contributions(rises, falls, bias)
    zero = (jnp.zeros(()),) if name == "pad" else ()
    if name == "pad":
        bias = apply(bias, *zero) + apply(jnp.zeros(()), inputs[1])
    elif bias.ndim:
        bias = apply(bias)
    negative = None if negative is None else apply(negative, *zero)
    return Contributions(apply(positive, *zero), negative, bias)


def _added(shape: tuple[int, ...], one: Any, other: Any) -> Contributions:
    if not isinstance(one, Contributions):
        one, other = other, one
    positive, negative, bias = one
    if isinstance(other, Contributions):
        positive = _plus(positive, other.positive)
        negative = _plus(negative, other.negative)
        other = other.bias
    # Either may be as if it were repeated along an axis.
    spread = lambda x: None if x is None else jnp.broadcast_to(x, shape)
    return Contributions(spread(positive), spread(negative), bias + other)


def _plus(one: Array | None, other: Array | None) -> Array | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _negated(value: Any) -> Any:
    if not isinstance(value, Contributions):
        return -value
    positive, negative, bias = value
    rises = jnp.zeros_like(positive) if negative is None else -negative
    return Contributions(rises, -positive, -bias)


def _float32(value: Any) -> Array:
    value = jnp.asarray(value)
    floating = jnp.issubdtype(value.dtype, jnp.floating)
    return value.astype(jnp.float32) if floating else value


def _kind(
    equation: JaxprEqn, program: Program, carrying: Collection[Var]
) -> str | None:
    name, shape = equation.primitive.name, equation.outvars[0].aval.shape
    if name in _POOLINGS:
        return "pooling"
    if name not in PRODUCTS or len(sources_of(equation, carrying)) != 1:
        return None
    of_images = len(shape) == 2 and shape[0] == program.images.aval.shape[0]
    return "dense" if name == "dot_general" and of_images else "convolution"


def _is_of_pixels(equation: JaxprEqn, makers: dict, after: Sequence[JaxprEqn]) -> bool:
    """Whether a product is a 1x1 convolution of maps of one pixel.

    Its shape alone is that of a dense layer; but such maps went into it and come out of
    it, maybe after a bias.

    Args:
      equation: a product `[B, C]` by `[C, D]`.
      makers: of each variable.
      after: the affine steps that follow.
    """
    before = makers.get(equation.invars[0])
    while before is not None and before.primitive.name == "convert_element_type":
        before = makers.get(before.invars[0])
    reshapes = (x for x in after if x.primitive.name == "reshape")
    back = next(reshapes, None)
    if before is None or before.primitive.name != "reshape" or back is None:
        return False
    return all(
        maps.ndim == 4 and maps.shape == (pixels.shape[0], 1, 1, pixels.shape[1])
        for maps, pixels in (
            (before.invars[0].aval, equation.invars[0].aval),
            (back.outvars[0].aval, equation.outvars[0].aval),
        )
    )


def _common_source(
    found: Sum, makers: dict, uses: dict, carrying: Collection[Var]
) -> Var | None:
    """The maps whose shifted products with constants are added up, if they are."""
    sources = set()
    for term in found.active:
        equation = makers.get(term.atom)
        if equation is None or equation.primitive.name != "mul":
            return None
        if not _is_affine_step(equation, carrying) or uses[term.atom] != 1:
            return None
        (variable,) = sources_of(equation, carrying)
        shift = makers.get(variable)
        while shift is not None and shift.primitive.name == "slice":
            (variable,) = shift.invars
            shift = makers.get(variable)
        sources.add(variable)
    return sources.pop() if len(sources) == 1 else None


def _affine_steps(
    output: Var, only_reader: dict, carrying: Collection[Var], cuts: Collection[Var]
) -> list[JaxprEqn]:
    """The affine steps that a variable, and nothing else, goes through."""
    steps = []
    while output in only_reader and output not in cuts:
        equation = only_reader[output]
        if not _is_affine_step(equation, carrying):
            break
        steps.append(equation)
        output = equation.outvars[0]
    return steps


def _is_affine_step(
    equation: JaxprEqn, carrying: Collection[Var], padding: bool = False
) -> bool:
    name = equation.primitive.name
    if len(sources_of(equation, carrying)) != 1:
        return False
    if name == "div" or name == "pad":
        return carries(equation.invars[0], carrying) and (padding or name == "div")
    return name in _SHAPES or name in _AFFINE


def _layer(
    kind: str,
    source: Var | None,
    signed: bool,
    equations: tuple[JaxprEqn, ...],
    carrying: Collection[Var],
) -> LinearLayer:
    read = [x for equation in equations for x in equation.invars]
    constants = [x for x in read if isinstance(x, Var) and x not in carrying]
    constants = tuple(dict.fromkeys(constants))
    return LinearLayer(kind, source, constants, signed, equations)
