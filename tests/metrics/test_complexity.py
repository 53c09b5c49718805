"""Sparseness and complexity: closed forms, and what does not matter to them."""

import numpy as np

from saliency_jax.metrics.complexity import complexity, sparseness


def test_closed_forms():
    one = np.zeros((3, 4))
    one[1, 2] = -5
    two = np.abs(one)
    two[0, 0] = 5
    steps = np.arange(1.0, 13).reshape(3, 4)
    maps = np.stack([one, two, steps, np.full((3, 4), -2.0), np.zeros((3, 4))])
    # Of 1 to n it is (n - 1) / 3 n.
    expected = [11 / 12, 10 / 12, 11 / 36, 0, 0]
    np.testing.assert_allclose(sparseness(maps), expected, atol=1e-12)
    shares = np.arange(1, 13) / 78
    entropy = -(shares * np.log(shares)).sum()
    expected = [0, np.log(2), entropy, np.log(12), np.log(12)]
    np.testing.assert_allclose(complexity(maps), expected, atol=1e-12)


def test_mean_difference_of_pairs():
    """The Gini index by its definition: half of it, relative to the mean."""
    maps = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    values = np.abs(maps.reshape(4, -1)).astype(np.float64)
    differences = np.abs(values[:, :, None] - values[:, None]).mean(axis=(1, 2))
    expected = differences / values.mean(axis=1) / 2
    np.testing.assert_allclose(sparseness(maps), expected, atol=1e-12)


def test_scale_sign_and_place_do_not_matter():
    random = np.random.default_rng(1)
    maps = random.normal(size=(1, 5, 6))
    other = -1e-30 * random.permutation(maps.ravel()).reshape(maps.shape)
    for metric in (sparseness, complexity):
        np.testing.assert_allclose(metric(other), metric(maps), rtol=1e-12)
