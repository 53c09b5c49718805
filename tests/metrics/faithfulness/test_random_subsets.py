"""Sensitivity-n and faithfulness correlation: a linear model, a twin, constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.faithfulness.random_subsets import (
    faithfulness_correlation,
    pearson,
    sensitivity_n,
)
from tests.metrics.faithfulness import linear_classifier as linear

PIXELS = linear.SIZE[0] * linear.SIZE[1]


def ask(metric, maps, **options):
    return metric(linear.classifier(), linear.IMAGES, maps, linear.TARGETS, **options)


def test_a_perfect_map_of_a_linear_model():
    perfect = linear.contributions()
    found = ask(sensitivity_n, perfect, subsets=20)
    np.testing.assert_allclose(found.correlations, np.ones((3, 7)), atol=1e-5)
    np.testing.assert_allclose(found.correlation, np.ones(3), atol=1e-5)
    # Pearson's correlation sees neither scale nor offset, but the sign.
    for maps, expected in ((1e-6 * perfect + 3e-6, 1), (5 - 2 * perfect, -1)):
        found = ask(faithfulness_correlation, maps, subsets=20, pixels=9)
        np.testing.assert_allclose(found.correlation, np.full(3, expected), atol=1e-3)


def test_twin():
    key = jax.random.key(5)
    shares = (0.02, 0.3, 0.95)
    found = ask(sensitivity_n, linear.MAPS, key=key, subsets=8, shares=shares)
    rows = np.arange(3), linear.TARGETS
    before = linear.logits(linear.IMAGES)[rows]
    values = [
        np.asarray(jax.random.uniform(jax.random.fold_in(key, sample), linear.SIZE))
        for sample in range(8)
    ]
    for column, size in enumerate((1, 13, 40)):
        sums, falls = [], []
        for sample in range(8):
            chosen = np.argsort(-values[sample].ravel(), kind="stable")[:size]
            images = linear.IMAGES.reshape(3, PIXELS, 3).copy()
            images[:, chosen] = linear.MEAN
            after = linear.logits(images.reshape(linear.IMAGES.shape))[rows]
            falls.append(before - after)
            sums.append(linear.MAPS.reshape(3, -1)[:, chosen].sum(axis=1))
        expected = [
            np.corrcoef(x, y)[0, 1]
            for x, y in zip(np.transpose(sums), np.transpose(falls), strict=True)
        ]
        assert min(expected) < 0.9
        np.testing.assert_allclose(found.correlations[:, column], expected, atol=1e-4)
    np.testing.assert_allclose(
        found.correlation, found.correlations.mean(axis=1), atol=1e-6
    )


def test_constants():
    constant = np.full_like(linear.MAPS, 0.1)
    np.testing.assert_array_equal(
        ask(sensitivity_n, constant, subsets=5).correlations, np.zeros((3, 7))
    )
    blind = lambda images: jnp.zeros((len(images), 2)) + 0.3
    found = faithfulness_correlation(blind, linear.IMAGES, linear.MAPS, pixels=5)
    np.testing.assert_array_equal(found.correlation, np.zeros(3))


def test_correlation_of_small_numbers():
    x = jnp.array([1.0, 2, 4, 3])
    y = jnp.array([2.0, 1, 5, 4])
    expected = np.corrcoef(x, y)[0, 1]
    found = jax.jit(pearson)(x, y)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = jax.jit(pearson)(1e-30 * x, 1e15 * y)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_errors():
    with pytest.raises(InputError, match=r"share 1\.0: expected above 0 and below 1"):
        ask(sensitivity_n, linear.MAPS, shares=(0.5, 1.0))
    with pytest.raises(InputError, match="shares is 0: it must be at least 1"):
        ask(sensitivity_n, linear.MAPS, shares=())
    with pytest.raises(InputError, match="subsets is 1: it must be at least 2"):
        ask(sensitivity_n, linear.MAPS, subsets=1)
    with pytest.raises(InputError, match="pixels is 42 for images of 42: expected"):
        ask(faithfulness_correlation, linear.MAPS, pixels=42)
