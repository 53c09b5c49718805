"""Keys are functions of (seed, stream, step), and differ wherever one of them does."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from saliency_jax import prng

FILED_KEY = (1112734304, 3688455435)
FILED_DRAWS = (0.9518444859018043, 0.5887648184368053, 0.11165931204413815)


def key_data(seed, stream, step):
    return jax.random.key_data(prng.stream_key(jax.random.key(seed), stream, step))


def test_keys_differ_by_seed_stream_and_step():
    cases = list(itertools.product((0, 1), ("pool_slot", "pool_draw"), (0, 1, 2)))
    keys = {tuple(np.asarray(key_data(*case)).tolist()) for case in cases}
    assert len(keys) == len(cases)


def test_keys_are_the_same_in_another_run_and_under_jit():
    """Values filed from the first version: a resumed run must draw the same."""
    np.testing.assert_array_equal(
        key_data(0, "pool_slot", 7), np.array(FILED_KEY, np.uint32)
    )
    jitted = jax.jit(lambda step: key_data(0, "pool_slot", step))
    np.testing.assert_array_equal(jitted(jnp.int32(7)), key_data(0, "pool_slot", 7))


def test_host_draws_are_the_same_in_another_run():
    draws = [prng.host_generator(0, "critic", step).random() for step in range(3)]
    np.testing.assert_allclose(draws, FILED_DRAWS, rtol=1e-12)
    others = [
        prng.host_generator(1, "critic", 0).random(),
        prng.host_generator(0, "other", 0).random(),
    ]
    assert len({*draws, *others}) == 5
