"""A cost measured over a range of values, and the exponent that it grows with."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}
"""Processor time is of all threads of the process, and of no other process."""


class Curve(NamedTuple):
    """Something that is done at each value of a quantity.

    Attributes:
      what: is done by a call.
      takes: the calls, by value, from the least; they return when all is done.
    """

    what: str
    takes: Mapping[int, Callable[[], object]]


class Measured(NamedTuple):
    """What a curve has cost.

    Attributes:
      what: was done.
      unit: of the costs.
      values: of the quantity, from the least.
      costs: of each round, one for each value.
    """

    what: str
    unit: str
    values: Sequence[int]
    costs: Sequence[Sequence[float]]

    def medians(self) -> list[float]:
        """Over the rounds, for each value."""
        return [
            statistics.median(of_value) for of_value in zip(*self.costs, strict=True)
        ]

    def exponent(self) -> float:
        """Of the power law that fits the medians best."""
        return fitted_exponent(self.values, self.medians())

    def last_exponents(self) -> list[float]:
        """Between the two largest values, in each round."""
        return [fitted_exponent(self.values[-2:], costs[-2:]) for costs in self.costs]

    def last_exponent(self) -> float:
        """The median of `last_exponents`."""
        return statistics.median(self.last_exponents())


def fitted_exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent `e` of `cost = c * value ** e`, by least squares of logarithms.

    Args:
      values: at least two different ones, positive.
      costs: as many, positive.
    """
    x, y = np.log(values), np.log(costs)
    x = x - x.mean()
    return float(x @ (y - y.mean()) / (x @ x))


def measure(
    curves: Sequence[Curve], *, clock: str, rounds: int, seconds: float
) -> list[Measured]:
    """Measures curves side by side: every round takes all values of all in turn.

    Args:
      curves: each call is made twice before, which compiles, and says how often it is
        repeated.
      clock: one of `CLOCKS`.
      rounds: of measurements.
      seconds: least time of a measurement.

    Returns:
      Milliseconds of a call.
    """
    now = CLOCKS[clock]
    repeats = [
        {value: _repeats(take, seconds) for value, take in curve.takes.items()}
        for curve in curves
    ]
    costs: list[list[list[float]]] = [[] for _ in curves]
    for _ in range(rounds):
        for curve, times, of_curve in zip(curves, repeats, costs, strict=True):
            of_round = []
            for value, take in curve.takes.items():
                started = now()
                for _ in range(times[value]):
                    take()
                of_round.append(1e3 * (now() - started) / times[value])
            of_curve.append(of_round)
    return [
        Measured(curve.what, "ms", list(curve.takes), of_curve)
        for curve, of_curve in zip(curves, costs, strict=True)
    ]


def _repeats(take: Callable[[], object], seconds: float) -> int:
    take()
    started = time.perf_counter()
    take()
    return max(1, round(seconds / (time.perf_counter() - started)))
