"""Functions as pytrees, whose leaves are the arrays that they close over.

`jax.jit` knows a function by its identity, and takes what it closes over for constants:
of weights that were replaced the maps of the old ones would come back.
"""

import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.tree_util import Partial


def as_partial(function: Callable) -> Partial:
    """A function as a pytree: its arrays, if it is one already, are its leaves."""
    if jax.tree_util.all_leaves([function]):
        return Partial(function)
    return Partial(_call, function)


def _call(function: Callable, *arguments: Any) -> Any:
    return function(*arguments)


def with_arrays(function: Callable, argument: jax.ShapeDtypeStruct) -> Partial:
    """A function as a pytree, with the arrays that it closes over now as its leaves.

    It costs a trace, and nothing compiles anew when other arrays of the same shapes
    have come in the place of these. Numbers are constants, as in `jax.jit`.

    Args:
      function: of one array; one that is a pytree has its leaves already.
      argument: what it is traced with.
    """
    if not jax.tree_util.all_leaves([function]):
        return as_partial(function)
    traced, _ = _traced(function, argument)
    # On the device: those in NumPy would go there at every call.
    return Partial(_OfArrays(function), *map(jnp.asarray, traced.consts))


def has_arrays(function: Partial) -> bool:
    """Whether `with_arrays` made it."""
    return isinstance(function.func, _OfArrays)


def _traced(function: Callable, argument: Any) -> tuple[ClosedJaxpr, Any]:
    # JAX keeps the traces of a function; of a new one it has none.
    anew = lambda argument: function(argument)
    return jax.make_jaxpr(anew, return_shape=True)(argument)


class _OfArrays:
    """A function of the arrays that another one closes over, and of its argument."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        *arrays, argument = arguments
        traced, result = _traced(self.function, argument)
        kinds = [(x.aval.shape, x.aval.dtype) for x in traced.jaxpr.constvars]
        # Else some depend on the argument's shape, and belong to this trace.
        if kinds != [(x.shape, x.dtype) for x in arrays]:
            arrays = traced.consts
        found = jaxpr_as_fun(ClosedJaxpr(traced.jaxpr, arrays))(argument)
        return jax.tree.unflatten(jax.tree.structure(result), found)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _OfArrays) and _is_same(self.function, other.function)

    def __hash__(self) -> int:
        return hash(type(self))


def _is_same(one: Callable, other: Callable) -> bool:
    """Whether two are one function; a method is a new object wherever it is read."""
    if isinstance(one, types.MethodType) and isinstance(other, types.MethodType):
        return one.__self__ is other.__self__ and one.__func__ is other.__func__
    return one is other
