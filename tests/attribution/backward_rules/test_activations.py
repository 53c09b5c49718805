"""Activations are found however they are written, and nothing else is taken for one."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import nn
from jax.ad_checkpoint import checkpoint_name

from saliency_jax.attribution.backward_rules.activations import (
    activations,
    value_and_slope,
)
from saliency_jax.attribution.program import trace
from saliency_jax.models.classifier import Classifier

IMAGES = jnp.linspace(-4, 4, 32).reshape(1, 4, 4, 2)
SLOPES = jnp.array([[[[0.1, 0.3]]]])


@jax.custom_vjp
def own_relu(x):
    return x * (x > 0)


own_relu.defvjp(lambda x: (own_relu(x), x), lambda x, g: (jnp.where(x > 0, g, 0),))

RECTIFIERS = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "maximum": lambda x: jnp.maximum(x, 0),
    "clip": lambda x: jnp.clip(x, 0, 6),
    "where": lambda x: jnp.where(x > 0, x, 0),
    "times a mask": lambda x: x * (x > 0),
    "custom_vjp": own_relu,
    "leaky_relu": nn.leaky_relu,
    "learned slopes": lambda x: jnp.where(x > 0, x, x * SLOPES),
    "elu": nn.elu,
    "celu": nn.celu,
    "gelu": nn.gelu,
    "gelu with erf": lambda x: nn.gelu(x, approximate=False),
    "silu": nn.silu,
    "hard_swish": nn.hard_swish,
    "mish": nn.mish,
    "softplus": nn.softplus,
    "squared relu": lambda x: jnp.square(nn.relu(x)),
}
OTHERS = {
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "softsign": nn.soft_sign,
    "square": jnp.square,
}


def program_of(function):
    classifier = Classifier.from_function(function, mean=(0.0, 0.0), std=(1.0, 1.0))
    return trace(classifier, IMAGES)


def found_in(function):
    return activations(program_of(function))


@pytest.mark.parametrize("name", [*RECTIFIERS, *OTHERS])
def test_each_is_one_function_of_what_stands_before_it(name):
    function = (RECTIFIERS | OTHERS)[name]
    kernel = jnp.array([[1.0, -0.5], [0.25, 2.0]])
    before = lambda x: x @ kernel + 0.1
    program = program_of(lambda x: jnp.sum(function(before(x)), axis=(1, 2)))
    (one,) = activations(program).values()
    values = program.evaluate(IMAGES, one.inputs)
    np.testing.assert_array_equal(values[0], before(IMAGES))
    result, slope = value_and_slope(one.function, *values)
    np.testing.assert_allclose(result, function(before(IMAGES)), rtol=1e-5)
    expected = jax.grad(lambda x: jnp.sum(function(x)))(before(IMAGES))
    np.testing.assert_allclose(slope, expected, rtol=1e-5)
    assert one.rectifies == (name in RECTIFIERS)


def test_a_used_one_is_found_once_and_two_are_two():
    def reused(x):
        x = nn.gelu(nn.relu(x @ jnp.ones((2, 2))) @ jnp.ones((2, 2)))
        return jnp.sum(x + x, axis=(1, 2))

    assert len(found_in(reused)) == 2


def test_what_is_affine_or_joins_two_maps_is_none():
    kernel = jnp.array([[1.0, -0.5], [0.25, 2.0]])
    residual = lambda x: jnp.sum(x + x @ kernel, axis=(1, 2))
    gate = lambda x: jnp.sum(x * jnp.mean(x, axis=(1, 2), keepdims=True), axis=(1, 2))
    affine = lambda x: jnp.sum((x - 1) * SLOPES / 2 + x, axis=(1, 2))
    largest = lambda x: jnp.sum(jnp.maximum(x, x @ kernel), axis=(1, 2))
    for function in (residual, gate, affine, largest):
        assert not found_in(function)
    gated = lambda x: jnp.sum(x * nn.sigmoid(x @ kernel), axis=(1, 2))
    (sigmoid,) = found_in(gated).values()
    assert not sigmoid.rectifies


def test_normalisation_and_softmax_hold_no_rectifier():
    norm = lambda x: linen.LayerNorm(use_bias=False, use_scale=False).apply({}, x)
    for function in (norm, nn.softmax, nn.standardize):
        found = found_in(lambda x, f=function: jnp.sum(f(x), axis=(1, 2)))
        assert not [one for one in found.values() if one.rectifies]


def test_none_reaches_across_a_named_variable():
    def clipped(x, name):
        x = jnp.maximum(x, 0)
        x = checkpoint_name(x, "half") if name else x
        return jnp.sum(jnp.minimum(x, 6), axis=(1, 2))

    assert len(found_in(lambda x: clipped(x, name=False))) == 1
    assert len(found_in(lambda x: clipped(x, name=True))) == 2
