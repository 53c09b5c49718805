"""KernelSHAP against Shapley values from their definition."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.perturbation.shapley import draw, kernel_shap
from tests.attribution.perturbation.game import (
    IMAGE,
    LINEAR,
    classifier_of,
    quadratic,
    segments_of,
    steep,
)

KEY = jax.random.key(2)
SAMPLES = 300
OPTIONS = dict(key=KEY, batch_size=100, output="logit", return_aux=True)


def brute_force(game, players):
    """Shapley values: the mean over all orders of what a player adds."""
    shown = np.array(list(itertools.product([0, 1], repeat=players)), np.float32)
    squares = np.minimum(np.arange(16), players - 1)
    values = np.asarray(game(shown[:, squares]))
    worth = dict(zip(map(tuple, shown.astype(int).tolist()), values, strict=True))
    means = np.zeros(players)
    for coalition, value in worth.items():
        ways = math.comb(players - 1, min(sum(coalition), players - 1)) * players
        for player in range(players):
            if not coalition[player]:
                grown = (*coalition[:player], 1, *coalition[player + 1 :])
                means[player] += (worth[grown] - value) / ways
    return means


@pytest.mark.parametrize("players", [1, 2, 3, 6, 8])
def test_exact_where_all_coalitions_are_enumerated(players):
    # With 16 players in a second image, which are sampled.
    segments = np.stack([segments_of(players), segments_of(16)])
    images = np.concatenate([IMAGE, IMAGE])
    maps, aux = kernel_shap(
        classifier_of(steep()), images, 0, segments=segments, samples=SAMPLES, **OPTIONS
    )
    expected = brute_force(steep(), players)
    np.testing.assert_allclose(aux["coefficients"][0, :players], expected, atol=1e-5)
    np.testing.assert_allclose(maps[0], expected[segments[0]], atol=1e-5)
    assert not aux["coefficients"][0, players:].any()


def test_only_as_many_coalitions_as_there_are_go_through_the_classifier():
    shown = []

    def logits(images):
        jax.debug.callback(lambda images: shown.append(len(images)), images)
        return images.sum(axis=(1, 2))

    _, aux = kernel_shap(
        logits, IMAGE, 0, segments=segments_of(3), samples=SAMPLES, **OPTIONS
    )
    jax.effects_barrier()
    assert sum(shown) == 6 + 2  # and none, and all
    np.testing.assert_allclose(aux["coefficients"], [[4, 4, 56]], atol=1e-4)


@pytest.mark.parametrize(("samples", "tolerance"), [(SAMPLES, 0.3), (4000, 0.08)])
def test_sampled_coalitions_approach_the_values(samples, tolerance):
    game = quadratic()
    _, aux = kernel_shap(
        classifier_of(game),
        IMAGE,
        0,
        segments=segments_of(16),
        samples=samples,
        **OPTIONS,
    )
    # A pair's worth is shared equally.
    expected = game.alone + (game.pairs + game.pairs.T).sum(axis=1) / 2
    np.testing.assert_allclose(aux["coefficients"][0], expected, atol=tolerance)


def test_an_additive_score_needs_few_samples():
    maps, _ = kernel_shap(
        classifier_of(LINEAR), IMAGE, 0, segments=segments_of(16), samples=99, **OPTIONS
    )
    np.testing.assert_allclose(maps[0], LINEAR.alone[segments_of(16)], atol=1e-4)


@pytest.mark.parametrize(
    "samples", [1, pytest.param(7, marks=pytest.mark.slow), SAMPLES]
)
def test_values_add_up_to_the_score(samples):
    images = np.concatenate([IMAGE, 0.5 * IMAGE])
    segments = np.stack([segments_of(16), segments_of(11)])
    model = classifier_of(steep())
    _, aux = kernel_shap(
        model, images, 0, segments=segments, samples=samples, **OPTIONS
    )
    np.testing.assert_allclose(aux["baseline"], [0, 0], atol=1e-6)
    sums = aux["coefficients"].sum(axis=1)
    np.testing.assert_allclose(sums, model(images)[:, 0], atol=1e-5)


def test_draws():
    used = jnp.arange(64) < 5
    draws = jax.jit(jax.vmap(draw, (None, 0, None, None)), static_argnums=3)
    shown = np.asarray(draws(KEY, jnp.arange(10000), used, 10))
    assert not shown[:, 5:].any()
    np.testing.assert_array_equal(shown[::2, :5], ~shown[1::2, :5])
    size = shown.sum(axis=1)
    masses = np.array([1 / (k * (5 - k)) for k in range(1, 5)])
    shares = np.bincount(size, minlength=6)[1:5] / len(size)
    np.testing.assert_allclose(shares, masses / masses.sum(), atol=0.015)
    np.testing.assert_allclose(shown[size == 1].mean(axis=0)[:5], 5 * [0.2], atol=0.025)
    # As many samples as coalitions: each once.
    listed = np.asarray(draws(KEY, jnp.arange(30), used, 30))
    assert len(np.unique(listed, axis=0)) == 30
    assert set(listed.sum(axis=1)) == {1, 2, 3, 4}


def test_images_with_different_segments():
    model = classifier_of(steep())
    images = np.concatenate([IMAGE, 0.5 * IMAGE])
    segments = np.stack([segments_of(16), segments_of(11)])
    options = dict(samples=SAMPLES, **OPTIONS)
    maps, _ = kernel_shap(model, images, 0, segments=segments, **options)
    for i in range(2):
        single, _ = kernel_shap(
            model, images[i : i + 1], 0, segments=segments[i], **options
        )
        np.testing.assert_allclose(maps[i], single[0], atol=1e-4)
    more, _ = kernel_shap(
        model, images, 0, segments=segments, max_segments=70, **options
    )
    np.testing.assert_allclose(more, maps, atol=1e-4)
