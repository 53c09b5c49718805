"""Guided Grad-CAM: the worked example, and that it is the product."""

import inspect

import numpy as np
import pytest

from saliency_jax.attribution.backward_rules.guided import guided_backprop
from saliency_jax.attribution.class_activation.gradient_weighted import grad_cam
from saliency_jax.attribution.class_activation.guided_product import guided_grad_cam
from saliency_jax.attribution.layers import Unit
from saliency_jax.errors import InputError
from tests.attribution.small_network import classifier, images
from tests.attribution.worked_example import IMAGE, answer_of

WORKED = [[0, 0, 4, 4], [0, 0, 12, 8], [28, 84, 97.5, 65], [28, 56, 65, 32.5]]


def test_worked_example():
    options = {"layer": "relu1", "upsampling": "nearest"}
    maps = guided_grad_cam(answer_of, IMAGE, 0, **options)
    np.testing.assert_allclose(maps[0], WORKED, atol=1e-5)
    by_channel = guided_grad_cam(answer_of, IMAGE, 0, reduction=None, **options)
    np.testing.assert_allclose(by_channel[0, ..., 0], WORKED, atol=1e-5)
    # Bilinear: guided [0, 1, 1, 1] times Grad-CAM [0, 1, 3, 4] in the first row.
    bilinear = guided_grad_cam(answer_of, IMAGE, 0, layer="relu1")
    np.testing.assert_allclose(bilinear[0, 0], [0, 1, 3, 4], atol=1e-5)


@pytest.mark.parametrize("reduction", ["max_abs", "sum_abs", "sum"])
def test_a_reduction_is_of_the_product(reduction):
    model, batch, targets = classifier(), images(2), np.array([1, 3])
    guided = np.asarray(guided_backprop(model, batch, targets, reduction=None))
    product = guided * np.asarray(grad_cam(model, batch, targets))[..., None]
    reduced = {
        "max_abs": np.abs(product).max(-1),
        "sum_abs": np.abs(product).sum(-1),
        "sum": product.sum(-1),
    }
    maps = guided_grad_cam(model, batch, targets, reduction=reduction)
    np.testing.assert_allclose(maps, reduced[reduction], atol=1e-6)


def test_of_a_hidden_unit():
    model, batch = classifier(), images(2)
    maps = np.asarray(guided_grad_cam(model, batch, Unit(3, (4, 4)), layer="conv1"))
    reached = np.zeros((16, 16), bool)
    reached[5:13, 5:13] = True  # by a 3x3 convolution, pooling, and another
    assert maps.max() > 0 and (maps[:, ~reached] == 0).all()


def test_without_upsampling():
    with pytest.raises(InputError, match="upsampling=None is unknown: use one of"):
        inspect.unwrap(guided_grad_cam)(answer_of, IMAGE, 0, upsampling=None)
