"""What is timed, and how: in turn, round after round."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from saliency_jax.errors import InputError

Answer = dict[str, np.ndarray]

# Mean differences, relative to the mean. Rounding alone makes up to a thousandth in
# float32, in the masks of a ResNet-50 after the first step of Adam, which goes as far
# along a small gradient as along a large one.
TOLERANCES = {"float32": 1e-2, "bfloat16": 0.1}
# The highest of nearly equal logits says which images count for the masker. It may be
# another one in bfloat16, where so only these are compared.
_WITHOUT_GATES = ("output", "loss", "clean_loss", "masked_loss")


class Contestant(NamedTuple):
    """One library's way of computing a row.

    Attributes:
      name: in the table.
      dtype: of the computation, one of `TOLERANCES`.
      first: compiles; returns what is to agree, by name.
      run: computes so many times, and returns when all is computed.
    """

    name: str
    dtype: str
    first: Callable[[], Answer]
    run: Callable[[int], None]


def check(name: str, found: Answer, expected: Answer, dtype: str) -> float:
    """Checks that an answer is the expected one, but for rounding.

    Args:
      name: of whose it is.
      found: the answer; names are such as "clean_loss of step 0".
      expected: of the same names; other names of it are not looked at.
      dtype: that it was computed in.

    Returns:
      The greatest difference.

    Raises:
      InputError: another answer, whose time would say nothing.
    """
    differences = {}
    for key, value in found.items():
        if dtype != "float32" and key.split(" of ")[0] not in _WITHOUT_GATES:
            continue
        scale = max(float(np.abs(expected[key]).mean()), 1e-2)
        differences[key] = float(np.abs(value - expected[key]).mean()) / scale
    # Written so that a difference that is no number is one.
    wrong = [k for k, v in differences.items() if not v <= TOLERANCES[dtype]]
    if wrong:
        told = ", ".join(
            f"{key} {np.mean(found[key]):.6g} instead of {np.mean(expected[key]):.6g}"
            for key in wrong
        )
        raise InputError(
            f"{name} computes something else than saliency_jax in float32, so it is "
            f"not timed: {told}"
        )
    return max(differences.values())


def seconds_of_rounds(
    contestants: Sequence[Contestant], rounds: int, steps: int, least: float
) -> dict[str, list[float]]:
    """Times all contestants in turn, which have been compiled.

    Args:
      contestants: of a row.
      rounds: of measurements.
      steps: of a measurement; a multiple where it is shorter than `least`.
      least: seconds of a measurement.

    Returns:
      Of each contestant the seconds of a step in each round.
    """
    counts = []
    for contestant in contestants:
        seconds = _seconds(contestant, steps)
        counts.append(steps * max(1, round(least / seconds)))
    found: dict[str, list[float]] = {c.name: [] for c in contestants}
    for _ in range(rounds):
        for contestant, count in zip(contestants, counts, strict=True):
            found[contestant.name].append(_seconds(contestant, count) / count)
    return found


def _seconds(contestant: Contestant, count: int) -> float:
    # Not counted: what the contestant before has given back to the system has to be
    # got from it again, which took longer than a step.
    contestant.run(2)
    start = time.perf_counter()
    contestant.run(count)
    return time.perf_counter() - start
