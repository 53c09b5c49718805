"""LIME against a ridge regression in NumPy on the same draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.linear_surrogate import draw, lime
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from tests.attribution.game import IMAGE, classifier_of, quadratic, segments_of

KEY = jax.random.key(5)
A = np.linspace(-2, 3, 16).astype(np.float32)


def linear(shown):
    return shown @ A + 0.7


def draws(samples, used):
    """The samples that the method makes of its key, `[N, 16]`."""
    padded = jnp.asarray(np.pad(used, (0, 64 - len(used))))
    rows = jax.vmap(lambda i: draw(KEY, i, padded, samples))(jnp.arange(samples))
    return np.asarray(rows)[:, : len(used)].astype(np.float64)


def ridge(features, answers, weights, penalty):
    """By least squares on rows that stand for the penalty."""
    root = np.sqrt(weights)[:, None]
    rows = np.hstack([features, np.ones((len(features), 1))]) * root
    penalties = np.sqrt(penalty) * np.eye(features.shape[1], features.shape[1] + 1)
    target = np.concatenate([answers * root[:, 0], np.zeros(features.shape[1])])
    solution = np.linalg.lstsq(np.vstack([rows, penalties]), target, rcond=None)[0]
    return solution[:-1], solution[-1]


def test_recovers_a_linear_model():
    model, segments = classifier_of(linear), segments_of(16)
    options = dict(key=KEY, segments=segments, value=0, output="logit")
    maps, aux = lime(model, IMAGE, 0, samples=800, return_aux=True, **options)
    shown = draws(800, np.ones(16, bool))
    assert shown[0].all() and abs(shown[1:].mean() - 0.5) < 0.02
    near = np.exp(-((1 - np.sqrt(shown.mean(axis=1))) ** 2) / 0.25**2 / 2)
    expected, intercept = ridge(shown, shown @ A + 0.7, near, 1.0)
    np.testing.assert_allclose(aux["coefficients"][0], expected, atol=1e-4)
    np.testing.assert_allclose(aux["intercept"], [intercept], atol=1e-4)
    np.testing.assert_allclose(maps[0], expected[segments], atol=1e-4)
    # The shrinkage: the penalty against some hundred samples.
    np.testing.assert_allclose(expected, A, atol=0.1)
    assert 0.999 < aux["score"][0] <= 1
    _, aux = lime(
        model, IMAGE, 0, samples=800, return_aux=True, penalty=1e-3, **options
    )
    np.testing.assert_allclose(aux["coefficients"][0], A, atol=1e-3)
    np.testing.assert_allclose(aux["intercept"], [0.7], atol=1e-3)


@pytest.mark.parametrize("variant", ["lime", "captum", "xplique"])
def test_the_weights_of_each_library(variant):
    random = np.random.default_rng(0)
    image = random.uniform(size=(1, 8, 8, 3)).astype(np.float32)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.25])
    weights = random.normal(size=(8, 8, 3)).astype(np.float32)
    logits = lambda images: jnp.einsum("bhwc,hwc->b", images**2, weights)[:, None]
    model = Classifier.from_function(logits, mean=mean, std=std)
    segments = segments_of(11)
    width = {"lime": 0.4, "captum": 0.3, "xplique": 6.0}[variant]
    _, aux = lime(
        model,
        image,
        0,
        key=KEY,
        segments=segments,
        samples=300,
        value=0.2,
        variant=variant,
        kernel_width=width,
        penalty=2.0,
        output="logit",
        return_aux=True,
    )
    shown = draws(300, np.ones(11, bool))
    edited = np.where(shown[:, segments][..., None] == 1, image, 0.2)
    if variant == "lime":
        ones = np.ones(11)
        norms = np.linalg.norm(shown, axis=1) * np.linalg.norm(ones)
        far = 1 - shown @ ones / np.maximum(norms, 1e-12)
        near = np.sqrt(np.exp(-(far**2) / width**2))
    elif variant == "captum":
        flat = ((edited - mean) / std).reshape(300, -1)
        norms = np.linalg.norm(flat, axis=1) * np.linalg.norm(flat[0])
        far = 1 - flat @ flat[0] / norms
        near = np.exp(-(far**2) / (2 * width**2))
    else:
        far = np.linalg.norm((edited - image).reshape(300, -1), axis=1)
        near = np.exp(-(far**2) / width**2)
    assert near.min() < 0.6 and near[0] == pytest.approx(1)
    answers = np.einsum("bhwc,hwc->b", edited**2, weights)
    expected, intercept = ridge(shown, answers, near, 2.0)
    np.testing.assert_allclose(aux["coefficients"][0], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(aux["intercept"][0], intercept, rtol=1e-3, atol=1e-3)
    rest = answers - shown @ expected - intercept
    variance = np.average(
        (answers - np.average(answers, weights=near)) ** 2, weights=near
    )
    score = 1 - np.average(rest**2, weights=near) / variance
    np.testing.assert_allclose(aux["score"][0], score, atol=1e-3)


def test_images_with_different_segments():
    value, _, _ = quadratic(16)
    model = classifier_of(value)
    images = np.concatenate([IMAGE, 0.5 * IMAGE])
    segments = np.stack([segments_of(16), segments_of(5)])
    options = dict(key=KEY, samples=100, value=0, output="logit")
    maps = lime(model, images, 0, segments=segments, **options)
    for i in range(2):
        single = lime(model, images[i : i + 1], 0, segments=segments[i], **options)
        np.testing.assert_allclose(maps[i], single[0], atol=1e-5)
    # Other numbers, with gaps, are the same segments.
    more = lime(model, images, 0, segments=segments, max_segments=150, **options)
    np.testing.assert_allclose(more, maps, atol=1e-5)
    _, aux = lime(model, images, 0, segments=segments * 7, return_aux=True, **options)
    assert aux["coefficients"].shape == (2, 15 * 7 + 1)
    assert np.flatnonzero(aux["coefficients"][1]).tolist() == [0, 7, 14, 21, 28]


def test_segments_hidden_by_their_own_colour():
    options = dict(key=KEY, samples=30, segments=segments_of(16), output="logit")
    model = classifier_of(linear)
    maps, aux = lime(model, IMAGE, 0, return_aux=True, **options)
    np.testing.assert_allclose(maps, np.zeros((1, 8, 8)), atol=1e-5)
    assert np.isfinite(aux["score"]).all()
    half = IMAGE.copy()
    half[0, 0, 0] = 0  # of the first square
    first = lime(model, half, 0, value=None, **options)
    own = lime(model, half, 0, **options)
    assert abs(first[0, 0, 0]) > 0.1 and np.abs(own).max() < 1e-5


def test_probabilities_and_functions_of_them():
    model = Classifier.from_function(
        lambda images: jnp.stack(
            [images.sum(axis=(1, 2, 3)), jnp.zeros(len(images))], 1
        ),
        mean=(0.0,),
    )
    options = dict(key=KEY, samples=50, segments=segments_of(4), value=0)
    first, second = (lime(model, IMAGE, i, **options) for i in (0, 1))
    np.testing.assert_allclose(first, -second, atol=1e-5)
    maps = lime(model, IMAGE, lambda p: p[0] - p[1], **options)
    np.testing.assert_allclose(maps, 2 * first, atol=1e-5)


def test_superpixels_are_made_outside_of_jit_and_passed_into_it():
    model = classifier_of(linear)
    image = np.repeat(np.random.default_rng(0).uniform(size=(1, 8, 8, 1)), 3, axis=-1)
    image = image.astype(np.float32)
    grey = lambda images: model(images[..., :1])
    options = dict(key=KEY, samples=20, output="logit")
    made = lime(grey, image, 0, **options)
    assert made.shape == (1, 8, 8) and np.isfinite(made).all()
    with pytest.raises(InputError, match=r"segments\.superpixels\(images\)"):
        jax.jit(lambda image: lime(grey, image, 0, **options))(image)
    segments = segments_of(16)
    inside = jax.jit(
        lambda image, segments: lime(
            grey, image, 0, segments=segments, max_segments=16, **options
        )
    )
    outside = lime(grey, image, 0, segments=segments, **options)
    np.testing.assert_allclose(inside(image, segments), outside, atol=1e-4)


def test_errors():
    call = lambda **options: lime(
        classifier_of(linear), IMAGE, 0, segments=segments_of(16), **options
    )
    with pytest.raises(InputError, match="penalty is 0: it must be above 0"):
        call(penalty=0)
    with pytest.raises(InputError, match="samples is 0: it must be at least 1"):
        call(samples=0)
