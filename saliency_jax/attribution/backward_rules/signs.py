"""Which variables of a program are never negative, whatever the image."""

from collections.abc import Collection, Sequence

from jax.extend.core import JaxprEqn, Literal, Var

from saliency_jax.attribution.program import Atom, Program, flattened

# Not negative if none of their inputs is.
_KEEPING = (
    *("add", "add_any", "broadcast_in_dim", "concatenate", "convert_element_type"),
    *("copy", "div", "max", "min", "mul", "name", "pad", "reduce_max", "reduce_sum"),
    *("reduce_window_max", "reduce_window_sum", "reshape", "rev", "slice", "squeeze"),
    *("transpose",),
)
_ALWAYS = ("abs", "erfc", "exp", "logistic", "sqrt", "square")


def non_negative(program: Program) -> frozenset[Var]:
    """Finds variables that are never negative, such as those after a ReLU.

    There may be more: weights, for one, count as unknown.
    """
    return _non_negative(program.equations, ())


def _non_negative(
    equations: Sequence[JaxprEqn], given: Collection[Var]
) -> frozenset[Var]:
    found = set(given)

    def is_known(atom: Atom) -> bool:
        if isinstance(atom, Literal):
            return bool(atom.val >= 0)
        return atom in found

    for equation in equations:
        name, inputs = equation.primitive.name, equation.invars
        if name == "max":
            known = any(map(is_known, inputs))
        elif name == "clamp":
            known = is_known(inputs[0])
        elif name == "custom_jvp_call":
            body = flattened(equation.params["call_jaxpr"]).jaxpr
            pairs = zip(body.invars, inputs, strict=True)
            inside = {inner for inner, outer in pairs if is_known(outer)}
            known = body.outvars[0] in _non_negative(body.eqns, inside)
        else:
            known = name in _ALWAYS or (name in _KEEPING and all(map(is_known, inputs)))
        if known:
            found.add(equation.outvars[0])
    return frozenset(found)
