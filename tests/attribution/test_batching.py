"""Parts of the work: they are even, and together they are all of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.batching import chunk_of, even_size


def test_parts_are_few_and_even():
    assert [even_size(50, size) for size in (32, 50, 64, 1, 25, 24)] == [
        25,
        50,
        50,
        1,
        25,
        17,
    ]


@pytest.mark.parametrize("size", [1, 4, 6, 15, 20])
def test_every_pair_counts_once(size):
    sums, kept, seen = jnp.zeros((3, 1)), jnp.zeros((3, 5)), []
    for i in range(-(-15 // size)):
        chunk = chunk_of(jnp.asarray(i), size, 3, 5)
        assert chunk.rows.shape == (size,)
        assert chunk.samples.max() < 5 and chunk.rows.max() < 3
        sums = chunk.add(sums, 10.0 ** chunk.samples[:, None])
        kept = chunk.put(kept, 10.0 * chunk.rows + chunk.samples)
        seen += np.asarray(chunk.of(jnp.array([7, 8, 9]))).tolist()
    np.testing.assert_allclose(sums, np.full((3, 1), 11111.0))
    expected = 10 * np.arange(3)[:, None] + np.arange(5)[None]
    np.testing.assert_array_equal(kept, expected)
    assert seen[:5] == [7, 8, 9, 7, 8]
