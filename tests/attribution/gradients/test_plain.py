"""Gradients: the worked example, a linear model, layers and units."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.gradients.plain import gradient, input_x_gradient
from saliency_jax.attribution.layers import Unit, as_layer
from saliency_jax.attribution.maps import to_maps
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from tests.attribution.gradients.linear import IMAGES, WEIGHTS, linear
from tests.attribution.small_network import SIZE, classifier, images
from tests.attribution.worked_example import IMAGE, answer_of

WORKED = np.array([[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]], np.float32)


def test_worked_example():
    np.testing.assert_array_equal(gradient(answer_of, IMAGE, 0)[0], WORKED)
    product = input_x_gradient(answer_of, IMAGE, 0)
    np.testing.assert_array_equal(product[0], WORKED * IMAGE[0, ..., 0])


@pytest.mark.parametrize(
    "reduction, expected",
    [
        ("max_abs", lambda w: np.abs(w).max(-1)),
        ("sum_abs", lambda w: np.abs(w).sum(-1)),
        ("sum", lambda w: w.sum(-1)),
        (None, lambda w: w),
    ],
)
def test_of_a_linear_model_its_weights(reduction, expected):
    targets = np.array([2, 0])
    weights = np.moveaxis(WEIGHTS, -1, 0)[targets]
    maps = gradient(linear, IMAGES, targets, reduction=reduction)
    np.testing.assert_allclose(maps, expected(weights), rtol=1e-6)
    maps = input_x_gradient(linear, IMAGES, targets, reduction=reduction)
    np.testing.assert_allclose(maps, expected(weights * IMAGES), atol=1e-6)


def test_the_input_is_the_normalised_image():
    """The gradient is that of images in [0, 1]; the product that of both."""
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    model = Classifier.from_function(linear, mean=mean, std=std)
    weights = WEIGHTS[..., 1] / np.float32(std)
    maps = gradient(model, IMAGES, 1, reduction=None)
    np.testing.assert_allclose(maps[0], weights, rtol=1e-6)
    product = input_x_gradient(model, IMAGES, 1, reduction=None)
    np.testing.assert_allclose(product, weights * (IMAGES - mean), atol=1e-5)


def test_at_a_layer():
    options = {"reduction": None, "upsampling": None}
    maps = gradient(answer_of, IMAGE, 0, layer="relu1", **options)
    np.testing.assert_array_equal(maps[0, ..., 0], np.ones((2, 2)))
    np.testing.assert_array_equal(maps[0, ..., 1], [[1, -1], [-1, -1]])
    maps = gradient(answer_of, IMAGE, 0, layer="conv1", **options)
    np.testing.assert_array_equal(maps[0, ..., 0], [[0, 1], [1, 1]])
    np.testing.assert_array_equal(maps[0, ..., 1], [[0, 0], [-1, -1]])
    product = input_x_gradient(answer_of, IMAGE, 0, layer="relu1", upsampling=None)
    np.testing.assert_array_equal(product[0], [[0, 4], [31 - 6, 40 - 15]])
    with pytest.raises(InputError, match="no layer 'relu2'.*relu1"):
        gradient(answer_of, IMAGE, 0, layer="relu2")


def test_a_layers_maps_become_as_large_as_the_images():
    maps = gradient(answer_of, IMAGE, 0, layer="conv1", upsampling="nearest")
    np.testing.assert_array_equal(maps[0], np.kron([[0, 1], [1, 1]], np.ones((2, 2))))
    maps = gradient(
        answer_of, IMAGE, 0, layer="conv1", upsampling="nearest", reduction="sum"
    )
    np.testing.assert_array_equal(maps[0], np.kron([[0, 1], [0, 0]], np.ones((2, 2))))
    # Between the centres of the cells, which are at 0.5 and 2.5; constant beyond.
    line = np.array([0, 0.25, 0.75, 1])
    maps = gradient(answer_of, IMAGE, 0, layer="conv1")
    expected = 1 - np.outer(1 - line, 1 - line)
    np.testing.assert_allclose(maps[0], expected, atol=1e-6)
    maps = gradient(answer_of, IMAGE, 0, layer="conv1", reduction=None)
    np.testing.assert_allclose(maps[0, ..., 0], expected, atol=1e-6)
    np.testing.assert_allclose(maps[0, ..., 1], -line[:, None].repeat(4, 1), atol=1e-6)


def test_of_a_unit():
    # conv1 at (1, 0) is the sum of the 3x3 pixels from (1, 0) on.
    expected = np.zeros((4, 4))
    expected[1:, :3] = 1
    maps = gradient(answer_of, IMAGE, Unit(1, (1, 0), "conv1"))
    np.testing.assert_array_equal(maps[0], expected)
    # relu1's channel 1 is off in its first row.
    maps = gradient(answer_of, IMAGE, Unit(1, (0, 0), "relu1"))
    np.testing.assert_array_equal(maps[0], np.zeros((4, 4)))
    # The mean over positions: how many of the two that are on see each pixel.
    maps = gradient(answer_of, IMAGE, Unit(1, layer="relu1"))
    rows = np.outer([0, 1, 1, 1], [1, 2, 2, 1])
    np.testing.assert_allclose(maps[0], rows / 4)
    # Another of each image.
    twice = np.concatenate([IMAGE, IMAGE])
    maps = gradient(
        answer_of, twice, Unit(np.array([0, 1]), (0, np.array([1, 1])), "relu1")
    )
    expected = np.zeros((4, 4))
    expected[:3, 1:] = 1
    np.testing.assert_array_equal(maps, [expected, np.zeros((4, 4))])


def test_of_a_function_of_the_logits():
    margin = lambda logits: logits[2] - logits[0]
    maps = gradient(linear, IMAGES, margin, reduction=None)
    np.testing.assert_allclose(maps[1], WEIGHTS[..., 2] - WEIGHTS[..., 0], atol=1e-6)


def test_at_a_pair_of_functions():
    """A classifier that is cut by hand, against the same cut by name."""
    model, batch = classifier(), images(2)
    variables, module = model.variables, model.module

    def features(images):
        normalised = (images - np.float32(model.mean)) / np.float32(model.std)
        return module.apply(variables, normalised, False)[1][0]

    def head(maps):
        dense = variables["params"]["fc"]
        return jnp.mean(maps, axis=(1, 2)) @ dense["kernel"] + dense["bias"][None]

    for method in (gradient, input_x_gradient):
        with jax.numpy_rank_promotion("allow"):
            by_hand = method(model, batch, 3, layer=(features, head))
        by_name = method(model, batch, 3, layer="tap_0")
        assert by_hand.shape == (2, SIZE, SIZE)
        np.testing.assert_allclose(by_hand, by_name, rtol=1e-4, atol=1e-7)
        assert np.abs(by_name).max() > 0
    with pytest.raises(InputError, match="a hidden unit as target needs a classifier"):
        gradient(model, batch, Unit(0), layer=(features, head))
    flat = lambda images: images.reshape(len(images), -1)
    with pytest.raises(InputError, match=r"features\(images\) gives .*\(2, 768\)"):
        gradient(model, batch, 3, layer=(flat, head))
    with pytest.raises(InputError, match="expected the name of a layer or two"):
        inspect.unwrap(as_layer)((features,))


def test_unknown_options():
    values = jnp.zeros((1, 2, 2, 3))
    unchecked = inspect.unwrap(to_maps)
    with pytest.raises(InputError, match="reduction='mean' is unknown: use one of"):
        unchecked(values, (4, 4), "mean", None)
    with pytest.raises(InputError, match="upsampling='cubic' is unknown: use"):
        unchecked(values, (4, 4), "sum", "cubic")
