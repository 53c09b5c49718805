"""The mesh, and which batches divide over it."""

import jax
import jax.numpy as jnp
import pytest

from saliency_jax.errors import InputError
from saliency_jax.training import sharding


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
