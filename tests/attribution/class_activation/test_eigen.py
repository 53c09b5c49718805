"""Eigen-CAM against NumPy's decomposition, and its sign."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.class_activation.eigen import eigen_cam
from saliency_jax.errors import InputError
from tests.attribution.small_network import classifier, images


def map_of(activations, variant="paper"):
    """Of a classifier whose layer gives just these."""
    functions = (
        lambda images: jnp.asarray(activations, jnp.float32)[None],
        lambda maps: maps.mean((1, 2)),
    )
    whole = lambda images: functions[1](functions[0](images))
    options = {"layer": functions, "variant": variant, "upsampling": None}
    return np.asarray(eigen_cam(whole, np.zeros((1, 8, 8, 3)), 0, **options))[0]


@pytest.mark.parametrize("channels", [3, 40])  # fewer than positions, and more
@pytest.mark.parametrize("variant", ["paper", "pytorch-grad-cam"])
def test_is_the_first_component(channels, variant):
    random = np.random.default_rng(0)
    for _ in range(3):
        activations = np.maximum(random.normal(size=(4, 5, channels)), 0)
        found = map_of(activations, variant)
        assert found.shape == (4, 5)
        values = activations.reshape(20, channels)
        total = values.sum(1)
        if variant == "pytorch-grad-cam":
            values = values - values.mean(0)
            total = total - total.mean()
        expected = values @ np.linalg.svd(values)[2][0]
        expected = expected * np.sign(expected @ total)
        np.testing.assert_allclose(found.ravel(), expected, atol=1e-4)
        if variant == "paper":
            assert found.min() >= -1e-6
        else:
            np.testing.assert_allclose(found.mean(), 0, atol=1e-5)


def test_the_object_is_bright_however_the_channels_are_signed():
    """One object in all channels but the last, which is bright elsewhere."""
    there = np.zeros((6, 6, 4))
    there[1:3, 2:4] = 1
    there[..., 3] = 0.5 * (1 - there[..., 3])
    for variant in ("paper", "pytorch-grad-cam"):
        found = map_of(there, variant)
        assert found[1:3, 2:4].min() > found[4:].max()


def test_what_does_not_vary():
    constant = np.ones((4, 4, 3)) * np.array([1.0, 2.0, 2.0])
    np.testing.assert_allclose(map_of(constant), 3, atol=1e-5)
    np.testing.assert_array_equal(map_of(constant, "pytorch-grad-cam"), 0)
    np.testing.assert_array_equal(map_of(np.zeros((4, 4, 30))), 0)


def test_targets_do_not_matter_but_are_checked():
    model, batch = classifier(), images(2)
    np.testing.assert_array_equal(
        eigen_cam(model, batch, 0), eigen_cam(model, batch, 4)
    )
    with pytest.raises(InputError, match="the classifier knows classes"):
        eigen_cam(model, batch, 5)
    with pytest.raises(InputError, match="variant='none' is unknown"):
        inspect.unwrap(eigen_cam)(model, batch, variant="none")
