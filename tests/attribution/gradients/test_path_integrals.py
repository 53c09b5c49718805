"""Integrated gradients: worked examples, polynomials, completeness, layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from saliency_jax.attribution.gradients.path_integrals import (
    integrated_gradients,
    nodes_and_weights,
)
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from tests.attribution.gradients.linear import IMAGES, WEIGHTS, linear
from tests.attribution.small_network import classifier, images
from tests.attribution.worked_example import IMAGE, answer_of

RULES = ("midpoint", "gauss_legendre", "trapezoid")
WORKED = [
    [0, 0.07405, 0.1481, 0.22215],
    [1.2346, 3.3025, 3.963, 2.46295],
    [2.4692, 5.9445, 6.605, 3.87035],
    [3.7038, 7.62385, 8.2103, 4.167],
]
each_rule = pytest.mark.parametrize("quadrature", RULES)


def power(exponent):
    return lambda images: jnp.sum(images**exponent, axis=(1, 2, 3))[:, None]


def test_worked_example():
    maps = integrated_gradients(answer_of, IMAGE, 0, steps=20000, batch_size=5000)
    np.testing.assert_allclose(maps[0], WORKED, atol=2e-3)
    assert abs(float(maps.sum()) - 54.001) < 5e-3


def test_gauss_legendre_is_no_better_on_it():
    """The sum of 50 steps as derived in NumPy, where it should be 54."""
    maps, aux = integrated_gradients(
        answer_of, IMAGE, 0, quadrature="gauss_legendre", return_aux=True
    )
    assert abs(float(maps.sum()) - 53.33) < 0.01
    assert abs(float(aux["completeness_gap"][0]) + 0.67) < 0.01


def test_captums_function_of_two_arguments():
    """ReLU(ReLU(x1) - 1 - ReLU(x2)) at (3, 1)."""

    def answer(images):
        first, second = jax.nn.relu(images.reshape(-1, 2)).T
        return jax.nn.relu(first - 1 - second)[:, None]

    for shape in ((1, 1, 2, 1), (1, 2, 1, 1), (1, 1, 1, 2)):
        at = np.array([3, 1], np.float32).reshape(shape)
        maps = integrated_gradients(answer, at, 0, steps=1000, reduction=None)
        assert maps.shape == shape
        np.testing.assert_allclose(np.ravel(maps), (1.5, -0.5), atol=2e-3)


@each_rule
@pytest.mark.parametrize("steps", [2, 7])
def test_of_a_linear_model_weights_times_the_way(quadrature, steps):
    options = {"quadrature": quadrature, "steps": steps, "baseline": 0.3}
    maps, aux = integrated_gradients(linear, IMAGES, 2, return_aux=True, **options)
    expected = (WEIGHTS[..., 2] * (IMAGES - 0.3)).sum(-1)
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    np.testing.assert_allclose(aux["completeness_gap"], np.zeros(2), atol=1e-4)


def test_captums_trapezoid_misses_a_share():
    options = {"steps": 5, "baseline": 0.3, "reduction": None, "return_aux": True}
    maps, _ = integrated_gradients(linear, IMAGES, 2, quadrature="trapezoid", **options)
    lacking, aux = integrated_gradients(
        linear, IMAGES, 2, quadrature="captum_trapezoid", **options
    )
    np.testing.assert_allclose(lacking, 0.8 * maps, atol=1e-6)
    expected = -0.2 * np.asarray(maps).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(aux["completeness_gap"], expected, atol=1e-4)


@each_rule
def test_polynomials(quadrature):
    """Of a cube the rules have known errors, of a square none."""
    at = {"quadrature": quadrature, "steps": 5, "reduction": None}
    square = integrated_gradients(power(2), IMAGES, 0, baseline=0.5, **at)
    np.testing.assert_allclose(square, IMAGES**2 - 0.25, atol=1e-5)
    cube = integrated_gradients(power(3), IMAGES, 0, **at)
    error = {"midpoint": -1 / 100, "trapezoid": 1 / 32, "gauss_legendre": 0}
    np.testing.assert_allclose(cube, (1 + error[quadrature]) * IMAGES**3, rtol=1e-4)


def test_a_product_is_halved():
    product = lambda images: jnp.prod(images.reshape(-1, 2), axis=1)[:, None]
    at = np.array([3, 4], np.float32).reshape(1, 1, 2, 1)
    maps = integrated_gradients(product, at, 0, steps=3)
    np.testing.assert_allclose(maps[0, 0], (6, 6), rtol=1e-5)


@each_rule
def test_weights_add_up_to_one(quadrature):
    for steps in (2, 3, 50):
        nodes, weights = nodes_and_weights(steps, quadrature)
        assert nodes.shape == weights.shape == (steps,)
        assert abs(weights.sum() - 1) < 1e-5
        assert nodes.min() >= 0 and nodes.max() <= 1
        np.testing.assert_allclose(nodes + nodes[::-1], np.ones(steps), atol=1e-6)


def test_the_gap_is_that_of_the_sum_and_falls_with_the_steps():
    model, batch = classifier(), images(4)
    targets = np.array([0, 1, 2, 4])
    logits = lambda images: np.asarray(model(images))[np.arange(4), targets]
    black = np.broadcast_to(np.float32(model.mean), batch.shape)
    change = logits(batch) - logits(black)
    gaps = {}
    for steps in (4, 256):
        maps, aux = integrated_gradients(
            model, batch, targets, steps=steps, return_aux=True, batch_size=256
        )
        gaps[steps] = np.asarray(aux["completeness_gap"])
        expected = np.asarray(maps).sum((1, 2)) - change
        np.testing.assert_allclose(gaps[steps], expected, atol=1e-4)
    assert np.abs(gaps[4]).mean() > 2e-3
    assert np.abs(gaps[256]).mean() < np.abs(gaps[4]).mean() / 16


def test_baselines():
    model = Classifier.from_function(linear, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    weights = WEIGHTS[..., 1] / np.float32(model.std)
    pixels = np.random.default_rng(1).integers(0, 256, IMAGES.shape, np.uint8)
    for baseline, colours in (
        (None, np.array([0.4, 0.5, 0.6])),
        (0.25, 0.25),
        ((0.1, 0.2, 0.3), np.array([0.1, 0.2, 0.3])),
        (np.array([0.1, 0.2, 0.3], np.float32), np.array([0.1, 0.2, 0.3])),
        (pixels[0], pixels[0] / 255),
        (jnp.asarray(pixels / 255), pixels / 255),
    ):
        maps = integrated_gradients(
            model, IMAGES, 1, steps=2, baseline=baseline, reduction=None
        )
        np.testing.assert_allclose(maps, weights * (IMAGES - colours), atol=1e-4)
    maps, aux = integrated_gradients(
        model, IMAGES, 1, baseline=IMAGES, return_aux=True, batch_size=1
    )
    assert not np.asarray(maps).any() and not np.asarray(aux["completeness_gap"]).any()


def squared_twice(images):
    squared = checkpoint_name(images**2, "squared")
    return jnp.sum(squared**2, axis=(1, 2, 3))[:, None] / 2


def test_at_a_layer_the_line_is_in_its_space():
    """Not that of the images, where the share would be x^4 / 2 as well but for
    a baseline's (x^2 + b^2 is then (2/3) (x^2 + x b + b^2))."""
    maps = integrated_gradients(
        squared_twice, IMAGES, 0, steps=3, baseline=0.5, layer="squared", reduction=None
    )
    np.testing.assert_allclose(maps, (IMAGES**4 - 0.5**4) / 2, atol=1e-5)


@pytest.mark.parametrize("layer, steps", [("tap_0", 1), ("conv1", 100)])
def test_completeness_at_a_layer(layer, steps):
    """What follows tap_0 is linear, so one step is enough."""
    model, batch = classifier(), images(3)
    options = {"layer": layer, "steps": steps, "batch_size": 100}
    maps, aux = integrated_gradients(
        model, batch, 1, return_aux=True, upsampling=None, **options
    )
    gap = np.asarray(aux["completeness_gap"])
    change = np.asarray(model(batch) - model(np.full_like(batch, model.mean)))[:, 1]
    np.testing.assert_allclose(maps.sum((1, 2)) - change, gap, atol=1e-5)
    assert np.abs(gap).max() < (1e-5 if layer == "tap_0" else 0.01)
    assert np.abs(change).min() > 0.02


def test_a_layer_in_bfloat16():
    batch = images(2)
    narrow, exact = (
        np.asarray(
            integrated_gradients(
                classifier(dtype=dtype), batch, 1, layer="conv1", steps=20
            )
        )
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert narrow.dtype == np.float32
    assert np.corrcoef(narrow.ravel(), exact.ravel())[0, 1] > 0.95


def test_what_skips_the_layer_stays_as_it_is():
    def skipping(images):
        half = checkpoint_name(images / 2, "half")
        return jnp.sum(half * images, axis=(1, 2, 3))[:, None]

    maps, aux = integrated_gradients(
        skipping, IMAGES, 0, steps=2, layer="half", reduction=None, return_aux=True
    )
    np.testing.assert_allclose(maps, IMAGES**2 / 2, rtol=1e-5)
    np.testing.assert_allclose(aux["completeness_gap"], np.zeros(2), atol=1e-5)


def test_what_cannot_be_is_said():
    for options, message in (
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"steps": 1, "quadrature": "trapezoid"}, "trapezoid rule is 1: .* least 2"),
        ({"baseline": np.zeros((6, 5), np.float32)}, r"baseline of shape \(6, 5\) for"),
        ({"baseline": (0.1, 0.2)}, r"expected a number, a colour \(3,\), an image"),
        ({"baseline": np.zeros(IMAGES.shape, int)}, "int64 has no known range"),
    ):
        with pytest.raises(InputError, match=message):
            integrated_gradients(linear, IMAGES, 1, **options)
    with pytest.raises(InputError, match="quadrature='simpson' is unknown: use"):
        nodes_and_weights(3, "simpson")
