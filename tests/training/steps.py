"""Runs of a few steps, with what a checkpoint has to bring back."""

import grain
import jax
import numpy as np

from saliency_jax.training import casm_step
from tests.training import tiny


def numbers():
    """An endless shuffled iterator whose place is part of a checkpoint."""
    dataset = grain.MapDataset.range(50).seed(0).shuffle().repeat()
    return iter(dataset.to_iter_dataset())


def start(thinning="L2"):
    state = tiny.state(step=0)
    pool = casm_step.init_pool(state.classifier, tiny.SLOTS, tiny.options(thinning))
    return state.replace(pool=pool)


def go_on(state, data, steps):
    """Steps whose batches depend on the iterator."""
    step = tiny.jitted_step(thinning="L2")
    for _ in range(steps):
        state, _ = step(state, tiny.batch(seed=next(data)), historic=True)
    return state


def fresh():
    """A state as `train.py` describes it before restoring, without numbers."""

    def describe(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    return jax.tree.map(describe, start())


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
