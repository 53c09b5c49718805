"""What is measured, and how a row comes about."""

import contextlib
import dataclasses
import gc
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch

from benchmarks.versus_torch import ours, theirs
from benchmarks.versus_torch.contestant import Contestant, check, seconds_of_rounds
from benchmarks.versus_torch.problem import Problem

# Of each row, ours and PyTorch's.
ROWS: dict[str, tuple[Callable[..., Contestant], Callable[..., Contestant]]] = {
    "forward": (ours.forward, theirs.forward),
    "classifier": (ours.classifier_step, theirs.classifier_step),
    "casm": (ours.casm_training, theirs.casm_training),
    "masks": (ours.masks, theirs.masks),
}


class Device(NamedTuple):
    """Where both libraries compute, and how.

    Attributes:
      torch: its name in PyTorch.
      dtype: of ours, and of PyTorch at its best.
      batch_sizes: of each row.
    """

    torch: str
    dtype: str
    batch_sizes: dict[str, tuple[int, ...]]


DEVICES = {
    "cpu": Device(
        "cpu",
        "float32",
        {"forward": (8,), "classifier": (8,), "casm": (4,), "masks": (1, 8)},
    ),
    "gpu": Device(
        "cuda",
        "bfloat16",
        {
            "forward": (128,),
            "classifier": (128,),
            "casm": (128,),
            "masks": (1, 8, 64, 256),
        },
    ),
}


def measure(
    row: str,
    problem: Problem,
    device: Device,
    *,
    with_compiled: bool,
    rounds: int,
    steps: int,
    least: float,
) -> dict[str, Any]:
    """Checks and times a row.

    Args:
      row: one of `ROWS`.
      problem: its sizes.
      device: where.
      with_compiled: whether PyTorch's best may be compiled.
      rounds: see `seconds_of_rounds`.
      steps: likewise.
      least: likewise.

    Returns:
      Of each contestant the `seconds` of a step in each round, their `median`, and the
      `difference` of its answer; who is `ours`, `eager`, `best`; and the ratios to the
      last two, `beside_eager` and `beside_best`: the median, the least, the most.

    Raises:
      InputError: a contestant computes something else.
    """
    make_ours, make_theirs = ROWS[row]
    labels = theirs.labels_of(problem, device.torch)
    forms = [theirs.PLAIN, *theirs.best_forms(device.dtype, with_compiled)]
    contestants = [make_ours(problem, labels, device.dtype)]
    contestants += [make_theirs(problem, labels, f, device.torch) for f in forms]
    reference = None
    if device.dtype != "float32":
        reference = make_ours(problem, labels, "float32")
    differences = _check_all(row, contestants, reference)
    del reference
    seconds = seconds_of_rounds(contestants, rounds, steps, least)
    del contestants
    _release()
    medians = {name: statistics.median(of) for name, of in seconds.items()}
    best = min((form.name for form in forms[1:]), key=medians.__getitem__)
    return {
        "row": row,
        **dataclasses.asdict(problem),
        "ours": ours.NAME,
        "eager": theirs.PLAIN.name,
        "best": best,
        "median": medians,
        "beside_eager": _ratio(seconds[theirs.PLAIN.name], seconds[ours.NAME]),
        "beside_best": _ratio(seconds[best], seconds[ours.NAME]),
        "difference": differences,
        "seconds": seconds,
    }


def _check_all(
    row: str, contestants: Sequence[Contestant], reference: Contestant | None
) -> dict[str, float]:
    """Compiles all contestants, and compares their answers with the reference's.

    The reference is the first contestant where none is given.
    """
    if reference is None:
        expected = contestants[0].first()
    else:
        # A GPU rounds what enters a float32 product to ten bits, unless it is told.
        with jax.default_matmul_precision("highest"):
            expected = reference.first()
    differences = {}
    for contestant in contestants:
        is_expected = reference is None and contestant is contestants[0]
        with _full_precision(contestant.dtype):
            found = expected if is_expected else contestant.first()
        name = f"{row}: {contestant.name}"
        differences[contestant.name] = check(name, found, expected, contestant.dtype)
    return differences


def _full_precision(dtype: str) -> contextlib.AbstractContextManager:
    """Has PyTorch's float32 convolutions on a GPU compute in float32."""
    if dtype != "float32" or not torch.cuda.is_available():
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> tuple[float, ...]:
    ratios = np.divide(theirs, ours)
    return tuple(map(float, (np.median(ratios), ratios.min(), ratios.max())))


def _release() -> None:
    """Frees the memory of a row for the next one."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
