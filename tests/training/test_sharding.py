"""The mesh, and which batches divide over it."""

import jax
import jax.numpy as jnp
import pytest

from saliency_jax.errors import InputError
from saliency_jax.training import sharding
from tests.training import tiny


def test_a_batch_is_split_and_a_state_replicated():
    mesh = sharding.data_mesh()
    assert mesh.axis_names == ("data",) and mesh.size == len(jax.devices()) == 4
    batch = jax.device_put(jnp.arange(8.0), sharding.by_batch(mesh))
    assert [shard.data.tolist() for shard in batch.addressable_shards] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]
    state = jax.device_put(jnp.arange(8.0), sharding.replicated(mesh))
    assert all(shard.data.shape == (8,) for shard in state.addressable_shards)
    assert sharding.data_mesh(jax.devices()[:2]).size == 2


@pytest.mark.parametrize("size", [0, -4, 1, 6])
def test_a_batch_that_does_not_divide_is_refused(size):
    mesh = sharding.data_mesh()
    with pytest.raises(InputError, match=f"batch_size = {size} .* 4 devices.*of 4"):
        sharding.check_batch_size(size, mesh)
    sharding.check_batch_size(8, mesh)


def test_the_pool_alone_goes_to_the_hosts_memory():
    mesh = sharding.data_mesh()
    state = tiny.state(pool=tiny.pool_of(1))
    everywhere = sharding.replicated(mesh)
    for leaf in jax.tree.leaves(sharding.of_state(state, mesh, "device")):
        assert leaf == everywhere
    placed = jax.device_put(state, sharding.of_state(state, mesh, "pinned_host"))
    stacks = jax.tree.leaves([placed.pool.params, placed.pool.batch_stats])
    assert {leaf.sharding.memory_kind for leaf in stacks} == {"pinned_host"}
    rest = placed.replace(pool=placed.pool.replace(params={}, batch_stats={}))
    kinds = {leaf.sharding.memory_kind for leaf in jax.tree.leaves(rest)}
    assert kinds == {"device"}


def test_a_pool_is_split_along_the_longest_axis_that_divides():
    mesh = sharding.data_mesh()
    shapes = {"a": (3, 3, 3, 8, 12), "b": (3, 6), "c": (4,), "d": (3, 8, 8)}
    stacks = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    state = tiny.state(pool=tiny.pool_of(1))
    state = state.replace(pool=state.pool.replace(params=stacks, batch_stats={}))
    placed = jax.device_put(state, sharding.of_state(state, mesh, "device", True))
    parts = {
        name: {shard.data.shape for shard in leaf.addressable_shards}
        for name, leaf in placed.pool.params.items()
    }
    assert parts == {
        "a": {(3, 3, 3, 8, 3)},
        "b": {(3, 6)},  # replicated: 6 does not divide
        "c": {(4,)},  # the slots stay together
        "d": {(3, 2, 8)},
    }
    assert placed.classifier.params
    for leaf in jax.tree.leaves(placed.replace(pool=None)):
        assert leaf.is_fully_replicated


def test_a_memory_that_the_device_lacks():
    mesh = sharding.data_mesh()
    sharding.check_memory("pinned_host", mesh)
    with pytest.raises(InputError, match="pool_memory = 'tape', but .*'device'"):
        sharding.check_memory("tape", mesh)
