"""Steps whose figures are not finite: found, told, left out, kept to be looked at."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from saliency_jax.errors import InputError
from saliency_jax.training.classifier_step import Metrics
from saliency_jax.training.state import NETWORKS, TrainState
from saliency_jax.types import Batch, PyTree

POLICIES = ("stop", "skip")
SPOILED = "spoiled"
"""The metric that says which of `PARTS` is not finite: its number from 1, or 0."""

PARTS = tuple(
    words
    for name in NETWORKS
    for words in (f"an updated weight of the {name}", f"the optimiser of the {name}")
)
PATIENCE = 20
"""So many steps in a row, all of them left out, end a run."""


def watched(
    step: Callable[..., tuple[TrainState, Metrics]], skip: bool
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Makes a step tell, as the metric `finite`, whether all that it gave is finite.

    Losses are looked at, and of what is trained the weights and batch statistics, which
    a gradient that is not finite has spoiled, and the optimiser: a second moment of
    Adam that has overflowed keeps its weight where it is, finite, for ever. The pool's
    weights are the classifier's, of this step or an earlier one.

    Args:
      step: `(state, batch, *form) -> (state, metrics)`, pure.
      skip: whether such a step changes nothing but the count of steps. Networks and
        pool are then held twice while a step runs.

    Returns:
      A step of the same form; `finite` is 1 or 0, and the metric `SPOILED` says where.
    """

    def watched_step(
        state: TrainState, batch: Batch, *form: object
    ) -> tuple[TrainState, Metrics]:
        after, metrics = step(state, batch, *form)
        parts = []
        for name in NETWORKS:
            net = getattr(after, name)
            is_trained = net is not None and net.opt_state != ()
            parts += [net.variables, net.opt_state] if is_trained else [(), ()]
        whole = jnp.stack([_all_finite(part) for part in parts])
        finite = _all_finite(metrics) & whole.all()
        spoiled = jnp.where(whole.all(), 0, 1 + jnp.argmin(whole))
        if skip:
            before = state.replace(step=after.step)
            after = jax.tree.map(
                lambda new, old: jnp.where(finite, new, old), after, before
            )
        told = {"finite": finite, SPOILED: spoiled}
        return after, metrics | {n: v.astype(jnp.float32) for n, v in told.items()}

    return watched_step


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    finite = jnp.ones((), bool)
    for leaf in jax.tree.leaves(tree):
        finite &= jnp.all(jnp.isfinite(leaf))
    return finite


def figures(fetched: Sequence[dict[str, ArrayLike]]) -> list[dict[str, ArrayLike]]:
    """The metrics of the steps that are finite, as a run files them."""
    return [
        {name: value for name, value in metrics.items() if name != SPOILED}
        for metrics in fetched
        if metrics["finite"]
    ]


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
    bad = [name for name, value in fetched[index].items() if not np.isfinite(value)]
    what = bad[0] if bad else PARTS[int(fetched[index][SPOILED]) - 1]
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
        f"{what} is not finite at step {step}, whose batch is kept in {path}: {advice}"
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
