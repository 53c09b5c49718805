"""Functions as pytrees, told apart by the arrays that they close over.

`jax.jit` knows a function by its identity. One that closes over weights stays the same
function when these are replaced, so that maps of the old weights would come back.
"""

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

_DEPTH = 4  # of objects that hold objects, as a trainer holds a state


def as_partial(function: Callable) -> Partial:
    """A function as a pytree.

    Args:
      function: its arrays, if it is a pytree already, are the leaves. Other functions
        have none; what they close over is a constant of jitted code, which is compiled
        anew where another array has come in the place of one of these. Numbers, and
        NumPy arrays that are changed in place, are not looked at.
    """
    if jax.tree_util.all_leaves([function]):
        return Partial(_Closure(function))
    return Partial(_call, function)


def _call(function: Callable, *arguments: Any) -> Any:
    return function(*arguments)


class _Closure:
    """A function that equals itself only as long as it holds the same arrays."""

    def __init__(self, function: Callable):
        self.function = function
        # Kept, so that no other array can get the identity of one of them.
        self.arrays = tuple(_arrays_of(function))

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __eq__(self, other: Any) -> bool:
        return (
            isinstance(other, _Closure)
            and self.function == other.function
            and [*map(id, self.arrays)] == [*map(id, other.arrays)]
        )

    def __hash__(self) -> int:  # a linen module with variables has no hash
        return hash(tuple(map(id, self.arrays)))


def _arrays_of(function: Callable) -> Iterator[Any]:
    """The arrays that a function reads besides its arguments, as far as can be seen."""
    seen, pending = set(), [(0, function)]
    while pending:
        depth, held = pending.pop()
        if id(held) in seen:
            continue
        seen.add(id(held))
        for leaf in jax.tree.leaves(held):
            if isinstance(leaf, jax.Array | np.ndarray):
                # A tracer belongs to code that is traced once.
                if not isinstance(leaf, jax.core.Tracer):
                    yield leaf
            elif depth < _DEPTH:
                pending += [(depth + 1, part) for part in _parts(leaf)]


def _parts(held: Any) -> list[Any]:
    """What something that is no pytree refers to."""
    if isinstance(held, types.ModuleType | type):
        return []
    if isinstance(held, types.MethodType):
        return [held.__func__, held.__self__]
    if isinstance(held, functools.partial):
        return [held.func, held.args, held.keywords]
    if isinstance(held, types.FunctionType):
        return [*_nonlocals(held), *_globals(held)]
    call = type(held).__call__ if callable(held) else None
    parts = [*getattr(held, "__dict__", {}).values()]
    return [call, *parts] if isinstance(call, types.FunctionType) else parts


def _nonlocals(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that nothing has been given yet
            continue


def _globals(function: types.FunctionType) -> Iterator[Any]:
    """The globals of its module that it names; a library's stay what they are."""
    if "site-packages" in function.__code__.co_filename:
        return
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [x for x in code.co_consts if isinstance(x, types.CodeType)]
        for name in code.co_names:
            if name in function.__globals__:
                yield function.__globals__[name]
