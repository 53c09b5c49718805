"""The part of a program that relevance flows through, from a score back to a layer.

Linear equations pass it on as they pass a gradient. What is known of the others is
listed here, and what is not known is refused with its name.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal, Var

from saliency_jax.attribution.backward_rules.activations import Activation
from saliency_jax.attribution.program import PRODUCTS, Atom, Program, place
from saliency_jax.errors import InputError

# Linear, and no number of the result is the sum of several.
REARRANGING = (
    *("broadcast_in_dim", "convert_element_type", "copy", "copy_p", "concatenate"),
    *("dynamic_slice", "dynamic_update_slice", "gather", "name", "neg"),
    *("optimization_barrier", "pad", "reduce_precision", "reshape", "rev"),
    *("select_n", "sharding_constraint", "slice", "split", "squeeze", "transpose"),
)
SUMMING = ("add", "add_any", "sub", "cumsum", "reduce_sum", "reduce_window_sum")
# Their gradient goes to the greatest or the smallest.
CHOOSING = (
    *("max", "min", "reduce_max", "reduce_min"),
    *("reduce_window_max", "reduce_window_min"),
)


class Flow(NamedTuple):
    """What relevance flows through.

    Attributes:
      equations: between the layer and the score, in order; those inside of activations
        are left out.
      held: equations of the program that it does not flow through, although a gradient
        does: their results, scales of normalisations, count as constants.
      carrying: the variables of the program that relevance can reach.
    """

    equations: tuple[JaxprEqn, ...]
    held: tuple[JaxprEqn, ...]
    carrying: frozenset[Var]

    def sources(self, equation: JaxprEqn) -> list[Var]:
        """The inputs that relevance flows to."""
        return sources_of(equation, self.carrying)


def carries(atom: Atom, carrying: Collection[Var]) -> bool:
    """Whether an atom is a variable of that collection; literals cannot be hashed."""
    return not isinstance(atom, Literal) and atom in carrying


def sources_of(equation: JaxprEqn, carrying: Collection[Var]) -> list[Var]:
    """The inputs that are of that collection, one as often as it is read."""
    return [x for x in equation.invars if carries(x, carrying)]


def find_flow(
    program: Program, start: Var, wanted: Atom, activations: Mapping[Var, Activation]
) -> Flow:
    """Finds what relevance flows through.

    Args:
      program: a classifier.
      start: of the layer whose relevance is asked for.
      wanted: what is explained.
      activations: of the program.
    """
    readers: dict[Var, list[JaxprEqn]] = {}
    for equation in program.equations:
        for atom in equation.invars:
            if not isinstance(atom, Literal):
                readers.setdefault(atom, []).append(equation)

    held = [x for x in program.equations if _is_held(x, readers)]
    closed = {x for equation in held for x in equation.outvars}

    def reached_from(start: Var) -> set[Var]:
        reached = {start}
        for equation in program.equations:
            if not closed.isdisjoint(equation.outvars) or not _has_gradient(equation):
                continue
            if any(carries(atom, reached) for atom in equation.invars):
                reached |= set(equation.outvars)
        return reached

    carrying, from_start = reached_from(program.images), reached_from(start)
    needed, found = {wanted} - {start}, []
    for equation in reversed(program.equations):
        outputs = from_start.intersection(equation.outvars)
        if needed.isdisjoint(outputs) or start in outputs:
            continue
        found.append(equation)
        activation = activations.get(equation.outvars[0])
        inputs = equation.invars if activation is None else activation.inputs[:1]
        needed |= {x for x in inputs if carries(x, from_start)}
    return Flow(tuple(reversed(found)), tuple(held), frozenset(carrying))


def refuse_unknown(method: str, flow: Flow, known: Callable[[JaxprEqn], bool]) -> None:
    """Refuses a classifier that a method has no rule for, with all that it lacks.

    Raises:
      InputError: names the primitives and says what to do.
    """
    unknown = [x for x in flow.equations if not known(x)]
    if unknown:
        names = dict.fromkeys(_described(equation) for equation in unknown)
        raise InputError(
            f"{method} has no rule for {', '.join(names)}, through which the explained "
            f"score depends on the images: explain logits rather than probabilities, "
            f"pass a layer behind it, or use a method that needs gradients only"
        )


def is_linear(equation: JaxprEqn, flow: Flow) -> bool:
    """Whether it is linear in all together that relevance flows to."""
    name, sources = equation.primitive.name, flow.sources(equation)
    if name in PRODUCTS or name == "mul":
        return len(sources) == 1
    if name == "div":
        return not carries(equation.invars[1], flow.carrying)
    return name in REARRANGING or name in SUMMING


def _described(equation: JaxprEqn) -> str:
    name = equation.primitive.name
    if name in PRODUCTS or name == "mul":
        return f"{place(equation)} of two activations"
    return f"{place(equation)} by an activation" if name == "div" else place(equation)


def _has_gradient(equation: JaxprEqn) -> bool:
    """Whether it gives real or complex numbers, not integers or truth values alone."""
    return any(jnp.issubdtype(x.aval.dtype, jnp.inexact) for x in equation.outvars)


def _is_held(equation: JaxprEqn, readers: Mapping[Var, list[JaxprEqn]]) -> bool:
    """Whether it gives the scale of a normalisation, 1 / sqrt(variance).

    Ali et al., XAI for transformers (arXiv 2202.07304): relevance is conserved if the
    scale counts as a constant.
    """
    if equation.primitive.name == "sqrt":
        return _only_divides(equation.outvars[0], readers)
    return equation.primitive.name in ("rsqrt", "stop_gradient")


def _only_divides(variable: Var, readers: Mapping[Var, list[JaxprEqn]]) -> bool:
    def divides(equation: JaxprEqn) -> bool:
        if equation.primitive.name == "div":
            return equation.invars[0] is not variable
        passes = ("reshape", "broadcast_in_dim", "squeeze", "add", "max", "mul")
        return equation.primitive.name in passes and _only_divides(
            equation.outvars[0], readers
        )

    return variable in readers and all(map(divides, readers[variable]))
