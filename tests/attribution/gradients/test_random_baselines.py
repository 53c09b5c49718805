"""Expected gradients: closed forms, and what holds in expectation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.gradients.path_integrals import integrated_gradients
from saliency_jax.attribution.gradients.random_baselines import expected_gradients
from saliency_jax.errors import InputError
from tests.attribution.gradients.linear import IMAGES, WEIGHTS, linear
from tests.attribution.small_network import classifier, images

KEY = jax.random.key(5)
REFERENCES = np.random.default_rng(2).uniform(size=(3, 6, 5, 3)).astype(np.float32)


def square(images):
    return jnp.sum(images**2, axis=(1, 2, 3))[:, None] / 2


def test_of_a_linear_model_the_mean_of_some_of_the_references():
    options = {"key": KEY, "references": REFERENCES, "samples": 20}
    maps, aux = expected_gradients(
        linear, IMAGES, 1, reduction=None, return_aux=True, **options
    )
    np.testing.assert_allclose(aux["completeness_gap"], np.zeros(2), atol=1e-4)
    mean = IMAGES - np.asarray(maps) / WEIGHTS[..., 1]
    np.testing.assert_allclose(mean[0], mean[1], atol=1e-3)
    shares, *_ = np.linalg.lstsq(REFERENCES.reshape(3, -1).T, mean[0].ravel())
    np.testing.assert_allclose(20 * shares, np.round(20 * shares), atol=0.02)
    assert abs(shares.sum() - 1) < 1e-3 and shares.min() > 0.1


def test_of_one_reference_integrated_gradients():
    """Of a half square (x^2 - b^2) / 2, but for the draws; the mean of a is 1/2."""
    options = {"key": KEY, "references": REFERENCES[:1], "samples": 400}
    maps = expected_gradients(square, IMAGES, 0, reduction=None, **options)
    expected = (IMAGES**2 - REFERENCES[:1] ** 2) / 2
    np.testing.assert_allclose(maps, expected, atol=1e-3)
    model, batch = classifier(), images(2)
    grey = np.full_like(batch[:1], 0.5)
    maps = np.asarray(
        expected_gradients(model, batch, 1, key=KEY, references=grey, samples=200)
    )
    expected = np.asarray(
        integrated_gradients(model, batch, 1, baseline=0.5, steps=200)
    )
    scale = np.abs(expected).max()
    assert np.abs(maps - expected).max() < 0.02 * scale


def test_an_image_has_no_share_against_itself():
    maps = expected_gradients(square, IMAGES[:1], 0, references=IMAGES[:1], samples=3)
    assert not np.asarray(maps).any()


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("layer", [None, "conv1"])
def test_complete_in_expectation(given, layer):
    model, batch = classifier(), images(2)
    options = {"references": images(5, seed=9) if given else None, "layer": layer}
    gap = {}
    for samples in (4, 1000):
        _, aux = expected_gradients(
            model, batch, 1, samples=samples, return_aux=True, batch_size=500, **options
        )
        gap[samples] = np.abs(np.asarray(aux["completeness_gap"])).max()
    assert gap[1000] < 0.02 and gap[4] > gap[1000]


def test_noise_is_uniform():
    """The mean reference of a linear model's shares is one half."""
    maps = expected_gradients(linear, IMAGES, 1, samples=2000, reduction=None)
    mean = IMAGES - np.asarray(maps) / WEIGHTS[..., 1]
    assert np.abs(mean - 0.5).max() < 0.05


def test_references_in_bytes():
    pixels = np.round(REFERENCES * 255).astype(np.uint8)
    of = lambda references: np.asarray(
        expected_gradients(square, IMAGES, 0, samples=4, references=references)
    )
    np.testing.assert_allclose(of(pixels), of(pixels / np.float32(255)), atol=1e-6)


def test_what_cannot_be_is_said():
    for references in (REFERENCES[:0], REFERENCES[:, :4], REFERENCES[0]):
        with pytest.raises(InputError, match="expected at least one, of the same size"):
            expected_gradients(linear, IMAGES, 1, references=references)
    with pytest.raises(InputError, match="samples is 0"):
        expected_gradients(linear, IMAGES, 1, samples=0)
