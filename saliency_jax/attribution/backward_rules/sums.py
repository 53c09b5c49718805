"""The sums of a traced program: what is added up to one variable.

Backward rules share a sum's relevance among its terms. JAX writes a sum of several
terms as a chain of binary ones, whose intermediate results mean nothing.
"""

from collections import Counter
from typing import NamedTuple

from jax.extend.core import JaxprEqn, Var

from saliency_jax.attribution.program import Atom, Program

_SIGNS = {"add": (1, 1), "add_any": (1, 1), "sub": (1, -1)}


class Term(NamedTuple):
    """A term of a sum.

    Attributes:
      atom: a variable or a literal; an axis of it may be 1 where the sum's is not, or
        it is a number.
      sign: 1, or -1 where it is subtracted.
    """

    atom: Atom
    sign: int


class Sum(NamedTuple):
    """A sum.

    Attributes:
      output: the variable that it gives.
      active: the terms that depend on the images. A residual sum has two, a convolution
        with its bias one, a depthwise convolution as nine shifted products nine.
      constant: the other terms, such as a bias.
    """

    output: Var
    active: tuple[Term, ...]
    constant: tuple[Term, ...]


def find_sums(program: Program) -> dict[Var, Sum]:
    """Finds all sums that depend on the images, by the variable that they give.

    A sum whose result is used once, in another sum, is a part of that. One that a tap
    or the logits are, which somebody may ask for, is a sum of its own.
    """
    uses = count_uses(program)
    binary = {
        equation.outvars[0]: equation
        for equation in program.equations
        if equation.primitive.name in _SIGNS and program.is_active(equation.outvars[0])
    }
    parts = {
        atom
        for equation in binary.values()
        for atom in equation.invars
        if isinstance(atom, Var) and atom in binary and uses[atom] == 1
    }
    sums = {}
    for output, equation in binary.items():
        if output in parts:
            continue
        terms = _terms(equation, binary, parts)
        active = tuple(term for term in terms if program.is_active(term.atom))
        constant = tuple(term for term in terms if not program.is_active(term.atom))
        sums[output] = Sum(output, active, constant)
    return sums


def count_uses(program: Program) -> Counter[Var]:
    """How often each variable is read; that it is the logits or a tap counts too."""
    read = [atom for equation in program.equations for atom in equation.invars]
    read += [program.logits, *program.taps]
    return Counter(atom for atom in read if isinstance(atom, Var))


def _terms(
    equation: JaxprEqn, binary: dict[Var, JaxprEqn], parts: set[Var]
) -> list[Term]:
    """The terms of a sum from left to right."""
    found = []
    # A stack rather than recursion: a chain may be as long as a user's sum.
    pending = [Term(equation.outvars[0], 1)]
    while pending:
        term = pending.pop()
        if term.atom is not equation.outvars[0] and (
            not isinstance(term.atom, Var) or term.atom not in parts
        ):
            found.append(term)
            continue
        inner = binary[term.atom]
        signs = _SIGNS[inner.primitive.name]
        pending += [
            Term(atom, term.sign * sign)
            for atom, sign in reversed(list(zip(inner.invars, signs, strict=True)))
        ]
    return found
