"""One mesh axis: the batch is split over the devices, everything else is replicated.

So is the pool, unless it is asked to be split.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from saliency_jax.errors import InputError
from saliency_jax.training.state import TrainState
from saliency_jax.types import PyTree

# Where the pool's entries can lie.
MEMORIES = ("device", "pinned_host")


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices (or the given ones) along the axis 'data'."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device: the state."""
    return NamedSharding(mesh, P())


def of_state(
    state: TrainState, mesh: Mesh, pool_memory: str, pool_split: bool = False
) -> TrainState:
    """The sharding of every array of a state: replicated, the pool's where asked.

    Args:
      state: arrays, or what `jax.eval_shape` gives for them.
      mesh: of all devices.
      pool_memory: one of `MEMORIES`, for the pool's parameters and batch statistics.
      pool_split: whether each device holds a part of every entry's arrays; those that
        do not divide are replicated.
    """
    everywhere = replicated(mesh)
    shardings = jax.tree.map(lambda _: everywhere, state)
    if state.pool is None:
        return shardings

    def place(stack: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        spec = P(*_longest_axis_split(stack.shape, mesh.size)) if pool_split else P()
        return NamedSharding(mesh, spec, memory_kind=pool_memory)

    stacks = {
        name: jax.tree.map(place, getattr(state.pool, name))
        for name in ("params", "batch_stats")
    }
    return shardings.replace(pool=shardings.pool.replace(**stacks))


def _longest_axis_split(shape: tuple[int, ...], parts: int) -> list[str | None]:
    """A spec that splits a stack along the longest axis of its entries that divides.

    Not along the slots: their number seldom divides, and an entry that is drawn would
    lie on one device, whose link all others would wait for.
    """
    spec: list[str | None] = [None] * len(shape)
    lengths = {axis: shape[axis] for axis in range(1, len(shape))}
    divisible = {axis: n for axis, n in lengths.items() if n and n % parts == 0}
    if divisible:
        spec[max(divisible, key=lambda axis: divisible[axis])] = "data"
    return spec


def of_this_process(tree: PyTree) -> PyTree:
    """Replicated arrays as this process has them, on its own devices alone.

    What is computed with them needs no other process. Nothing is copied.
    """
    everywhere = replicated(data_mesh(jax.local_devices()))

    def own(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        copies = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, everywhere, copies)

    return jax.tree.map(own, tree)


def by_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis split over the devices: a batch."""
    return NamedSharding(mesh, P("data"))


def evaluation_mesh(batch_size: int) -> Mesh:
    """A mesh of all devices, or of one where a batch does not divide over them."""
    devices = jax.devices()
    return data_mesh(devices[:1] if batch_size % len(devices) else devices)


def check_batch_size(
    batch_size: int, mesh: Mesh, field: str = "data.batch_size"
) -> None:
    """Checks that a global batch divides over the devices and processes.

    Args:
      batch_size: of the global batch.
      mesh: of all devices.
      field: of the config that gives the size.

    Raises:
      InputError: when it does not.
    """
    if batch_size < 1 or batch_size % mesh.size or batch_size % jax.process_count():
        raise InputError(
            f"config.{field} = {batch_size} does not divide over {mesh.size} "
            f"devices in {jax.process_count()} processes: choose a multiple of "
            f"{mesh.size}"
        )


def check_memory(pool_memory: str, mesh: Mesh) -> None:
    """Checks that the devices have a memory for the pool.

    Raises:
      InputError: when they do not.
    """
    device = mesh.local_devices[0]
    known = [memory.kind for memory in device.addressable_memories()]
    if pool_memory not in known:
        raise InputError(
            f"config.casm.pool_memory = {pool_memory!r}, but {device.device_kind} has "
            f"the memories {known}: leave it at 'device'"
        )


def one_copy(tree: PyTree) -> PyTree:
    """The replicated arrays of a process that is alone, as one device holds them.

    Orbax has each device write a slice of a replicated array: a program to compile for
    every shape, and a call for every array and device. It pays between machines only.
    """
    if jax.process_count() > 1:
        return tree

    def first(leaf: Any) -> Any:
        replicated = isinstance(leaf, jax.Array) and leaf.is_fully_replicated
        return leaf.addressable_data(0) if replicated else leaf

    return jax.tree.map(first, tree)
