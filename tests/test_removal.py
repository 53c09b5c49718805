"""Removing evidence: a blur that darkens nothing, noise drawn for each image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax import removal
from saliency_jax.errors import InputError
from saliency_jax.removal import RemovalOptions, remove_evidence

REACH = 27 / 11


@pytest.mark.parametrize(("size", "sigma"), [(224, 11.0), (32, 1.57), (5, 11.0)])
def test_blur_keeps_constants_to_the_border(size, sigma):
    images = jnp.full((1, size, size + 3, 3), 0.7)
    blurred = removal.gaussian_blur(images, sigma, REACH)
    np.testing.assert_allclose(blurred, 0.7, rtol=1e-5)


def test_blur_is_scipys_with_mirrored_borders():
    ndimage = pytest.importorskip("scipy.ndimage")
    images = np.random.default_rng(0).random((1, 40, 30, 2)).astype(np.float32)
    expected = ndimage.gaussian_filter(
        images, (0, 3, 3, 0), mode="reflect", radius=(0, 7, 7, 0)
    )
    assert round(REACH * 3) == 7
    blurred = removal.gaussian_blur(jnp.asarray(images), 3.0, REACH)
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


def test_blur_is_centred_and_of_the_codes_width():
    """The code's kernel has 55 pixels at sigma 11."""
    line = np.asarray(removal.blur_matrix(224, 11.0, REACH))[112]
    np.testing.assert_array_equal(np.flatnonzero(line), np.arange(112 - 27, 112 + 28))
    np.testing.assert_allclose(line[112:140], line[84:113][::-1][:28], rtol=1e-6)


def test_a_blur_of_nothing_is_the_image():
    images = jax.random.uniform(jax.random.key(0), (2, 8, 9, 3))
    np.testing.assert_allclose(
        removal.gaussian_blur(images, 0.0, REACH), images, rtol=1e-6
    )


IMAGES = jax.random.uniform(jax.random.key(1), (16, 32, 32, 3))
ONES = jnp.ones((16, 32, 32))


def test_what_is_kept_is_the_image_with_a_little_noise():
    kept = remove_evidence(jax.random.key(0), IMAGES, ONES, RemovalOptions())
    noise = np.asarray(kept - IMAGES)
    assert abs(noise.std() - 0.015) < 5e-4 and abs(noise.mean()) < 5e-4


def test_each_image_draws_its_own_alternative():
    bright = 0.9 + 0.1 * IMAGES
    other = remove_evidence(jax.random.key(0), bright, 0 * ONES, RemovalOptions())
    means = np.asarray(other.mean((1, 2)))
    is_blur = means.min(-1) > 0.9
    assert 3 <= is_blur.sum() <= 13  # of sixteen coins
    colours = means[~is_blur]
    assert np.abs(colours - 0.5).max() < 0.165 + 0.01
    assert len(np.unique(colours.round(3), axis=0)) == len(colours)
    deviations = np.asarray(jnp.std(other, axis=(1, 2)))[~is_blur]
    np.testing.assert_allclose(deviations, 0.055, atol=0.005)


def test_two_keys_give_two_draws_and_one_key_one():
    draws = [
        remove_evidence(jax.random.key(seed), IMAGES, 0.5 * ONES, RemovalOptions())
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert float(jnp.abs(draws[0] - draws[2]).mean()) > 0.01


def test_no_gradient_passes_through_the_alternative():
    options = RemovalOptions(blur_probability=1.0)
    total = lambda images: remove_evidence(
        jax.random.key(0), images, 0.25 * ONES, options
    ).sum()
    np.testing.assert_allclose(jax.grad(total)(IMAGES), 0.25, rtol=1e-6)


def test_zero_removal_is_grey_and_draws_nothing():
    options = RemovalOptions(removal="zero")
    removed = remove_evidence(jax.random.key(0), IMAGES, 0 * ONES, options)
    np.testing.assert_allclose(removed, 0.5)
    with pytest.raises(InputError, match="unknown removal 'black'"):
        RemovalOptions(removal="black")
