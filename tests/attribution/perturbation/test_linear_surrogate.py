"""LIME against a ridge regression in NumPy on the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from saliency_jax.attribution.perturbation.linear_surrogate import draw, lime
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from tests.attribution.perturbation.game import (
    IMAGE,
    LINEAR,
    classifier_of,
    quadratic,
    segments_of,
)

KEY = jax.random.key(5)
SAMPLES = 400
OPTIONS = dict(key=KEY, samples=SAMPLES, batch_size=100, output="logit")


@pytest.fixture(scope="module")
def shown():
    """The samples that the method makes of its key, `[N, 16]`."""
    used = jnp.arange(64) < 16
    rows = jax.vmap(lambda i: draw(KEY, i, used, SAMPLES))(jnp.arange(SAMPLES))
    return np.asarray(rows)[:, :16].astype(np.float64)


def ridge(features, answers, weights, penalty):
    """By least squares on rows that stand for the penalty."""
    root = np.sqrt(weights)[:, None]
    rows = np.hstack([features, np.ones((len(features), 1))]) * root
    penalties = np.sqrt(penalty) * np.eye(features.shape[1], features.shape[1] + 1)
    target = np.concatenate([answers * root[:, 0], np.zeros(features.shape[1])])
    solution = np.linalg.lstsq(np.vstack([rows, penalties]), target, rcond=None)[0]
    return solution[:-1], solution[-1]


def test_recovers_a_linear_model(shown):
    model, segments = classifier_of(LINEAR), segments_of(16)
    options = dict(segments=segments, value=0, return_aux=True, **OPTIONS)
    maps, aux = lime(model, IMAGE, 0, **options)
    assert shown[0].all() and abs(shown[1:].mean() - 0.5) < 0.02
    near = np.exp(-((1 - np.sqrt(shown.mean(axis=1))) ** 2) / 0.25**2 / 2)
    expected, intercept = ridge(shown, shown @ LINEAR.alone + 0.7, near, 1.0)
    np.testing.assert_allclose(aux["coefficients"][0], expected, atol=1e-4)
    np.testing.assert_allclose(aux["intercept"], [intercept], atol=1e-4)
    np.testing.assert_allclose(maps[0], expected[segments], atol=1e-4)
    # The shrinkage: the penalty against some tens of samples.
    np.testing.assert_allclose(expected, LINEAR.alone, atol=0.15)
    assert 0.99 < aux["score"][0] <= 1
    _, aux = lime(model, IMAGE, 0, penalty=1e-3, **options)
    np.testing.assert_allclose(aux["coefficients"][0], LINEAR.alone, atol=2e-3)
    np.testing.assert_allclose(aux["intercept"], [0.7], atol=2e-3)


def _squares(weights, images):
    return jnp.einsum("bhwc,hwc->b", images**2, weights)[:, None]


@pytest.mark.parametrize("variant", ["lime", "captum", "xplique"])
def test_the_weights_of_each_library(variant, shown):
    random = np.random.default_rng(0)
    image = random.uniform(size=(1, 8, 8, 3)).astype(np.float32)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    weights = random.normal(size=(8, 8, 3)).astype(np.float32)
    model = Classifier.from_function(Partial(_squares, weights), mean=mean, std=std)
    segments = segments_of(11)
    width = {"lime": 0.4, "captum": 0.3, "xplique": 6.0}[variant]
    _, aux = lime(
        model,
        image,
        0,
        segments=segments,
        value=0.2,
        variant=variant,
        kernel_width=width,
        penalty=2.0,
        return_aux=True,
        **OPTIONS,
    )
    shown = shown[:, :11]
    edited = np.where(shown[:, segments][..., None] == 1, image, 0.2)
    if variant == "lime":
        norms = np.linalg.norm(shown, axis=1) * np.sqrt(11)
        far = 1 - shown.sum(axis=1) / np.maximum(norms, 1e-12)
        near = np.sqrt(np.exp(-(far**2) / width**2))
    elif variant == "captum":
        flat = ((edited - mean) / std).reshape(SAMPLES, -1)
        norms = np.linalg.norm(flat, axis=1) * np.linalg.norm(flat[0])
        far = 1 - flat @ flat[0] / norms
        near = np.exp(-(far**2) / (2 * width**2))
    else:
        far = np.linalg.norm((edited - image).reshape(SAMPLES, -1), axis=1)
        near = np.exp(-(far**2) / width**2)
    assert near.min() < 0.6 and near[0] == pytest.approx(1)
    answers = np.einsum("bhwc,hwc->b", ((edited - mean) / std) ** 2, weights)
    expected, intercept = ridge(shown, answers, near, 2.0)
    np.testing.assert_allclose(aux["coefficients"][0], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(aux["intercept"][0], intercept, rtol=1e-3, atol=1e-3)
    mean = np.average(answers, weights=near)
    variance = np.average((answers - mean) ** 2, weights=near)
    rest = np.average((answers - shown @ expected - intercept) ** 2, weights=near)
    np.testing.assert_allclose(aux["score"][0], 1 - rest / variance, atol=1e-3)


def test_images_with_different_segments():
    model = classifier_of(quadratic())
    images = np.concatenate([IMAGE, 0.5 * IMAGE])
    segments = np.stack([segments_of(16), segments_of(5)])
    options = dict(value=0, return_aux=True, **OPTIONS)
    maps, _ = lime(model, images, 0, segments=segments, **options)
    for i in range(2):
        single, _ = lime(model, images[i : i + 1], 0, segments=segments[i], **options)
        np.testing.assert_allclose(maps[i], single[0], atol=1e-4)
    # Numbers with gaps; they are more than a block of draws.
    more, aux = lime(
        model, images, 0, segments=segments[[0, 0]], max_segments=70, **options
    )
    np.testing.assert_allclose(more[0], maps[0], atol=1e-4)
    assert aux["coefficients"].shape == (2, 70)
    assert not aux["coefficients"][:, 16:].any()
    gaps, aux = lime(model, images, 0, segments=segments * 4, **options)
    assert aux["coefficients"].shape == (2, 61)
    assert np.flatnonzero(aux["coefficients"][1]).tolist() == [0, 4, 8, 12, 16]


def test_what_hidden_segments_show():
    options = dict(segments=segments_of(16), **OPTIONS)
    model = classifier_of(LINEAR)
    maps, aux = lime(model, IMAGE, 0, return_aux=True, **options)
    np.testing.assert_allclose(maps, np.zeros((1, 8, 8)), atol=1e-5)
    assert np.isfinite(aux["score"]).all()
    half = IMAGE.copy()
    half[0, 0, 0] = 0  # two pixels of the first squares; their mean is what counts
    assert np.abs(lime(model, half, 0, **options)).max() < 1e-5
    of_mean = lime(model, half, 0, value=None, **options)
    assert abs(of_mean[0, 0, 0]) > 0.5


def test_probabilities_and_functions_of_them():
    model = Classifier.from_function(
        lambda images: jnp.pad(images.sum(axis=(1, 2)), ((0, 0), (0, 1))), mean=(0.0,)
    ).replace(std=(1.0,))
    options = dict(key=KEY, samples=50, segments=segments_of(4), value=0)
    first, second = (lime(model, IMAGE, i, **options) for i in (0, 1))
    assert np.ptp(first) > 1e-3
    np.testing.assert_allclose(first, -second, atol=1e-5)
    maps = lime(model, IMAGE, lambda p: p[0] - p[1], **options)
    np.testing.assert_allclose(maps, 2 * first, atol=1e-5)


def test_superpixels_are_made_outside_of_jit_and_passed_into_it():
    model = classifier_of(LINEAR)
    image = np.random.default_rng(0).uniform(size=(1, 8, 8, 1)).astype(np.float32)
    made = lime(model, np.concatenate([image, IMAGE]), 0, **OPTIONS)
    assert made.shape == (2, 8, 8) and np.isfinite(made).all()
    np.testing.assert_allclose(made[1], np.zeros((8, 8)), atol=1e-5)
    with pytest.raises(InputError, match=r"segments\.superpixels\(images\)"):
        jax.jit(lambda image: lime(model, image, 0, **OPTIONS))(image)
    segments = segments_of(16)
    inside = jax.jit(
        lambda image, segments: lime(
            model, image, 0, segments=segments, max_segments=16, **OPTIONS
        )
    )
    outside = lime(model, image, 0, segments=segments, **OPTIONS)
    np.testing.assert_allclose(inside(image, segments), outside, atol=1e-4)


def test_errors():
    call = lambda **options: lime(
        classifier_of(LINEAR), IMAGE, 0, segments=segments_of(16), **options
    )
    with pytest.raises(InputError, match="penalty is 0.0: it must be above 0"):
        call(penalty=0.0)
    with pytest.raises(InputError, match="samples is 0: it must be at least 1"):
        call(samples=0)
