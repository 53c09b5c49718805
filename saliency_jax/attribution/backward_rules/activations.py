"""The elementwise activations of a traced classifier, whoever wrote them and how.

A ReLU may be traced as one equation, as a call with its own derivative, or as a
comparison and a selection; GELU and SiLU as a handful of equations. Here each is one
function from a variable to a variable, so that backward rules can take its place.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var
from jaxtyping import Array, Float

from saliency_jax.attribution.program import Atom, Program, bind, unrolled

_CALLS = ("custom_jvp_call", "custom_vjp_call")

# Affine in all their inputs together.
_SUMS = ("add", "add_any", "sub", "neg", "convert_element_type", "copy", "name")
_AFFINE = (*_SUMS, "mul", "div", "reduce_precision", "select_n", "stop_gradient")
# One function here, another there.
_RECTIFYING = ("max", "min", "clamp", "select_n", "gt", "ge", "lt", "le")
# From one constant to another: times the input they make SiLU, GELU and the like.
_SATURATING = ("tanh", "logistic", "erf", "erfc", "exp", "expm1")
_OTHER = (
    *("acos", "acosh", "asin", "asinh", "atan", "atanh", "atan2", "cbrt", "ceil"),
    *("cos", "cosh", "digamma", "erf_inv", "exp2", "floor", "integer_pow"),
    *("is_finite", "lgamma", "log", "log1p", "nextafter", "pow", "rem", "round"),
    *("rsqrt", "sign", "sin", "sinh", "sqrt", "square", "tan"),
    *("abs", "eq", "ne", "and", "or", "xor", "not"),
)
_POLES = ("div", "integer_pow", "log", "log1p", "pow", "rsqrt", "digamma", "lgamma")
_ELEMENTWISE = frozenset((*_AFFINE, *_RECTIFYING, *_SATURATING, *_OTHER))


class Activation(NamedTuple):
    """A nonlinear elementwise function of one variable.

    Attributes:
      inputs: the variable that it is a function of, then constants such as slopes.
      function: from the values of `inputs` to the activation; what the model computes,
        equation by equation.
      rectifies: whether it is of ReLU's kind (ReLU, ReLU6, leaky ReLU, ELU, GELU, SiLU,
        Mish, hard swish ...) and no plain tanh, sigmoid, exponential or power.
      has_pole: whether it is infinite somewhere, or one of its steps is.
    """

    inputs: tuple[Atom, ...]
    function: Callable[..., Array]
    rectifies: bool
    has_pole: bool


def activations(program: Program) -> dict[Var, Activation]:
    """Finds the activations that a program consists of, by their output variables.

    Equations that are part of a greater activation, such as the tanh in a GELU, are
    none by themselves. No activation reaches across a variable that has a name or is a
    tap, so that the program can be cut there. A maximum with a constant that only
    guards a root or a division, as in layer normalisation, is none, and what is done to
    the pixels before the first layer, such as clipping, does not count as a rectifier.
    """
    kept = (program.logits, *program.taps, *program.named.values())
    kept = {atom for atom in kept if isinstance(atom, Var)}
    pixels = {program.images}
    for equation in program.equations:
        inputs = active_inputs(equation, program.active)
        on_pixels = inputs and pixels.issuperset(inputs)
        if on_pixels and is_elementwise(equation, program.active):
            pixels |= set(equation.outvars)
    return {
        output: one._replace(rectifies=one.rectifies and one.inputs[0] not in pixels)
        for output, one in _activations(program.equations, program.active, kept).items()
    }


def rectifiers_out_of_reach(
    program: Program, layer: Var, explained: Atom
) -> list[JaxprEqn]:
    """Equations with rectifiers in their bodies, between two variables.

    Such as loops, conditionals, opaque calls and what `shard_map` runs on a device.
    """
    return [
        equation
        for equation in program.between(layer, explained)
        if not is_elementwise(equation, program.active) and _hides(equation)
    ]


def _hides(equation: JaxprEqn) -> bool:
    """Whether there are rectifiers in the bodies of an equation, whatever it is."""
    is_body = lambda x: isinstance(x, Jaxpr | ClosedJaxpr)
    parameters = jax.tree.leaves(equation.params, is_leaf=is_body)
    return any(_rectifies(body) for body in parameters if is_body(body))


def _rectifies(body: Jaxpr | ClosedJaxpr) -> bool:
    equations, results = unrolled(body)
    inputs = (body.jaxpr if isinstance(body, ClosedJaxpr) else body).invars
    # A kernel has no results: it writes them to memory.
    written = [x for equation in equations if equation.effects for x in equation.invars]
    found = _activations(
        equations,
        _depending(equations, set(inputs)),
        {x for x in (*results, *written) if isinstance(x, Var)},
    )
    return any(one.rectifies for one in found.values()) or any(map(_hides, equations))


def value_and_slope(
    function: Callable[..., Array], value: Float[Array, "..."], *constants: Any
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """An activation and its derivative, of the same shape."""
    # Not `jax.jvp`: a function with its own backward pass has no forward mode.
    result, pull = jax.vjp(lambda value: function(value, *constants), value)
    return result, pull(jnp.ones_like(result))[0]


def is_finite_at_zero(activation: Activation) -> bool:
    """Whether an activation of 0 is a number; constants count as 1 here."""
    if not activation.has_pole:
        return True
    variable, *constants = (atom.aval for atom in activation.inputs)
    with jax.ensure_compile_time_eval():
        ones = [jnp.ones(one.shape, one.dtype) for one in constants]
        zero = jnp.zeros(variable.shape, variable.dtype)
        return bool(jnp.all(jnp.isfinite(activation.function(zero, *ones))))


def with_backward(
    function: Callable[..., Array], backward: Callable[..., Array | tuple[Array, ...]]
) -> Callable[..., Array]:
    """A function with another gradient.

    Args:
      function: of arrays.
      backward: from the gradient at the result, and the function's arguments, to the
        gradient at the first argument, or to a tuple of those at the first few. The
        others get none.
    """

    @jax.custom_vjp
    def ruled(*arguments: Any) -> Array:
        return function(*arguments)

    def forward(*arguments: Any) -> tuple[Array, tuple[Any, ...]]:
        return function(*arguments), arguments

    def pull(arguments: tuple[Any, ...], gradient: Array) -> tuple[Any, ...]:
        gradients = backward(gradient, *arguments)
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        return *gradients, *(None,) * (len(arguments) - len(gradients))

    ruled.defvjp(forward, pull)
    return ruled


def is_elementwise(equation: JaxprEqn, active: Collection[Var]) -> bool:
    """Whether each number depends on the active numbers at its own place alone."""
    if len(equation.outvars) != 1:
        return False
    shape = equation.outvars[0].aval.shape
    if any(atom.aval.shape != shape for atom in active_inputs(equation, active)):
        return False
    return all(name in _ELEMENTWISE for name, _ in _primitives(equation, active))


def active_inputs(equation: JaxprEqn, active: Collection[Var]) -> list[Var]:
    """The variables of an equation that depend on the images, each once."""
    variables = [x for x in equation.invars if isinstance(x, Var) and x in active]
    return list(dict.fromkeys(variables))


def _activations(
    equations: Sequence[JaxprEqn], active: Collection[Var], kept: Collection[Var]
) -> dict[Var, Activation]:
    """As `activations`; nothing reaches across the variables that are kept."""
    position = {x: i for i, equation in enumerate(equations) for x in equation.outvars}
    uses: dict[Var, list[JaxprEqn]] = {}
    for equation in equations:
        for atom in active_inputs(equation, active):
            uses.setdefault(atom, []).append(equation)

    def maker(variable: Var) -> JaxprEqn | None:
        """The elementwise equation of a variable."""
        if variable not in position:
            return None
        equation = equations[position[variable]]
        return equation if is_elementwise(equation, active) else None

    def region(output: Var) -> tuple[Var, list[JaxprEqn]] | None:
        """The nearest variable that an output is an elementwise function of."""
        equation, found, frontier = maker(output), [], set()
        while equation is not None:
            found.append(equation)
            frontier |= set(active_inputs(equation, active))
            if len(frontier) == 1:
                return frontier.pop(), found[::-1]
            latest = max(frontier, key=lambda x: position.get(x, -1))
            frontier.remove(latest)
            equation = None if latest in kept else maker(latest)
        return None

    def activation(output: Var) -> tuple[Var, list[JaxprEqn]] | None:
        found = region(output)
        if found is None or all(_is_affine(x, active) for x in found[1]):
            return None
        variable, body = found
        # One after the other, as the minimum and the maximum of a clip.
        before = None if variable in kept else activation(variable)
        return (before[0], before[1] + body) if before else (variable, body)

    found, needed = {}, set(kept)
    for equation in reversed(equations):
        outputs = needed.intersection(equation.outvars)
        if not outputs:
            continue
        output = equation.outvars[0]
        body = None
        if jnp.issubdtype(output.aval.dtype, jnp.floating):
            body = activation(output)
        if body is None or _is_guard(output, uses, active):
            needed |= set(active_inputs(equation, active))
        else:
            needed.add(body[0])
            found[output] = _activation(output, *body, active)
    return found


def _activation(
    output: Var, variable: Var, body: list[JaxprEqn], active: Collection[Var]
) -> Activation:
    atoms = [x for e in body for x in e.invars if isinstance(x, Var)]
    constants = [x for x in dict.fromkeys(atoms) if x not in active]
    inputs = (variable, *constants)
    primitives = [x for equation in body for x in _primitives(equation, active)]
    names = {name for name, _ in primitives}
    product = any(name in ("mul", "div") and count > 1 for name, count in primitives)
    return Activation(
        inputs=inputs,
        function=partial(_evaluate, tuple(body), inputs, output),
        rectifies=not names.isdisjoint(_RECTIFYING)
        or (product and not names.isdisjoint(_SATURATING)),
        has_pole=not names.isdisjoint(_POLES),
    )


def _evaluate(
    body: tuple[JaxprEqn, ...], inputs: tuple[Var, ...], output: Var, *values: Array
) -> Array:
    known: dict[Var, Any] = dict(zip(inputs, values, strict=True))
    for equation in body:
        arguments = [known[x] if isinstance(x, Var) else x.val for x in equation.invars]
        known[equation.outvars[0]] = bind(equation, arguments)[0]
    return known[output]


def _primitives(equation: JaxprEqn, active: Collection[Var]) -> list[tuple[str, int]]:
    """The active primitives of an equation and in it, and of how many active inputs."""
    if equation.primitive.name not in _CALLS:
        return [(equation.primitive.name, len(_active_places(equation, active)))]
    body = equation.params["call_jaxpr"]
    inside = {
        inner
        for inner, outer in zip(body.jaxpr.invars, equation.invars, strict=True)
        if isinstance(outer, Var) and outer in active
    }
    equations, _ = unrolled(body)
    inside = _depending(equations, inside)
    reached = [inner for inner in equations if active_inputs(inner, inside)]
    return [one for inner in reached for one in _primitives(inner, inside)]


def _depending(equations: Sequence[JaxprEqn], start: set[Var]) -> set[Var]:
    """The variables that depend on some, and those themselves."""
    found = set(start)
    for equation in equations:
        if active_inputs(equation, found):
            found |= set(equation.outvars)
    return found


def _active_places(equation: JaxprEqn, active: Collection[Var]) -> list[int]:
    return [
        i
        for i, atom in enumerate(equation.invars)
        if isinstance(atom, Var) and atom in active
    ]


def _is_affine(equation: JaxprEqn, active: Collection[Var]) -> bool:
    name, places = equation.primitive.name, _active_places(equation, active)
    if name == "mul":
        return len(places) == 1
    if name == "div":
        return places == [0]
    if name == "select_n":
        return 0 not in places
    return name in _AFFINE


def _is_guard(
    variable: Var, uses: Mapping[Var, list[JaxprEqn]], active: Collection[Var]
) -> bool:
    """Whether a variable serves for nothing but a root, a logarithm or a division.

    Or has no gradient, as the maximum that a softmax takes away.
    """

    def guards(equation: JaxprEqn, variable: Var) -> bool:
        name = equation.primitive.name
        if name in ("sqrt", "rsqrt", "log", "stop_gradient"):
            return True
        if name == "div" and equation.invars[0] is not variable:
            return True
        only = len(_active_places(equation, active)) == 1
        passes = name in ("reshape", "broadcast_in_dim") or _is_affine(equation, active)
        return only and passes and _is_guard(equation.outvars[0], uses, active)

    users = uses.get(variable, [])
    return bool(users) and all(guards(equation, variable) for equation in users)
