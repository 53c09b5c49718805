"""What holds for all gradient methods that sum up over samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax import attribution
from saliency_jax.attribution.layers import Unit
from tests.attribution.gradients.linear import IMAGES, WEIGHTS, linear
from tests.attribution.worked_example import IMAGE, answer_of

SUMMING = {
    "smooth_grad": {"samples": 5, "sigma": 1e-4},
    "ten_crop_gradient": {"crop_size": (6, 5)},
    "integrated_gradients": {"steps": 5},
    "blur_integrated_gradients": {"steps": 5, "max_sigma": 1.0},
    "expected_gradients": {"samples": 5},
}
every_one = pytest.mark.parametrize("name", SUMMING)


@every_one
def test_a_function_of_the_logits_as_target(name):
    """One that is a pytree, so that its array is no leaf of each image."""
    method, options = attribution.get(name), SUMMING[name]
    margin = jax.tree_util.Partial(
        lambda weights, logits: jnp.dot(weights, logits), jnp.array([-1.0, 0, 1, 0])
    )
    maps = method(linear, IMAGES, margin, batch_size=3, reduction="sum", **options)
    expected = [
        method(linear, IMAGES, target, batch_size=3, reduction="sum", **options)
        for target in (2, 0)
    ]
    np.testing.assert_allclose(maps, expected[0] - expected[1], atol=1e-5)


@every_one
def test_a_unit_as_target(name):
    """conv1 is linear: of the unit at (1, 0) the share of the pixels that it sees."""
    options = {**SUMMING[name]}
    if name == "ten_crop_gradient":
        options["crop_size"] = 4
    twice = np.concatenate([IMAGE, IMAGE])
    unit = Unit(jnp.array([1, 0]), (jnp.array([1, 0]), jnp.array([0, 1])), "conv1")
    maps = attribution.get(name)(answer_of, twice, unit, batch_size=3, **options)
    seen = np.zeros((2, 4, 4))
    seen[0, 1:, :3] = seen[1, :3, 1:] = 1
    if name == "ten_crop_gradient":
        seen = (seen + seen[:, :, ::-1]) / 2  # at the same place of the mirror image
    np.testing.assert_array_equal(np.abs(np.asarray(maps)) > 1e-3, seen > 0)


@every_one
def test_maps_are_differentiable(name):
    """With respect to the images, of a model with a second derivative."""
    smooth = lambda images: jnp.tanh(linear(images) / 5)
    method = attribution.get(name)

    def energy(images):
        maps = method(smooth, images, 1, batch_size=3, **SUMMING[name])
        return jnp.sum(maps**2)

    direction = np.random.default_rng(0).normal(size=IMAGES.shape).astype(np.float32)
    slope = np.sum(np.asarray(jax.grad(energy)(jnp.asarray(IMAGES))) * direction)
    step = 1e-2 * direction
    difference = (energy(IMAGES + step) - energy(IMAGES - step)) / 2e-2
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(slope, difference, rtol=0.05)


@pytest.mark.parametrize("name", list(SUMMING)[2:])
def test_gaps_in_parts_and_inside_a_users_jit(name):
    cube = lambda images: linear(images) ** 3 / 10
    method = attribution.get(name)
    call = lambda images, size: method(
        cube, images, 1, batch_size=size, return_aux=True, **SUMMING[name]
    )
    three = np.concatenate([IMAGES, IMAGES[:1] / 2])
    maps, aux = call(three, None)
    assert aux["completeness_gap"].shape == (3,)
    assert np.abs(np.asarray(aux["completeness_gap"])).max() > 1e-3
    for function in (call, jax.jit(call, static_argnums=1)):
        others, other = function(three, 2)
        np.testing.assert_allclose(others, maps, atol=1e-4)
        gaps = other["completeness_gap"]
        np.testing.assert_allclose(gaps, aux["completeness_gap"], atol=1e-3)


def test_weights_of_a_linear_model_everywhere():
    expected = (WEIGHTS[..., 3] * (IMAGES - 0.2)).sum(-1)
    reference = np.full_like(IMAGES[:1], 0.2)
    maps = attribution.integrated_gradients(linear, IMAGES, 3, baseline=0.2)
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    maps = attribution.expected_gradients(linear, IMAGES, 3, references=reference)
    np.testing.assert_allclose(maps, expected, atol=1e-5)
