"""Checkpoints of a run, and the only importer of orbax.

    <workdir>/checkpoints/last/<step>/{networks,optimisers,data,meta,checksums.json}
    <workdir>/checkpoints/best/<step>/{networks,meta,checksums.json}
    <workdir>/checkpoints/pool/<step>.safetensors
    <workdir>/checkpoints/damaged/...

`networks` holds parameters and batch statistics alone, so that loading a masker reads
neither optimisers nor pool. A pool of thirty ResNet-50s is 3 GB, but its entries never
change: each is written once, when the first checkpoint after its birth is saved, and
deleted when no kept checkpoint names it. A checkpoint therefore writes only the slots
filled since the one before, and the disk holds at most `slots` entries for each kept
checkpoint and the one before them, nearly all of them shared. Training waits while new
entries are copied to the host (102 MB each for a ResNet-50) and, at the next save, for
what is still being written; a thread writes them, and the checkpoint that names them is
committed after them. So are the checksums of all its files: of a checkpoint that fails
them the run goes on from the one before (`damaged.py`).
"""

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flax.traverse_util
import grain
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from saliency_jax.errors import InputError
from saliency_jax.models.classifier import FUNCTION
from saliency_jax.training import checkpoint_meta, checksums, pool_files
from saliency_jax.training.sharding import one_copy
from saliency_jax.training.state import NETWORKS, NetState, TrainState
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


def abstract(tree: PyTree) -> PyTree:
    """The shapes, dtypes and shardings of a tree, as restoring wants them."""

    def describe(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    return jax.tree.map(describe, tree)


def _saved_nets(state: TrainState) -> dict[str, NetState]:
    """The networks to be saved: a black box that is a user's function is not."""
    nets = {name: getattr(state, name) for name in NETWORKS}
    return {
        name: net
        for name, net in nets.items()
        if net is not None and FUNCTION not in net.params
    }


def _networks(state: TrainState) -> dict[str, PyTree]:
    return {name: net.variables for name, net in _saved_nets(state).items()}


def _optimisers(state: TrainState) -> dict[str, PyTree]:
    """Of what is trained; a black box has none."""
    nets = _saved_nets(state)
    return {name: net.opt_state for name, net in nets.items() if net.opt_state != ()}


def size_in_bytes(tree: PyTree) -> int:
    """The bytes of a tree's arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


class _MetaHandler(ocp.JsonCheckpointHandler):
    """Writes `meta`, and holds its checkpoint back until the pool is written.

    Orbax commits a checkpoint once the futures of all its parts are done.
    """

    pool_written: Future

    async def async_save(self, *arguments: Any, **options: Any) -> list[Any]:
        futures = await super().async_save(*arguments, **options)
        return [*futures, self.pool_written]


class Checkpoints:
    """A run's checkpoints, written asynchronously. Use as a context manager."""

    def __init__(self, workdir: Path, keep_last: int):
        """Opens (and makes) the folders.

        Args:
          workdir: of the run.
          keep_last: how many of the latest checkpoints to keep.
        """
        self._meta_handler = _MetaHandler()
        handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
        for args in (ocp.args.JsonSave, ocp.args.JsonRestore):
            handlers.add("meta", args, self._meta_handler)
        self._pool_folder = checkpoint_folder(workdir, "pool")
        self._pool_writer = ThreadPoolExecutor(1)
        self._pool_digests: dict[str, str] = {}
        # The step of each kind that is being saved, and its pool's entries.
        self._under_way: dict[str, tuple[int, list[int]]] = {}

        def options(kind: str, keep: int) -> ocp.CheckpointManagerOptions:
            sealed = ocp.AsyncOptions(
                post_finalization_callback=lambda: self._seal(kind)
            )
            # Both kinds may be under way, and their barriers have the same names else.
            named = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=kind)
            return ocp.CheckpointManagerOptions(
                max_to_keep=keep, async_options=sealed, multiprocessing_options=named
            )

        self._last = ocp.CheckpointManager(
            checkpoint_folder(workdir, "last"),
            options=options("last", keep_last),
            handler_registry=handlers,
        )
        self._best = ocp.CheckpointManager(
            checkpoint_folder(workdir, "best"), options=options("best", 1)
        )
        if self._last.latest_step() is None:
            # The next run here may be of another config, with entries of these names.
            self._drop_unused_pool_files([])

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self._last.wait_until_finished()
        if kind is None:
            self._drop_unused_pool_files([])
        self._last.close()
        self._best.close()
        self._pool_writer.shutdown()

    @property
    def last_step(self) -> int | None:
        """The step of the latest checkpoint, None where there is none."""
        return self._last.latest_step()

    def owes_evaluation(self) -> bool:
        """Whether the run was stopped instead of evaluated at the latest checkpoint."""
        step = self._last.latest_step()
        return step is not None and self._meta(step).owes_evaluation

    def save(
        self,
        state: TrainState,
        data: grain.DatasetIterator,
        owes_evaluation: bool = False,
    ) -> str:
        """Saves everything that a resumed run needs; returns once the copy is made.

        Args:
          state: at rest; may be donated afterwards.
          data: the training iterator, pointing at the batch not yet consumed.
          owes_evaluation: whether a resumed run has to evaluate this state first.

        Returns:
          A line that says what was written and how long the training loop waited.
        """
        start, step = time.perf_counter(), int(state.step)
        self._last.wait_until_finished()
        self._best.wait_until_finished()  # a resumed run would not judge it again
        names, entries = [], {}
        if state.pool is not None:
            names = pool_files.entry_names(state.pool)
            self._drop_unused_pool_files(names)
            entries = pool_files.new_entries(self._pool_folder, state.pool)
        written = self._pool_writer.submit(pool_files.write, entries)
        self._meta_handler.pool_written = written
        self._under_way["last"] = step, names
        networks = one_copy(_networks(state))
        optimisers = one_copy(_optimisers(state))
        meta = checkpoint_meta.of_last(
            checkpoint_meta.Last(names, jax.process_count(), owes_evaluation)
        )
        self._last.save(
            step,
            args=ocp.args.Composite(
                networks=ocp.args.StandardSave(networks),
                optimisers=ocp.args.StandardSave(optimisers),
                data=grain.checkpoint.CheckpointSave(data),
                meta=ocp.args.JsonSave(meta),
            ),
        )
        state_bytes = size_in_bytes((networks, optimisers))
        line = f"checkpoint {step}: {state_bytes / 1e6:.1f} MB"
        if state.pool is not None:
            new_bytes = size_in_bytes(list(entries.values()))
            line += f", pool {len(names)} entries ({new_bytes / 1e6:.1f} MB new)"
        return f"{line}, waited {time.perf_counter() - start:.2f} s"

    def save_best(self, state: TrainState, score: float) -> None:
        """Replaces the best checkpoint: networks only, no optimiser and no pool."""
        step = int(state.step)
        self._best.wait_until_finished()
        for kept in self._best.all_steps():
            # A run that resumed from before its best; orbax would skip the new one.
            if kept >= step:
                self._best.delete(kept)
        self._under_way["best"] = step, []
        self._best.save(
            step,
            args=ocp.args.Composite(
                networks=ocp.args.StandardSave(one_copy(_networks(state))),
                meta=ocp.args.JsonSave(checkpoint_meta.of_best(score)),
            ),
        )

    def _seal(self, kind: str) -> None:
        """Writes the checksums of a checkpoint that is about to be committed."""
        if jax.process_index() > 0:
            return
        step, names = self._under_way[kind]
        parent, elsewhere = self._pool_folder.parent / kind, {}
        for name in names:
            key = f"../pool/{name}.safetensors"
            if key not in self._pool_digests:  # an entry never changes
                self._pool_digests[key] = checksums.digest(parent / key)
            elsewhere[key] = self._pool_digests[key]
        # A run that was killed while it saved this step may have left another.
        unfinished = parent.glob(f"{step}{ocp.utils.TMP_DIR_SUFFIX}*")
        newest = max(unfinished, key=lambda path: path.stat().st_mtime_ns)
        checksums.write(newest, elsewhere)

    def best_score(self) -> float | None:
        """The score of the kept best checkpoint, None where there is none."""
        step = self._best.latest_step()
        if step is None:
            return None
        item = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with self._readable(step, self._best):
            meta = self._best.restore(step, args=item)["meta"]
            return checkpoint_meta.read_best(meta)

    def restore(self, state: TrainState, data: grain.DatasetIterator) -> TrainState:
        """Returns the latest checkpoint in the shape of `state` and moves `data` there.

        Args:
          state: gives shapes, dtypes and shardings, as a fresh one or `eval_shape`'s.
          data: a fresh training iterator.

        Raises:
          InputError: when a part of it is missing or damaged.
        """
        step = self._last.latest_step()
        names, saved_by, _ = self._meta(step)
        parts = {
            "networks": ocp.args.StandardRestore(abstract(_networks(state))),
            "optimisers": ocp.args.StandardRestore(abstract(_optimisers(state))),
        }
        # A place in the data is the number of the global batch, whoever reads it.
        place = self._last.directory / f"{step}/data/process_0-of-{saved_by}.json"
        with self._readable(step, self._last):
            restored = self._last.restore(step, args=ocp.args.Composite(**parts))
            data.set_state(json.loads(place.read_text()))

        def net(name: str, like: NetState | None) -> NetState | None:
            if name not in restored["networks"]:
                return like
            variables = restored["networks"][name]
            return NetState(
                variables["params"],
                variables["batch_stats"],
                restored["optimisers"].get(name, ()),
            )

        pool = state.pool
        if pool is not None:
            # A kill between writing entries and the commit leaves some of a future
            # that this run may not have again.
            self._drop_unused_pool_files([])
            pool = pool_files.read(self._pool_folder, pool, names)
        nets = {name: net(name, getattr(state, name)) for name in NETWORKS}
        like = state.step
        step_array = jax.device_put(np.asarray(step, like.dtype), like.sharding)
        return state.replace(step=step_array, pool=pool, **nets)

    @contextlib.contextmanager
    def _readable(self, step: int, kept: ocp.CheckpointManager) -> Iterator[None]:
        """Where a checkpoint cannot be read, says what to do without it."""
        try:
            yield
        except checksums.UNREADABLE as error:
            others = [other for other in kept.all_steps() if other != step]
            advice = "put a copy of it back, or start in another workdir"
            if others:
                advice = f"delete its folder to go on with what is left, step {others}"
            raise InputError(
                f"checkpoint {kept.directory / str(step)} cannot be restored "
                f"({str(error):.160}): {advice}"
            ) from error

    def _meta(self, step: int) -> checkpoint_meta.Last:
        item = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with self._readable(step, self._last):
            meta = self._last.restore(step, args=item)["meta"]
            return checkpoint_meta.read_last(meta)

    def _drop_unused_pool_files(self, names: list[int]) -> None:
        """Deletes the entries that neither a committed checkpoint nor `names` has.

        Called before a save and not after it: until the new checkpoint is committed, a
        killed run resumes from the one before and needs what that one names.
        """
        named = set(names)
        for step in self._last.all_steps():
            named |= set(self._meta(step).pool)
        if jax.process_index() == 0:
            pool_files.keep_only(self._pool_folder, named)


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
    whole = checkpoint_folder(workdir, kind) / str(step)
    folder = whole / "networks"
    read = lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
    restore_args = ocp.args.PyTreeRestore(
        like, restore_args=jax.tree.map(read, like), partial_restore=True
    )
    unreadable = f"checkpoint {folder} cannot be read as this run's networks"
    advice = "take another kept checkpoint, or train again"
    if wrong := checksums.damage(whole, "networks"):
        raise InputError(f"{unreadable}: {wrong}; {advice}")
    try:
        handler = ocp.PyTreeCheckpointHandler()
        # Compared before reading: of an array that does not fit, orbax's reading
        # threads print tracebacks.
        differences = _unfit(handler.metadata(folder).tree, like)
        if differences:
            raise InputError(f"{unreadable}: {'; '.join(differences)}")
        with ocp.Checkpointer(handler) as checkpointer:
            restored = checkpointer.restore(folder, restore_args)
        # Committed to no device: they follow what they are used with.
        return jax.tree.map(jnp.asarray, restored), step
    except InputError:
        raise
    except checksums.UNREADABLE as error:
        # Past its beginning, tensorstore's reason is its own settings.
        raise InputError(f"{unreadable}: {str(error):.160}; {advice}") from error


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
