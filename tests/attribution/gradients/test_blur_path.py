"""Blur integrated gradients: SciPy's blur, polynomials, completeness."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from scipy.ndimage import gaussian_filter

from saliency_jax.attribution.gradients.blur_path import (
    blur_integrated_gradients,
    sigmas,
)
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from tests.attribution.gradients.linear import IMAGES, WEIGHTS, linear
from tests.attribution.small_network import classifier, images


def blurred(images, sigma, mean=0.0):
    """SciPy's Gaussian filter, wide enough not to be cut off."""
    of = lambda image: gaussian_filter(
        image, [sigma, sigma, 0], mode="constant", truncate=8
    )
    return np.stack([of(image) for image in images.astype(np.float64) - mean]) + mean


@pytest.mark.parametrize("sigma", [0.4, 1.3, 20.0])
@pytest.mark.parametrize("spacing", ["linear", "square_root"])
def test_of_a_linear_model_weights_times_what_the_blur_takes(sigma, spacing):
    mean = np.array([0.4, 0.5, 0.6])
    model = Classifier.from_function(linear, mean=mean.tolist())
    for steps in (1, 6):
        maps = blur_integrated_gradients(
            model, IMAGES, 2, steps=steps, max_sigma=sigma, spacing=spacing
        )
        change = IMAGES - blurred(IMAGES, sigma, mean)
        expected = (WEIGHTS[..., 2] * change).sum(-1)
        np.testing.assert_allclose(maps, expected, atol=2e-3 if sigma > 2 else 2e-4)


def test_of_a_square_the_difference_of_squares():
    square = lambda images: jnp.sum(images**2, axis=(1, 2, 3))[:, None] / 2
    maps, aux = blur_integrated_gradients(
        square, IMAGES, 0, steps=4, max_sigma=2.0, reduction=None, return_aux=True
    )
    expected = (IMAGES**2 - blurred(IMAGES, 2.0) ** 2) / 2
    np.testing.assert_allclose(maps, expected, atol=1e-4)
    np.testing.assert_allclose(aux["completeness_gap"], np.zeros(2), atol=1e-4)


def test_the_integral_by_the_derivative_of_the_blur():
    """PAIR's sum with many steps, of a cube that mixes neighbours."""
    neighbours = lambda x: x + 2 * np.roll(x, 1, 2)
    cube = lambda images: jnp.sum(
        (images + 2 * jnp.roll(images, 1, 2)) ** 3, axis=(1, 2, 3)
    )[:, None]
    edges = np.linspace(0, 2, 801)
    expected = np.zeros(IMAGES.shape)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        here = blurred(IMAGES, (low + high) / 2)
        slope = 3 * neighbours(here) ** 2
        slope = slope + 2 * np.roll(slope, -1, 2)
        expected -= slope * (blurred(IMAGES, high) - blurred(IMAGES, max(low, 1e-9)))
    for spacing in ("linear", "square_root"):
        maps = blur_integrated_gradients(
            cube, IMAGES, 0, steps=60, max_sigma=2.0, spacing=spacing, reduction=None
        )
        error = np.abs(maps - expected).max() / np.abs(expected).max()
        assert error < 2e-3


@pytest.mark.parametrize("layer", [None, "conv1"])
def test_the_gap_is_that_of_the_sum_and_falls_with_the_steps(layer):
    model, batch = classifier(), images(3)
    ends = batch, blurred(batch, 6.0, np.float64(model.mean)).astype(np.float32)
    change = np.asarray(model(ends[0]) - model(ends[1]))[:, 1]
    gaps = []
    for steps in (3, 100):
        maps, aux = blur_integrated_gradients(
            model,
            batch,
            1,
            steps=steps,
            max_sigma=6.0,
            layer=layer,
            upsampling=None,
            return_aux=True,
        )
        gaps.append(np.asarray(aux["completeness_gap"]))
        expected = np.asarray(maps).sum((1, 2)) - change
        np.testing.assert_allclose(gaps[-1], expected, atol=1e-3)
    assert np.abs(gaps[1]).max() < 2e-3 < np.abs(gaps[0]).max()


def test_at_a_layer_the_path_is_of_what_it_gives():
    def squared_twice(images):
        squared = checkpoint_name(images**2, "squared")
        return jnp.sum(squared**2, axis=(1, 2, 3))[:, None] / 2

    maps = blur_integrated_gradients(
        squared_twice, IMAGES, 0, steps=2, max_sigma=1.0, layer="squared"
    )
    expected = (IMAGES**4 - blurred(IMAGES, 1.0) ** 4).sum(-1) / 2
    np.testing.assert_allclose(maps, expected, atol=2e-4)


def test_the_mean_colour_has_no_shares():
    model = classifier()
    batch = np.broadcast_to(np.float32(model.mean), (1, 16, 16, 3))
    maps = blur_integrated_gradients(model, batch, 1, steps=3)
    assert np.abs(np.asarray(maps)).max() < 1e-6


def test_steps():
    np.testing.assert_allclose(sigmas(4, 8.0, "linear"), [0, 2, 4, 6, 8])
    np.testing.assert_allclose(
        sigmas(4, 8.0, "square_root"), 8 * np.sqrt([0, 0.25, 0.5, 0.75, 1])
    )
    with pytest.raises(InputError, match="spacing='cubic' is unknown: use"):
        sigmas(4, 8.0, "cubic")
    for options in ({"steps": 0}, {"max_sigma": 0.0}):
        with pytest.raises(InputError, match="is 0"):
            blur_integrated_gradients(linear, IMAGES, 1, **options)
