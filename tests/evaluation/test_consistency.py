"""A stochastic method under several keys."""

import jax
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.evaluation.consistency import consistency
from saliency_jax.metrics.agreement import rank_correlation

IMAGES = np.random.default_rng(0).uniform(size=(2, 20, 20, 3)).astype(np.float32)
TARGETS = np.array([0, 1])


def noise(images, targets, key):
    return jax.random.normal(key, images.shape[:3])


def test_a_deterministic_method_is_consistent():
    explain = lambda images, targets, key: images.mean(axis=-1) + targets[:, None, None]
    found = consistency(explain, IMAGES, TARGETS, jax.random.split(jax.random.key(0)))
    np.testing.assert_allclose(found, 1)


def test_noise_is_not():
    found = consistency(noise, IMAGES, TARGETS, jax.random.split(jax.random.key(0), 4))
    assert found.shape == (2,) and np.abs(found).max() < 0.1


def test_it_is_the_mean_over_the_pairs():
    keys = jax.random.split(jax.random.key(3), 3)
    explain = lambda *asked: IMAGES.mean(axis=-1) + 0.2 * noise(*asked)
    found = consistency(explain, IMAGES, TARGETS, keys)
    maps = [np.asarray(explain(IMAGES, TARGETS, jax.random.clone(key))) for key in keys]
    pairs = [rank_correlation(maps[i], maps[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(found, np.mean(pairs, axis=0), rtol=1e-12)
    assert (0.2 < found).all() and (found < 0.8).all()


def test_one_key_is_no_pair():
    with pytest.raises(InputError, match="a pair needs at least two"):
        consistency(noise, IMAGES, TARGETS, jax.random.split(jax.random.key(0), 1))
