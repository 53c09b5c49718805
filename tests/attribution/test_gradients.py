"""Gradients: the worked example, a linear model, layers and units."""

import numpy as np
import pytest

from saliency_jax.attribution.gradients import gradient, input_x_gradient
from saliency_jax.attribution.layers import Unit
from saliency_jax.errors import InputError
from tests.attribution.worked_example import IMAGE, answer_of

WORKED = np.array([[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]], np.float32)


def test_worked_example():
    np.testing.assert_array_equal(gradient(answer_of, IMAGE, 0)[0], WORKED)
    product = input_x_gradient(answer_of, IMAGE, 0)
    np.testing.assert_array_equal(product[0], WORKED * IMAGE[0, ..., 0])


def test_at_a_layer():
    maps = gradient(answer_of, IMAGE, 0, layer="relu1", reduction=None, upsampling=None)
    np.testing.assert_array_equal(maps[0, ..., 0], np.ones((2, 2)))
    np.testing.assert_array_equal(maps[0, ..., 1], [[1, -1], [-1, -1]])
    print(gradient(answer_of, IMAGE, 0, layer="conv1", upsampling="nearest"))
    print(gradient(answer_of, IMAGE, Unit(1, (1, 0), "conv1")))
    with pytest.raises(InputError, match="no layer 'relu2'.*relu1"):
        gradient(answer_of, IMAGE, 0, layer="relu2")
