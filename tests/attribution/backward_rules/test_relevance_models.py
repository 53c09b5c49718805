"""Relevance of what people write: forms of one layer, activations, other libraries."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from saliency_jax.attribution.backward_rules.relevance import lrp
from saliency_jax.attribution.gradients.plain import input_x_gradient
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.cpu_gradients import shifted_products
from saliency_jax.models.layers import conv_or_product
from tests.attribution.backward_rules.relevance_network import (
    BIAS_1,
    BIAS_2,
    DENSE,
    KERNEL_1,
    KERNEL_2,
    MEAN,
    MOVING_MEAN,
    NETWORK,
    SCALE,
    STD,
    TARGETS,
    X,
    convolution,
    first_stage,
    row,
    second_stage,
    third_stage,
)

some_rules = pytest.mark.parametrize(
    "options",
    [{"rule": "gamma"}, {"rule": "alpha_beta", "alpha": 2.0}, {"rule": "composite"}],
    ids=str,
)


@some_rules
def test_a_depthwise_convolution_however_it_is_written(options):
    kernel = jnp.asarray(KERNEL_1[:, :, :1])

    def mixed(depthwise):
        def logits(x):
            x = first_stage(x)  # signed
            pads = ((0, 0), (1, 1), (1, 1), (0, 0))
            x = depthwise(jnp.pad(x, pads)) * row(SCALE) + row(BIAS_1)
            return jax.nn.relu(x).mean((1, 2))

        return Classifier.from_function(logits, mean=MEAN, std=STD)

    shifted = mixed(lambda x: shifted_products(x, kernel, 2))
    grouped = mixed(lambda x: convolution(x, kernel, "VALID", 4, (2, 2)))
    maps, expected = (lrp(x, X, TARGETS, **options) for x in (shifted, grouped))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(maps / scale, expected / scale, atol=1e-5)


@some_rules
def test_a_1x1_convolution_however_it_is_written(options):
    kernel = jnp.asarray(KERNEL_2[:1, :1])
    extra = dict(
        lhs_dilation=(1, 1),
        rhs_dilation=(1, 1),
        dimension_numbers=nn.linear._conv_dimension_numbers((1, 2, 2, 1)),
        feature_group_count=1,
        precision=None,
    )

    def mixed(pointwise):
        def logits(x):
            x = pointwise(first_stage(x)) * row([1, -1, 2, -2, 1.0]) + row(BIAS_2)
            return jax.nn.relu(x).mean((1, 2))

        return Classifier.from_function(logits, mean=MEAN, std=STD)

    product = mixed(lambda x: conv_or_product(x, kernel, (1, 1), "SAME", **extra))
    plain = mixed(lambda x: convolution(x, kernel))
    maps, expected = (lrp(x, X, TARGETS, **options) for x in (product, plain))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(maps / scale, expected / scale, atol=1e-5)


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "relu6": lambda x: jax.nn.relu6(20 * x),
    "leaky": jax.nn.leaky_relu,
    "gelu": jax.nn.gelu,
    "exact gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "hard swish": jax.nn.hard_swish,
    "elu": jax.nn.elu,
    "tanh": jnp.tanh,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_hand_relevance_on(name):
    def logits(x):
        x = ACTIVATIONS[name](convolution(x, KERNEL_1))
        x = x + ACTIVATIONS[name](convolution(x, KERNEL_1[:, :, :1].repeat(4, 2)))
        x = nn.avg_pool(nn.max_pool(x, (2, 2), (1, 1)), (2, 2), (1, 1))
        return x.reshape(len(x), -1)[:, :36] @ jnp.asarray(DENSE[:36])

    model = Classifier.from_function(logits, mean=MEAN, std=STD)
    _, aux = lrp(model, X, TARGETS, rule="gamma", epsilon=0.0, return_aux=True)
    logit = np.asarray(model(X))[[0, 1], TARGETS]
    np.testing.assert_allclose(aux["relevance"], logit, rtol=1e-3)


def test_what_an_activation_gives_for_nothing_counts_as_a_bias():
    def logits(x):
        return jax.nn.sigmoid(x).sum((1, 2, 3))[:, None]

    _, aux = lrp(logits, X, 0, rule="epsilon", epsilon=0.0, return_aux=True)
    np.testing.assert_allclose(aux["conservation_gap"], X[0].size / 2, rtol=1e-5)


def test_a_gate_gets_half_of_the_relevance():
    def logits(x):
        x = jax.nn.relu(convolution(x, KERNEL_1))
        gate = jax.nn.relu(
            x.mean((1, 2)) @ jnp.asarray(KERNEL_1[0, 0, :1].T * DENSE[0])
        )
        return (x * gate[:, None, None, :1]).mean((1, 2))

    model = Classifier.from_function(logits, mean=MEAN, std=STD)
    options = {"rule": "alpha_beta", "epsilon": 0.0, "return_aux": True}
    _, aux = lrp(model, X, 1, **options)
    np.testing.assert_allclose(aux["relevance"], model(X)[:, 1], rtol=1e-4)


def test_a_normalisation_by_the_layer_counts_as_constant_in_its_scale():
    def logits(x, held):
        x = convolution(x, KERNEL_1)
        variance = jnp.var(x, axis=-1, keepdims=True)
        scale = held(1 / jnp.sqrt(variance + 1e-6))
        x = (x - x.mean(-1, keepdims=True)) * scale * row(SCALE)
        return x.mean((1, 2))

    class LayerNormalised(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.LayerNorm(use_bias=False)(convolution(x, KERNEL_1))
            return x.mean((1, 2))

    expected = input_x_gradient(lambda x: logits(x, jax.lax.stop_gradient), X, 1)
    maps = lrp(lambda x: logits(x, lambda y: y), X, 1, rule="epsilon", epsilon=0.0)
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    variables = {"params": {"LayerNorm_0": {"scale": jnp.asarray(SCALE)}}}
    linen = Classifier(variables, LayerNormalised(), 3 * (0.0,), 3 * (1.0,))
    maps = lrp(linen, X, 1, rule="epsilon", epsilon=0.0)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


class NnxNetwork(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.conv.kernel[...] = jnp.asarray(KERNEL_1)
        self.conv.bias[...] = jnp.asarray(BIAS_1)
        self.bn = nnx.BatchNorm(4, use_running_average=True, epsilon=0.0, rngs=rngs)
        self.bn.scale[...] = jnp.asarray(SCALE)
        self.bn.mean[...] = jnp.asarray(MOVING_MEAN)
        self.bn.bias[...] = jnp.asarray(BIAS_1[::-1].copy())

    def __call__(self, x):
        return third_stage(jax.nn.relu(second_stage(nnx.relu(self.bn(self.conv(x))))))


class EquinoxNetwork(eqx.Module):
    """Channels first, of one image."""

    conv: eqx.nn.Conv2d

    def __init__(self):
        conv = eqx.nn.Conv2d(3, 4, 3, padding=1, key=jax.random.key(0))
        weights = jnp.asarray(KERNEL_1).transpose(3, 2, 0, 1), row(BIAS_1)[0, 0, 0]
        where = lambda conv: (conv.weight, conv.bias)
        weights = weights[0], weights[1][:, None, None]
        self.conv = eqx.tree_at(where, conv, weights)

    def __call__(self, x):
        x = jnp.moveaxis(self.conv(jnp.moveaxis(x, -1, 0)), 0, -1)
        return (x - row(MOVING_MEAN)[0]) * row(SCALE)[0] + row(BIAS_1[::-1].copy())[0]


@some_rules
def test_in_any_library(options):
    expected = np.asarray(lrp(NETWORK, X, TARGETS, **options))
    of_one = EquinoxNetwork()

    def equinox(x):
        x = jax.nn.relu(jax.vmap(of_one)(x))
        return third_stage(jax.nn.relu(second_stage(x)))

    for function in (NnxNetwork(), equinox):
        model = Classifier.from_function(lambda x, f=function: f(x), mean=MEAN, std=STD)
        maps = np.asarray(lrp(model, X, TARGETS, **options))
        np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())
