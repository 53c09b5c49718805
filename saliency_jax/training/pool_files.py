"""A pool's entries on disk: one file each, written once, never changed.

    <folder>/<saved_at>.safetensors

A file is there whole or not at all; `.partial` is one that a kill cut short.
"""

import os
from collections.abc import Collection
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
import safetensors
import safetensors.numpy

from saliency_jax import pool as pools
from saliency_jax.errors import InputError
from saliency_jax.pool import ClassifierPool
from saliency_jax.training.processes import by_first

Entries = dict[Path, dict[str, np.ndarray]]
"""Arrays by their names, by the file that holds them."""


def entry_names(pool: ClassifierPool) -> list[int]:
    """`saved_at` of a pool's entries, in the order of their slots."""
    return np.asarray(pool.saved_at)[: int(pool.count)].tolist()


def new_entries(
    folder: Path, pool: ClassifierPool
) -> dict[Path, dict[str, np.ndarray]]:
    """Copies the entries that are not yet on disk to the host, in process 0."""
    paths = [_path(folder, name) for name in entry_names(pool)]
    new = by_first(lambda: [n for n, path in enumerate(paths) if not path.exists()])
    # Of a pool that is split over the devices, all of them take part.
    whole = jax.jit(pools.entry, out_shardings=pool.count.sharding)
    entries = {}
    for slot in new:
        entry = whole(pool, np.int32(slot))
        if jax.process_index() == 0:
            entry = jax.device_get(entry)
            entries[paths[slot]] = flax.traverse_util.flatten_dict(entry, sep="/")
    return entries


def write(entries: Entries) -> None:
    """Writes entries, each file whole or not at all."""
    for path, entry in entries.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        safetensors.numpy.save_file(entry, partial)
        os.replace(partial, path)


def read(folder: Path, pool: ClassifierPool, names: list[int]) -> ClassifierPool:
    """Fills an empty pool.

    Args:
      folder: of the files.
      pool: gives shapes, dtypes and shardings.
      names: of the entries, in the order of their slots.

    Raises:
      InputError: a file is missing or damaged, or there are more than slots.
    """
    if len(names) > len(pool.saved_at):
        raise InputError(
            f"the checkpoint names {len(names)} pool entries for "
            f"{len(pool.saved_at)} slots: put back the pool_slots that it was saved "
            "with, or start a new run in another workdir"
        )
    stacked = {"params": pool.params, "batch_stats": pool.batch_stats}
    host = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), stacked)
    flat = flax.traverse_util.flatten_dict(host, keep_empty_nodes=True, sep="/")
    for slot, name in enumerate(names):
        path = _path(folder, name)
        try:
            entry = safetensors.numpy.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(
                f"pool entry {path} of the checkpoint cannot be read ({error}): "
                "restore the file, or start a new run in another workdir"
            ) from error
        arrays = {name: x for name, x in flat.items() if isinstance(x, np.ndarray)}
        if entry.keys() != arrays.keys() or any(
            value.shape != arrays[leaf].shape[1:] for leaf, value in entry.items()
        ):
            raise InputError(
                f"pool entry {path} of the checkpoint is of another network: restore "
                "the file, or start a new run in another workdir"
            )
        for leaf, value in entry.items():
            flat[leaf][slot] = value
    host = flax.traverse_util.unflatten_dict(flat, sep="/")
    placed = jax.tree.map(lambda a, b: jax.device_put(a, b.sharding), host, stacked)
    saved_at = np.full(pool.saved_at.shape, -1, np.int32)
    saved_at[: len(names)] = names
    return ClassifierPool(
        placed["params"],
        placed["batch_stats"],
        jax.device_put(saved_at, pool.saved_at.sharding),
        jax.device_put(np.int32(len(names)), pool.count.sharding),
    )


def keep_only(folder: Path, names: Collection[int]) -> None:
    """Deletes all other entries, and what is left of a write that was cut short."""
    for path in folder.glob("*.safetensors"):
        # Else it is none of ours, such as a user's copy of one.
        if path.stem.isdecimal() and int(path.stem) not in names:
            path.unlink()
    for path in folder.glob("*.partial"):
        path.unlink()


def _path(folder: Path, name: int) -> Path:
    return folder / f"{name}.safetensors"
