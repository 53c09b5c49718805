"""Checkpoints of a run, and the only importer of orbax.

    <workdir>/checkpoints/last/<step>/{networks,optimisers,data,meta}
    <workdir>/checkpoints/best/<step>/{networks,meta}
    <workdir>/checkpoints/pool/<step>.safetensors

`networks` holds parameters and batch statistics alone, so that loading a masker reads
neither optimisers nor pool. A pool of thirty ResNet-50s is 3 GB, but its entries never
change: each is written once, when the first checkpoint after its birth is saved, and
deleted when no kept checkpoint names it. A checkpoint therefore writes only the slots
filled since the one before, and the disk holds at most `slots` entries for each kept
checkpoint and the one before them, nearly all of them shared.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import safetensors
import safetensors.numpy

from saliency_jax.errors import InputError
from saliency_jax.pool import ClassifierPool
from saliency_jax.training.state import NetState, TrainState
from saliency_jax.types import PyTree


def checkpoint_folder(workdir: Path, kind: str) -> Path:
    """Where a run keeps its "last" or "best" checkpoints."""
    return Path(workdir).resolve() / "checkpoints" / kind


def saved_steps(workdir: Path, kind: str) -> list[int]:
    """The steps of the committed checkpoints of a kind, in order."""
    folder = checkpoint_folder(workdir, kind)
    if not folder.is_dir():
        return []
    return sorted(ocp.utils.checkpoint_steps(folder))


def abstract(tree: PyTree, sharding: jax.sharding.Sharding | None = None) -> PyTree:
    """The shapes and dtypes of a tree, as restoring wants them."""

    def describe(leaf: Any) -> jax.ShapeDtypeStruct:
        place = getattr(leaf, "sharding", None) if sharding is None else sharding
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return jax.tree.map(describe, tree)


def _networks(state: TrainState) -> dict[str, PyTree]:
    nets = {"classifier": state.classifier, "masker": state.masker}
    return {name: net.variables for name, net in nets.items() if net is not None}


def _optimisers(state: TrainState) -> dict[str, PyTree]:
    nets = {"classifier": state.classifier, "masker": state.masker}
    return {name: net.opt_state for name, net in nets.items() if net is not None}


def size_in_bytes(tree: PyTree) -> int:
    """The bytes of a tree's arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


class Checkpoints:
    """A run's checkpoints, written asynchronously. Use as a context manager."""

    def __init__(self, workdir: Path, keep_last: int):
        """Opens (and makes) the folders.

        Args:
          workdir: of the run.
          keep_last: how many of the latest checkpoints to keep.
        """
        options = ocp.CheckpointManagerOptions(max_to_keep=keep_last)
        self._last = ocp.CheckpointManager(
            checkpoint_folder(workdir, "last"), options=options
        )
        best = ocp.CheckpointManagerOptions(max_to_keep=1)
        self._best = ocp.CheckpointManager(
            checkpoint_folder(workdir, "best"), options=best
        )
        self._pool_folder = checkpoint_folder(workdir, "pool")
        if self._last.latest_step() is None:
            self._forget_earlier_attempts()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._last.wait_until_finished()
        if kind is None:
            self._drop_unused_pool_files([])
        self._last.close()
        self._best.close()

    @property
    def last_step(self) -> int | None:
        """The step of the latest checkpoint, None where there is none."""
        return self._last.latest_step()

    def save(
        self, state: TrainState, data: grain.DatasetIterator, config: Mapping[str, Any]
    ) -> str:
        """Saves everything that a resumed run needs; returns once the copy is made.

        Args:
          state: at rest; may be donated afterwards.
          data: the training iterator, pointing at the batch not yet consumed.
          config: of the run, resolved.

        Returns:
          A line that says what was written and how long the training loop waited.
        """
        start, step = time.perf_counter(), int(state.step)
        self._last.wait_until_finished()
        slots, new_bytes = self._write_pool(state.pool)
        if state.pool is not None:
            self._drop_unused_pool_files(slots)
        networks, optimisers = _networks(state), _optimisers(state)
        self._last.save(
            step,
            args=ocp.args.Composite(
                networks=ocp.args.StandardSave(networks),
                optimisers=ocp.args.StandardSave(optimisers),
                data=grain.checkpoint.CheckpointSave(data),
                meta=ocp.args.JsonSave({"config": dict(config), "pool": slots}),
            ),
        )
        state_bytes = size_in_bytes((networks, optimisers))
        line = f"checkpoint {step}: {state_bytes / 1e6:.1f} MB"
        if state.pool is not None:
            line += f", pool {len(slots)} entries ({new_bytes / 1e6:.1f} MB new)"
        return f"{line}, waited {time.perf_counter() - start:.2f} s"

    def save_best(self, state: TrainState, score: float) -> None:
        """Replaces the best checkpoint: networks only, no optimiser and no pool."""
        step = int(state.step)
        self._best.wait_until_finished()
        for kept in self._best.all_steps():
            # A run that resumed from before its best; orbax would skip the new one.
            if kept >= step:
                self._best.delete(kept)
        self._best.save(
            step,
            args=ocp.args.Composite(
                networks=ocp.args.StandardSave(_networks(state)),
                meta=ocp.args.JsonSave({"score": score}),
            ),
        )

    def best_score(self) -> float | None:
        """The score of the kept best checkpoint, None where there is none."""
        step = self._best.latest_step()
        if step is None:
            return None
        item = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return self._best.restore(step, args=item)["meta"]["score"]

    def restore(self, state: TrainState, data: grain.DatasetIterator) -> TrainState:
        """Returns the latest checkpoint in the shape of `state` and moves `data` there.

        Args:
          state: a fresh state; gives shapes, dtypes and shardings.
          data: a fresh training iterator.

        Raises:
          InputError: when a part of it is missing or damaged.
        """
        step = self._last.latest_step()
        parts = ocp.args.Composite(
            networks=ocp.args.StandardRestore(abstract(_networks(state))),
            optimisers=ocp.args.StandardRestore(abstract(_optimisers(state))),
            data=grain.checkpoint.CheckpointRestore(data),
            meta=ocp.args.JsonRestore(),
        )
        try:
            restored = self._last.restore(step, args=parts)
        except (ValueError, KeyError, OSError) as error:
            raise InputError(
                f"checkpoint {self._last.directory / str(step)} cannot be restored "
                f"({error}): delete its folder to go on from an earlier one, if there "
                "is one, or start in another workdir"
            ) from error

        def net(name: str) -> NetState:
            variables = restored["networks"][name]
            return NetState(
                variables["params"],
                variables["batch_stats"],
                restored["optimisers"][name],
            )

        pool = state.pool
        if pool is not None:
            pool = self._read_pool(pool, restored["meta"]["pool"])
        masker = None if state.masker is None else net("masker")
        like = state.step
        step_array = jax.device_put(np.asarray(step, like.dtype), like.sharding)
        return TrainState(step_array, net("classifier"), masker, pool)

    def _forget_earlier_attempts(self) -> None:
        """Deletes what a run left that ended before its first checkpoint.

        The next run here may be of another config, with pool entries of the same names.
        """
        for step in self._best.all_steps():
            self._best.delete(step)
        self._drop_unused_pool_files([])

    def _pool_file(self, saved_at: int) -> Path:
        return self._pool_folder / f"{saved_at}.safetensors"

    def _write_pool(self, pool: ClassifierPool | None) -> tuple[list[int], int]:
        """Writes the entries not yet on disk; returns the slots' steps, and bytes."""
        if pool is None:
            return [], 0
        slots = [int(step) for step in np.asarray(pool.saved_at)]
        slots = slots[: int(pool.count)]
        new_bytes = 0
        for slot, saved_at in enumerate(slots):
            path = self._pool_file(saved_at)
            if path.exists() or jax.process_index() != 0:
                continue
            entry = {"params": pool.params, "batch_stats": pool.batch_stats}
            entry = jax.tree.map(lambda leaf, slot=slot: np.asarray(leaf[slot]), entry)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            flat = flax.traverse_util.flatten_dict(entry, sep="/")
            safetensors.numpy.save_file(flat, partial)
            os.replace(partial, path)
            new_bytes += size_in_bytes(entry)
        return slots, new_bytes

    def _drop_unused_pool_files(self, slots: list[int]) -> None:
        """Deletes the entries that neither a committed checkpoint nor `slots` names.

        Called before a save and not after it: until the new checkpoint is committed, a
        killed run resumes from the one before and needs what that one names.
        """
        named = set(slots)
        for step in self._last.all_steps():
            item = ocp.args.Composite(meta=ocp.args.JsonRestore())
            named |= set(self._last.restore(step, args=item)["meta"]["pool"])
        if jax.process_index() != 0:
            return
        for path in self._pool_folder.glob("*.safetensors"):
            if int(path.stem) not in named:
                path.unlink()

    def _read_pool(self, pool: ClassifierPool, slots: list[int]) -> ClassifierPool:
        """Fills an empty pool from the entries of a checkpoint."""
        stacked = {"params": pool.params, "batch_stats": pool.batch_stats}
        host = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), stacked)
        flat = flax.traverse_util.flatten_dict(host, sep="/")
        for slot, saved_at in enumerate(slots):
            path = self._pool_file(saved_at)
            try:
                entry = safetensors.numpy.load_file(path)
            except (OSError, safetensors.SafetensorError) as error:
                raise InputError(
                    f"pool entry {path} of the checkpoint cannot be read ({error}): "
                    "restore the file, or start a new run in another workdir"
                ) from error
            for name, value in entry.items():
                flat[name][slot] = value
        host = flax.traverse_util.unflatten_dict(flat, sep="/")
        placed = jax.tree.map(lambda a, b: jax.device_put(a, b.sharding), host, stacked)
        saved_at = np.full(pool.saved_at.shape, -1, np.int32)
        saved_at[: len(slots)] = slots
        return ClassifierPool(
            placed["params"],
            placed["batch_stats"],
            jax.device_put(saved_at, pool.saved_at.sharding),
            jax.device_put(np.int32(len(slots)), pool.count.sharding),
        )


def restore_networks(
    workdir: Path, which: str | int, like: PyTree
) -> tuple[PyTree, int]:
    """Reads the networks of one checkpoint.

    Args:
      workdir: of the run.
      which: "last", "best" or the step of a kept checkpoint.
      like: the shapes expected, `{"classifier": variables, "masker": variables}`; parts
        left out are not read.

    Returns:
      The networks and the checkpoint's step.

    Raises:
      InputError: when there is no such checkpoint, or it does not fit.
    """
    kind = "best" if which == "best" else "last"
    steps = saved_steps(workdir, kind)
    if not steps:
        raise InputError(
            f"{workdir} has no '{kind}' checkpoint: train it first, or name another "
            "folder"
        )
    step = steps[-1] if which in ("last", "best") else which
    if step not in steps:
        raise InputError(f"{workdir} has no checkpoint of step {step}: it has {steps}")
    folder = checkpoint_folder(workdir, kind) / str(step) / "networks"
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    restore_args = ocp.args.PyTreeRestore(
        abstract(like, sharding),
        restore_args=ocp.checkpoint_utils.construct_restore_args(
            abstract(like, sharding)
        ),
        partial_restore=True,
    )
    unreadable = f"checkpoint {folder} cannot be read as this run's networks"
    try:
        handler = ocp.PyTreeCheckpointHandler()
        # Compared before reading: of an array that does not fit, orbax's reading
        # threads print tracebacks.
        differences = _unfit(handler.metadata(folder).tree, like)
        if differences:
            raise InputError(f"{unreadable}: {'; '.join(differences)}")
        with ocp.Checkpointer(handler) as checkpointer:
            return checkpointer.restore(folder, restore_args), step
    except (ValueError, KeyError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{unreadable}: {error}") from error


def _unfit(stored: PyTree, like: PyTree) -> list[str]:
    """What a checkpoint lacks of the arrays expected, or has in another shape."""
    stored = flax.traverse_util.flatten_dict(stored, sep="/")
    differences = []
    for name, leaf in flax.traverse_util.flatten_dict(like, sep="/").items():
        if name not in stored:
            differences.append(f"it has no {name}")
        elif tuple(stored[name].shape) != leaf.shape:
            differences.append(
                f"{name} has shape {tuple(stored[name].shape)} instead of {leaf.shape}"
            )
    return differences
