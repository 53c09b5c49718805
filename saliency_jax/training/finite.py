"""Steps whose figures are not finite: found, told, left out, kept to be looked at."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from saliency_jax.errors import InputError
from saliency_jax.training.classifier_step import Metrics
from saliency_jax.training.state import NETWORKS, TrainState
from saliency_jax.types import Batch

POLICIES = ("stop", "skip")
UPDATE = "an updated weight"
PATIENCE = 20
"""So many steps in a row, all of them left out, end a run."""


def watched(
    step: Callable[..., tuple[TrainState, Metrics]], skip: bool
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Makes a step tell, as the metric `finite`, whether all that it gave is finite.

    Losses are looked at, and the weights and batch statistics of what is trained, which
    a gradient that is not finite has spoiled. The pool's are theirs, of this step or an
    earlier one.

    Args:
      step: `(state, batch, *form) -> (state, metrics)`, pure.
      skip: whether such a step changes nothing but the count of steps. Networks and
        pool are then held twice while a step runs.

    Returns:
      A step of the same form; `finite` is 1 or 0.
    """

    def watched_step(
        state: TrainState, batch: Batch, *form: object
    ) -> tuple[TrainState, Metrics]:
        after, metrics = step(state, batch, *form)
        nets = [net for name in NETWORKS if (net := getattr(after, name)) is not None]
        trained = [net.variables for net in nets if net.opt_state != ()]
        finite = jnp.ones((), bool)
        for leaf in jax.tree.leaves((metrics, trained)):
            finite &= jnp.all(jnp.isfinite(leaf))
        if skip:
            before = state.replace(step=after.step)
            after = jax.tree.map(
                lambda new, old: jnp.where(finite, new, old), after, before
            )
        return after, metrics | {"finite": finite.astype(jnp.float32)}

    return watched_step


def in_a_row(fetched: Sequence[dict[str, ArrayLike]], before: int) -> int:
    """How many of the latest steps, one after the other, are not finite.

    Args:
      fetched: the metrics of the latest steps.
      before: what it was before them.
    """
    for metrics in fetched:
        before = 0 if metrics["finite"] else before + 1
    return before


def error(
    workdir: Path,
    first_step: int,
    fetched: Sequence[dict[str, ArrayLike]],
    data: Iterator[Batch],
    skip: bool,
) -> InputError:
    """Keeps the batch of the first step that is not finite; what to tell its user.

    Args:
      workdir: of the run.
      first_step: of `fetched`.
      fetched: the metrics of steps in a row, from the device; not all are finite.
      data: an iterator of numpy batches, at the first step's. The step's own batch goes
        to a file, this process's part of it, an array for each field.
      skip: whether such steps are left out, and have been too many in a row.
    """
    index = next(i for i, metrics in enumerate(fetched) if not metrics["finite"])
    bad = (name for name, value in fetched[index].items() if not np.isfinite(value))
    for _ in range(index):
        next(data)
    step = first_step + index
    suffix = f"_process_{jax.process_index()}" if jax.process_count() > 1 else ""
    path = workdir / f"not_finite_at_step_{step}{suffix}.npz"
    np.savez_compressed(path, **next(data))
    advice = "lower the learning rate and start again in another workdir"
    if not skip:
        advice += ", or leave such steps out with --config.not_finite=skip"
    return InputError(
        f"{next(bad, UPDATE)} is not finite at step {step}, whose batch is kept in "
        f"{path}: {advice}"
    )


def check_memory(policy: str, pool_memory: str) -> None:
    """Checks that steps can be left out with the pool where it is.

    Raises:
      InputError: when they cannot.
    """
    if policy == "skip" and pool_memory != "device":
        raise InputError(
            f"config.not_finite = 'skip' needs the pool on the device, and "
            f"config.casm.pool_memory is {pool_memory!r}: choose 'stop', or 'device'"
        )
