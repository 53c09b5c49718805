"""KernelSHAP against Shapley values from their definition."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.shapley import draw, kernel_shap
from tests.attribution.game import IMAGE, classifier_of, quadratic, segments_of

KEY = jax.random.key(2)


def brute_force(value, players):
    """Shapley values: the mean over all orders of what a player adds."""
    shown = np.array(list(itertools.product([0, 1], repeat=players)), np.float32)
    squares = np.minimum(np.arange(16), players - 1)
    worth = dict(
        zip(map(tuple, shown.astype(int)), np.asarray(value(shown[:, squares])))
    )
    values = np.zeros(players)
    for coalition in worth:
        size = sum(coalition)
        for player in range(players):
            if not coalition[player]:
                grown = tuple(x or i == player for i, x in enumerate(coalition))
                ways = math.comb(players - 1, size) * players
                values[player] += (
                    worth[tuple(map(int, grown))] - worth[coalition]
                ) / ways
    return values


def steep(shown):
    """Interactions of any order."""
    weights = jnp.asarray(np.random.default_rng(1).normal(size=16), jnp.float32)
    return jnp.tanh(shown @ weights) + shown[:, 0] * shown[:, 1] * shown[:, 2]


@pytest.mark.parametrize("players", [1, 2, 3, 6, 8])
def test_exact_where_all_coalitions_are_enumerated(players):
    segments = segments_of(players)
    maps, aux = kernel_shap(
        classifier_of(steep),
        IMAGE,
        0,
        key=KEY,
        segments=segments,
        samples=300,
        output="logit",
        return_aux=True,
    )
    expected = brute_force(steep, players)
    np.testing.assert_allclose(aux["coefficients"][0], expected, atol=1e-5)
    np.testing.assert_allclose(maps[0], expected[segments], atol=1e-5)


@pytest.mark.parametrize(("samples", "tolerance"), [(1000, 0.15), (8000, 0.05)])
def test_sampled_coalitions_approach_the_values(samples, tolerance):
    value, a, b = quadratic(16)
    _, aux = kernel_shap(
        classifier_of(value),
        IMAGE,
        0,
        key=KEY,
        batch_size=1000,
        segments=segments_of(16),
        samples=samples,
        output="logit",
        return_aux=True,
    )
    expected = a + (b + b.T).sum(axis=1) / 2  # a pair's worth is shared equally
    np.testing.assert_allclose(aux["coefficients"][0], expected, atol=tolerance)


def test_an_additive_score_needs_few_samples():
    a = np.linspace(-2, 3, 16).astype(np.float32)
    maps = kernel_shap(
        classifier_of(lambda shown: shown @ a + 5),
        IMAGE,
        0,
        segments=segments_of(16),
        samples=100,
        output="logit",
    )
    np.testing.assert_allclose(maps[0], a[segments_of(16)], atol=1e-4)


@pytest.mark.parametrize("samples", [1, 7, 100])
def test_values_add_up_to_the_score(samples):
    images = np.concatenate([IMAGE, 0.5 * IMAGE])
    segments = np.stack([segments_of(16), segments_of(11)])
    model = classifier_of(steep)
    _, aux = kernel_shap(
        model,
        images,
        0,
        segments=segments,
        samples=samples,
        output="logit",
        return_aux=True,
    )
    np.testing.assert_allclose(aux["baseline"], [0, 0], atol=1e-6)
    np.testing.assert_allclose(
        aux["coefficients"].sum(axis=1), model(images)[:, 0], atol=1e-5
    )
    assert not aux["coefficients"][1, 11:].any()


def test_draws():
    used = jnp.arange(64) < 5
    shown = jax.vmap(lambda i: draw(KEY, i, used, 10))(jnp.arange(20000))
    shown = np.asarray(shown)
    assert not shown[:, 5:].any()
    np.testing.assert_array_equal(shown[::2, :5], ~shown[1::2, :5])
    size = shown.sum(axis=1)
    masses = np.array([1 / (k * (5 - k)) for k in range(1, 5)])
    shares = np.bincount(size, minlength=6)[1:5] / len(size)
    np.testing.assert_allclose(shares, masses / masses.sum(), atol=0.01)
    np.testing.assert_allclose(shown[size == 1].mean(axis=0)[:5], 0.2, atol=0.015)
    # As many samples as coalitions: each once.
    listed = jax.vmap(lambda i: draw(KEY, i, used, 30))(jnp.arange(30))
    assert len(np.unique(np.asarray(listed), axis=0)) == 30
    assert set(np.asarray(listed).sum(axis=1)) == {1, 2, 3, 4}


def test_images_with_different_segments():
    model = classifier_of(steep)
    images = np.concatenate([IMAGE, 0.5 * IMAGE])
    segments = np.stack([segments_of(16), segments_of(9)])
    options = dict(key=KEY, samples=100, output="logit")
    maps = kernel_shap(model, images, 0, segments=segments, **options)
    for i in range(2):
        single = kernel_shap(
            model, images[i : i + 1], 0, segments=segments[i], **options
        )
        np.testing.assert_allclose(maps[i], single[0], atol=1e-4)
    more = kernel_shap(model, images, 0, segments=segments, max_segments=70, **options)
    np.testing.assert_allclose(more, maps, atol=1e-4)
