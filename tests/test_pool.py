"""The pool of past classifiers, on classifiers that are a number or two each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax import pool as pools


def number_net(value):
    """A classifier whose parameters and batch statistics are told from its number."""
    return {"w": jnp.float32(value), "b": jnp.full((2,), -value)}, {
        "mean": jnp.float32(1000 + value)
    }


def empty_pool(slots):
    return pools.init_pool(*number_net(0.0), slots)


def push(pool, value, **options):
    options = {"key": jax.random.key(int(value)), "step": int(value), **options}
    return pools.push(pool, *number_net(float(value)), **options)


def pushed(slots, values, **options):
    pool = empty_pool(slots)
    for value in values:
        pool = push(pool, value, **options)
    return pool


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_empty_pool():
    pool = empty_pool(3)
    assert pool.params["b"].shape == (3, 2)
    assert pool.saved_at.tolist() == [-1, -1, -1] and int(pool.count) == 0


def test_slots_fill_in_order():
    pool = pushed(4, [5, 6, 7])
    assert pool.params["w"].tolist() == [5, 6, 7, 0]
    assert pool.params["b"][:3].tolist() == [[-5, -5], [-6, -6], [-7, -7]]
    assert pool.batch_stats["mean"].tolist() == [1005, 1006, 1007, 0]
    assert pool.saved_at.tolist() == [5, 6, 7, -1]
    assert int(pool.count) == 3


def test_a_full_pool_replaces_one_slot_and_stays_full():
    pool = pushed(4, [5, 6, 7, 8])
    after = push(pool, 9)
    changed = np.flatnonzero(np.asarray(after.params["w"] != pool.params["w"]))
    assert len(changed) == 1 and after.params["w"][changed[0]] == 9
    assert after.batch_stats["mean"][changed[0]] == 1009
    assert after.saved_at[changed[0]] == 9
    assert int(after.count) == 4


def test_parameters_and_statistics_belong_together_whatever_happened():
    pool = pushed(3, range(40))
    np.testing.assert_array_equal(pool.batch_stats["mean"] - 1000, pool.params["w"])
    np.testing.assert_array_equal(pool.saved_at, pool.params["w"])
    assert len(set(pool.saved_at.tolist())) == 3
    for seed in range(10):
        params, batch_stats = pools.draw(pool, jax.random.key(seed))
        assert batch_stats["mean"] == 1000 + params["w"]
        assert params["b"].tolist() == [-params["w"]] * 2


def replaced_slots(slots, pushes, keep_first):
    """How often each slot of a full pool was replaced, over fresh keys."""
    pool = pushed(slots, range(slots))

    def slot_of(key):
        after = push(pool, 99, key=key, keep_first=keep_first)
        return jnp.argmax(after.saved_at == 99)

    keys = jax.random.split(jax.random.key(3), pushes)
    return np.bincount(jax.jit(jax.vmap(slot_of))(keys), minlength=slots)


def test_replacement_is_uniform_over_all_slots():
    counts = replaced_slots(5, 2000, keep_first=False)
    assert counts.sum() == 2000
    # five standard deviations of a binomial with p = 1/5
    assert np.abs(counts - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)


def test_keep_first_never_replaces_the_first():
    counts = replaced_slots(5, 2000, keep_first=True)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_keep_first_of_a_single_slot_keeps_it():
    pool = pushed(1, [5, 6, 7], keep_first=True)
    assert pool.params["w"].tolist() == [5] and pool.saved_at.tolist() == [5]


@pytest.mark.parametrize("filled", [0, 2, 3])
def test_when_false_leaves_every_bit(filled):
    pool = pushed(3, range(1, 1 + filled))
    assert_same(push(pool, 9, when=False), pool)
    assert_same(push(pool, 9, when=jnp.array(False)), pool)


def test_entries_are_copies():
    """Defect 3 of the original: on a CPU its snapshots were the live weights."""
    params, batch_stats = {"w": np.ones(4, np.float32)}, {"m": np.ones(4, np.float32)}
    live = jax.tree.map(jnp.asarray, (params, batch_stats))
    pool = pools.init_pool(*live, 2)
    pool = jax.jit(pools.push)(pool, *live, step=0, key=jax.random.key(0))
    # the training step updates the weights in place and gives their buffers away
    descend = jax.jit(
        lambda tree: jax.tree.map(lambda x: x * 7, tree), donate_argnums=0
    )
    moved = descend(live)
    assert live[0]["w"].is_deleted()
    assert (moved[0]["w"] == 7).all()
    drawn = pools.draw(pool, jax.random.key(1))
    np.testing.assert_array_equal(drawn[0]["w"], np.ones(4))
    np.testing.assert_array_equal(drawn[1]["m"], np.ones(4))


def test_draws_are_uniform_over_the_filled_slots_only():
    pool = pushed(8, [0, 1, 2, 3, 4])
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = jax.jit(jax.vmap(lambda key: pools.draw(pool, key)[0]["w"]))(keys)
    counts = np.bincount(np.asarray(drawn).astype(int), minlength=8)
    assert not counts[5:].any()
    assert np.abs(counts[:5] - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)


def test_draw_of_an_empty_pool_is_slot_0():
    params, _ = pools.draw(empty_pool(3), jax.random.key(0))
    assert params["w"] == 0


def test_one_compilation_serves_every_push_and_draw():
    traces = []

    @functools.partial(jax.jit, donate_argnums=0)
    def step(pool, value, when, key):
        traces.append(value)
        key_push, key_draw = jax.random.split(key)
        params, batch_stats = (
            {"w": value, "b": jnp.stack([-value] * 2)},
            {"mean": 1000 + value},
        )
        pool = pools.push(
            pool, params, batch_stats, step=value.astype(int), key=key_push, when=when
        )
        return pool, pools.draw(pool, key_draw)

    pool, seen = empty_pool(3), set()
    for i in range(40):
        when = jnp.array(i % 4 == 0)
        pool, (params, _) = step(pool, jnp.float32(i), when, jax.random.key(i))
        seen.add(float(params["w"]))
    assert len(traces) == 1
    assert len(seen) > 3  # different entries were drawn meanwhile


def test_a_donated_pool_is_updated_in_place():
    pool = pools.init_pool({"w": jnp.zeros((64, 64))}, {"m": jnp.zeros((64,))}, 4)
    leaves, structure = jax.tree.flatten(pool)

    @functools.partial(jax.jit, donate_argnums=0)
    def push_ones(leaves):
        pool = jax.tree.unflatten(structure, leaves)
        pool = pools.push(
            pool,
            {"w": jnp.ones((64, 64))},
            {"m": jnp.ones((64,))},
            step=1,
            key=jax.random.key(0),
            when=pool.count < 4,
        )
        return jax.tree.leaves(pool)

    memory = push_ones.lower(leaves).compile().memory_analysis()
    size = 4 * sum(leaf.size for leaf in leaves)
    assert memory.alias_size_in_bytes >= size
    # neither the pool nor a large part of it is copied on the way
    assert memory.temp_size_in_bytes < size / 2
    where = leaves[0].unsafe_buffer_pointer()
    after = push_ones(leaves)
    assert leaves[0].is_deleted()
    assert after[0].unsafe_buffer_pointer() == where


def test_bfloat16_rounds_the_parameters_alone():
    like = {"w": jnp.zeros(3)}, {"mean": jnp.zeros(2)}
    pool = pools.init_pool(*like, 2, "bfloat16")
    assert pool.params["w"].dtype == jnp.bfloat16
    values = jnp.array([1.0, 1 + 2**-7, 1 + 2**-9])  # 8 bits hold the first two
    stats = jnp.array([1 + 2**-9, -3.0])
    pool = pools.push(
        pool, {"w": values}, {"mean": stats}, step=1, key=jax.random.key(0)
    )
    params, batch_stats = pools.draw(pool, jax.random.key(1))
    assert params["w"].dtype == batch_stats["mean"].dtype == jnp.float32
    assert params["w"].tolist() == [1, 1 + 2**-7, 1]
    assert batch_stats["mean"].tolist() == stats.tolist()


def in_memory(pool, kind):
    """A pool whose stacks lie in a memory of the device's."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0], memory_kind=kind)
    return pool.replace(
        params=jax.device_put(pool.params, place),
        batch_stats=jax.device_put(pool.batch_stats, place),
    )


def test_a_pool_in_the_hosts_memory_plays_the_same_and_stays_there():
    @functools.partial(jax.jit, donate_argnums=0)
    def play(pool, value, key):
        key_push, key_draw = jax.random.split(key)
        params = {"w": value, "b": jnp.stack([value, -value])}
        when = value.astype(int) % 2 == 0
        pool = pools.push(
            pool, params, {"mean": value}, step=1, key=key_push, when=when
        )
        return pool, pools.draw(pool, key_draw)

    both = [in_memory(empty_pool(3), kind) for kind in ("device", "pinned_host")]
    for step in range(20):
        played = [play(p, jnp.float32(step), jax.random.key(step)) for p in both]
        both, drawn = zip(*played, strict=True)
        assert_same(*drawn)
    assert_same(*both)
    for leaf in jax.tree.leaves([both[1].params, both[1].batch_stats]):
        assert leaf.sharding.memory_kind == "pinned_host"
    for leaf in jax.tree.leaves(drawn[1]):
        assert leaf.sharding.memory_kind == "device"


def test_a_gpus_program_moves_entries_and_computes_nothing_in_the_hosts_memory():
    """On a CPU both memories are one; so this reads what a GPU would be given."""

    def play(pool, value, key):
        params = {"w": value, "b": jnp.stack([value, -value])}
        pool = pools.push(pool, params, {"mean": value}, step=1, key=key)
        return pool, pools.entry(pool, 1)

    moves = {}
    for kind in ("device", "pinned_host"):
        pool = in_memory(empty_pool(3), kind)
        traced = jax.jit(play).trace(pool, jnp.float32(2), jax.random.key(0))
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        lines = [l for l in text.splitlines() if "annotate_device_placement" in l]
        moves[kind] = [
            sum(f'_xla_buffer_placement = "{to}"' in line for line in lines)
            for to in ("device", "pinned_host")
        ]
    # three stacks: each is read once by the push and once by `entry`, and written once
    # Of three stacks: read by the push and by `entry`, and written once.
    assert moves == {"device": [0, 0], "pinned_host": [6, 3]}
