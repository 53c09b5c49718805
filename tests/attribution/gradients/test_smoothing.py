"""Gradients of noisy images: closed forms with the very noise, and edge cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from saliency_jax.attribution.gradients.plain import gradient
from saliency_jax.attribution.gradients.smoothing import (
    smooth_grad,
    smooth_grad_squared,
    var_grad,
)
from saliency_jax.errors import InputError
from tests.attribution.gradients.linear import IMAGES, WEIGHTS, linear
from tests.attribution.small_network import classifier, images
from tests.attribution.worked_example import IMAGE, answer_of

METHODS = (smooth_grad, smooth_grad_squared, var_grad)
KEY = jax.random.key(3)


def quadratic(images):
    """Its gradient is the image."""
    return jnp.sum(images**2, axis=(1, 2, 3))[:, None] / 2


def noisy(samples, deviations):
    """The images with the noise that the key stands for, `[samples, B, H, W, C]`."""
    keys = [jax.random.fold_in(KEY, sample) for sample in range(samples)]
    noise = np.stack([jax.random.normal(key, IMAGES.shape[1:]) for key in keys])
    return (IMAGES + deviations * noise[:, None]).astype(np.float64)


def of_range(level):
    return level * np.ptp(IMAGES, axis=(1, 2, 3)).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("batch_size", [None, 4, 1])
def test_mean_mean_square_and_variance_of_the_gradients(batch_size):
    gradients = noisy(5, of_range(0.2))
    options = {"key": KEY, "samples": 5, "noise_level": 0.2, "batch_size": batch_size}
    expected = {
        smooth_grad: gradients.mean(0),
        smooth_grad_squared: (gradients**2).mean(0),
        var_grad: gradients.var(0),
    }
    for method, values in expected.items():
        maps = method(quadratic, IMAGES, 0, reduction=None, **options)
        np.testing.assert_allclose(maps, values, rtol=1e-4)
        # Channels are reduced last: not the mean of the samples' maps.
        for reduction, function in (("max_abs", np.max), ("sum_abs", np.sum)):
            maps = method(quadratic, IMAGES, 0, reduction=reduction, **options)
            np.testing.assert_allclose(maps, function(np.abs(values), -1), rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.3, np.array([0.1, 0.0, 0.5], np.float32)])
def test_a_standard_deviation_for_all_images(sigma):
    gradients = noisy(6, sigma)
    options = {"key": KEY, "samples": 6, "sigma": sigma, "reduction": None}
    maps = var_grad(quadratic, IMAGES, 0, **options)
    np.testing.assert_allclose(maps, gradients.var(0), rtol=1e-4, atol=1e-10)


def test_of_a_linear_model_its_weights():
    maps = [method(linear, IMAGES, 1, reduction=None) for method in METHODS]
    weights = WEIGHTS[..., 1]
    np.testing.assert_allclose(maps[0][0], weights, rtol=1e-5)
    np.testing.assert_allclose(maps[1][0], weights**2, rtol=1e-5)
    np.testing.assert_allclose(maps[2], np.zeros_like(IMAGES), atol=1e-10)


@pytest.mark.parametrize("none", [{"noise_level": 0.0}, {"sigma": 0.0}])
def test_without_noise_the_gradient(none):
    model, batch = classifier(), images(2)
    for at in ({}, {"layer": "conv1"}):
        plain = np.asarray(gradient(model, batch, 2, reduction=None, **at))
        options = {"reduction": None, "samples": 3, **none, **at}
        smooth, squared, variance = (
            np.asarray(method(model, batch, 2, **options)) for method in METHODS
        )
        scale = np.abs(plain).max()
        np.testing.assert_allclose(smooth, plain, atol=1e-5 * scale)
        np.testing.assert_allclose(squared, plain**2, atol=1e-5 * scale**2)
        np.testing.assert_allclose(variance, 0 * plain, atol=1e-9 * scale**2)


def test_an_image_of_one_colour_has_no_noise():
    model, batch = classifier(), np.full((1, 16, 16, 3), 0.3, np.float32)
    expected = np.asarray(gradient(model, batch, 2))
    maps = smooth_grad(model, batch, 2, samples=2)
    np.testing.assert_allclose(maps, expected, atol=1e-5 * expected.max())
    assert np.asarray(var_grad(model, batch, 2, samples=2)).max() < 1e-9


def test_a_small_variance_beside_a_large_mean_is_not_lost():
    """Two sums in float32 would give multiples of 0.06, or negative numbers."""
    steep = lambda images: (
        1000 * jnp.sum(images, (1, 2, 3))[:, None] + 0.1 * quadratic(images)
    )
    options = {"key": KEY, "samples": 40, "sigma": 0.3, "batch_size": 3}
    maps = np.asarray(var_grad(steep, IMAGES, 0, reduction=None, **options))
    expected = 0.01 * noisy(40, 0.3).var(0)
    assert maps.min() >= 0
    np.testing.assert_allclose(maps, expected, rtol=0.02)


def test_one_sample_has_no_variance():
    assert np.asarray(var_grad(quadratic, IMAGES, 0, samples=1)).max() < 1e-12


def test_at_a_layer_the_noise_is_on_the_images():
    def squares(images):
        squared = checkpoint_name(images**2, "squared")
        return jnp.sum(squared**2, axis=(1, 2, 3))[:, None] / 2

    options = {"key": KEY, "samples": 4, "sigma": 0.1, "reduction": None}
    maps = smooth_grad(squares, IMAGES, 0, layer="squared", **options)
    np.testing.assert_allclose(maps, (noisy(4, 0.1) ** 2).mean(0), rtol=1e-4)


def test_worked_example():
    """Little noise does not switch any unit of it."""
    options = {"sigma": 1e-3, "samples": 3}
    maps = smooth_grad(answer_of, IMAGE, 0, **options)
    np.testing.assert_allclose(maps, gradient(answer_of, IMAGE, 0), atol=1e-6)
    at = {"layer": "relu1", "upsampling": None}
    maps = smooth_grad(answer_of, IMAGE, 0, **options, **at)
    np.testing.assert_allclose(maps, np.ones((1, 2, 2)), atol=1e-6)


def test_the_class_is_that_of_the_image_without_noise():
    model, batch = classifier(), images(2)
    predicted = np.asarray(model(batch)).argmax(-1)
    options = {"samples": 4, "sigma": 2.0}
    np.testing.assert_array_equal(
        smooth_grad(model, batch, **options),
        smooth_grad(model, batch, predicted, **options),
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"samples": 0}, "samples is 0: it must be at least 1"),
        ({"noise_level": -0.1}, "noise_level is -0.1: it must be at least 0"),
        (
            {"sigma": np.ones(2, np.float32)},
            r"sigma of shape \(2,\) for images of 3",
        ),
    ],
)
def test_what_cannot_be_is_said(options, message):
    with pytest.raises(InputError, match=message):
        var_grad(linear, IMAGES, 1, **options)
