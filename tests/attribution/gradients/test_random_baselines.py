"""Expected gradients: closed forms, and what holds in expectation."""

import inspect

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
    with pytest.raises(InputError, match="points='random' is unknown: use one of"):
        inspect.unwrap(expected_gradients)(linear, IMAGES, 1, points="random")
    with pytest.raises(InputError, match=r"sigma of shape \(2,\) for images of 3"):
        expected_gradients(linear, IMAGES, 1, sigma=np.ones(2, np.float32))


def test_independent_points_have_more_noise():
    """Of a square the mean of a decides: its deviation over keys is known."""
    count = 100
    options = {"references": REFERENCES[:1], "samples": count, "reduction": None}
    change = (IMAGES - REFERENCES[:1])[0]
    pixel = np.unravel_index(np.abs(change).argmax(), change.shape)

    def means(points):
        for seed in range(12):
            options["key"] = jax.random.key(seed)
            maps = expected_gradients(square, IMAGES[:1], 0, points=points, **options)
            # change * (reference + a * change), solved for the mean of a
            share = np.asarray(maps)[0][pixel] / change[pixel]
            yield (share - REFERENCES[0][pixel]) / change[pixel]

    independent, stratified = (
        np.array(list(means(points))) - 0.5 for points in ("independent", "stratified")
    )
    deviation = 1 / np.sqrt(12 * count)
    assert deviation / 2 < independent.std() < 2 * deviation
    assert np.abs(independent.mean()) < deviation
    assert np.abs(stratified).max() < 4 * deviation / count


def test_noise_on_the_image():
    """Of a linear model it moves the image, so what is explained moves with it."""
    sigma = np.array([0.0, 0.1, 0.3], np.float32)
    options = {"key": KEY, "references": REFERENCES[:1], "reduction": None}
    of = lambda samples, **more: expected_gradients(
        linear, IMAGES, 1, samples=samples, return_aux=True, **options, **more
    )
    (moved, aux), (still, _) = of(1, sigma=sigma), of(1)
    noise = np.asarray(moved - still) / WEIGHTS[..., 1]
    np.testing.assert_allclose(aux["completeness_gap"], np.zeros(2), atol=1e-4)
    np.testing.assert_allclose(noise[0], noise[1], atol=1e-3)
    deviations = noise[0].std(axis=(0, 1))
    np.testing.assert_allclose(deviations, sigma, atol=0.1)
    assert deviations[2] > 2 * deviations[1] > 0.1
    maps, aux = of(400, sigma=sigma, layer=(lambda x: x, linear))
    np.testing.assert_allclose(maps, still, atol=0.1)
    np.testing.assert_allclose(aux["completeness_gap"], np.zeros(2), atol=1e-3)
