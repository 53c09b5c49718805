"""Relevance: each rule against its formula, conservation, and who may write the model.

The formulas are evaluated in NumPy on the matrices of the layers, every contribution by
itself; the code under test never sees those.
"""

import inspect

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from saliency_jax.attribution.backward_rules.relevance import lrp
from saliency_jax.attribution.gradients.plain import input_x_gradient
from saliency_jax.attribution.layers import Unit
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.layers import conv_or_product, shifted_products
from tests.attribution.small_network import classifier, images
from tests.attribution.worked_example import IMAGE, answer_of

RANDOM = np.random.default_rng(0)
SIZE = 5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
KERNEL_1 = RANDOM.normal(size=(3, 3, 3, 4)).astype(np.float32)
KERNEL_2 = RANDOM.normal(size=(2, 2, 4, 5)).astype(np.float32)
DENSE = RANDOM.normal(size=(80, 3)).astype(np.float32)
BIAS_1, BIAS_2, BIAS_3 = (RANDOM.normal(size=n).astype(np.float32) for n in (4, 5, 3))
# Two channels of the normalisation have a negative scale.
SCALE, MOVING_MEAN = np.float32([1.5, -0.7, 0.4, -2]), np.float32([0.3, -0.2, 0, 0.5])
X = RANDOM.uniform(size=(2, SIZE, SIZE, 3)).astype(np.float32)
TARGETS = np.array([2, 0])

some_rules = pytest.mark.parametrize(
    "options",
    [{"rule": "gamma"}, {"rule": "alpha_beta", "alpha": 2.0}, {"rule": "composite"}],
    ids=str,
)
every_rule = pytest.mark.parametrize(
    "options",
    [
        {"rule": "epsilon", "epsilon": 0.1},
        {"rule": "epsilon", "bias": "ignored"},
        {"rule": "gamma", "gamma": 0.6},
        {"rule": "gamma", "bias": "ignored"},
        {"rule": "gamma", "variant": "captum"},
        {"rule": "alpha_beta"},
        {"rule": "alpha_beta", "alpha": 2.0},
        {"rule": "alpha_beta", "alpha": 1.5, "bias": "ignored"},
        {"rule": "alpha_beta", "variant": "captum"},
        {"rule": "composite"},
        {"rule": "composite", "bias": "ignored"},
    ],
    ids=str,
)


def convolution(x, kernel, padding="SAME", groups=1, strides=(1, 1)):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x,
        jnp.asarray(kernel),
        strides,
        padding,
        dimension_numbers=numbers,
        feature_group_count=groups,
    )


def row(values):
    return jnp.asarray(values).reshape(1, 1, 1, -1)


def first_stage(x):
    """A convolution with a bias, and a normalisation."""
    x = convolution(x, KERNEL_1) + row(BIAS_1)
    return (x - row(MOVING_MEAN)) * row(SCALE) + row(BIAS_1[::-1].copy())


def second_stage(x):
    return row(BIAS_2) + convolution(x, KERNEL_2, "VALID")


def third_stage(x):
    return x.reshape(len(x), -1) @ jnp.asarray(DENSE) + BIAS_3[None]


def network(x):
    hidden = checkpoint_name(jax.nn.relu(first_stage(x)), "hidden")
    return third_stage(jax.nn.relu(second_stage(hidden)))


NETWORK = Classifier.from_function(network, mean=MEAN, std=STD)


def matrix_and_bias(stage, shape):
    """Of an affine function of one image or map, as a matrix product."""
    zero = jnp.zeros((1, *shape))
    bias = np.asarray(stage(zero), np.float64).ravel()
    jacobian = jax.jacobian(lambda x: stage(x).ravel())(zero)
    return np.asarray(jacobian, np.float64).reshape(bias.size, -1).T, bias


def formula(rule, a, weights, bias, relevance, given):
    """A rule of a layer a @ weights + bias, as the papers write it down."""
    epsilon, gamma = given.get("epsilon", 1e-6), given.get("gamma", 0.25)
    alpha = given.get("alpha", 1.0)
    shares = a[:, None] * weights
    signs = weights if given.get("variant") == "captum" else shares
    if given.get("bias") == "ignored":
        bias = np.zeros_like(bias)
    up, down = shares * (signs > 0), shares * (signs < 0)
    bias_up, bias_down = np.maximum(bias, 0), np.minimum(bias, 0)
    if given.get("variant") == "captum":
        bias_up, bias_down = bias, None
    away = lambda x: x + np.where(x < 0, -epsilon, epsilon)
    z = shares.sum(0) + bias
    if rule == "epsilon":
        return shares @ (relevance / away(z))
    if rule == "gamma" and given.get("variant") == "captum":
        shares = shares + gamma * up
        return shares @ (relevance / away(shares.sum(0) + bias))
    if rule == "gamma":
        shares = shares + gamma * np.where(z > 0, up, down)
        bias = bias + gamma * np.where(z > 0, bias_up, bias_down)
        return shares @ (relevance / away(shares.sum(0) + bias))
    assert rule == "alpha_beta"
    result = alpha * up @ (relevance / away(up.sum(0) + bias_up))
    if alpha > 1:
        quotient = relevance / away(down.sum(0) + bias_down)
        result -= (alpha - 1) * down @ quotient
    return result


def by_formulas(image, target, options):
    """Relevance of the pixels and of the layer "hidden" by all formulas together."""
    rule = options["rule"]
    rules = ["gamma", "epsilon"] if rule == "composite" else [rule] * 2
    weights_1, bias_1 = matrix_and_bias(first_stage, (SIZE, SIZE, 3))
    weights_2, bias_2 = matrix_and_bias(second_stage, (SIZE, SIZE, 4))
    weights_3, bias_3 = matrix_and_bias(third_stage, (SIZE - 1, SIZE - 1, 5))
    x = ((image.astype(np.float64) - MEAN) / STD).ravel()
    one = np.maximum(x @ weights_1 + bias_1, 0)
    two = np.maximum(one @ weights_2 + bias_2, 0)
    logits = two @ weights_3 + bias_3
    relevance = logits * (np.arange(3) == target)
    relevance = formula(rules[1], two, weights_3, bias_3, relevance, options)
    hidden = formula(rules[0], one, weights_2, bias_2, relevance, options)
    if rule == "composite":
        of_pixels = weights_1 / np.tile(STD, SIZE * SIZE)[:, None]
        shares = image.reshape(-1, 1) * of_pixels - np.minimum(of_pixels, 0)
        pixels = shares @ (hidden / (shares.sum(0) + 1e-6))
    else:
        pixels = formula(rule, x, weights_1, bias_1, hidden, options)
    return pixels.reshape(image.shape), hidden.reshape(SIZE, SIZE, 4), logits[target]


@every_rule
def test_each_rule_is_its_formula(options):
    maps, aux = lrp(NETWORK, X, TARGETS, reduction=None, return_aux=True, **options)
    given = {"layer": "hidden", "reduction": None, "upsampling": None, **options}
    at_layer, layer_aux = lrp(NETWORK, X, TARGETS, return_aux=True, **given)
    for i, (image, target) in enumerate(zip(X, TARGETS, strict=True)):
        pixels, hidden, logit = by_formulas(image, target, options)
        # Captum's denominators come near to zero, which magnifies rounding.
        atol = 1e-3 if options.get("variant") == "captum" else 2e-5
        scale = np.abs(pixels).max()
        np.testing.assert_allclose(maps[i] / scale, pixels / scale, atol=atol)
        scale = np.abs(hidden).max()
        np.testing.assert_allclose(at_layer[i] / scale, hidden / scale, atol=atol)
        for found, expected in ((aux, pixels), (layer_aux, hidden)):
            total = expected.sum()
            np.testing.assert_allclose(found["relevance"][i], total, rtol=1e-3)
            gap = found["conservation_gap"][i]
            np.testing.assert_allclose(gap, logit - total, rtol=1e-3, atol=1e-3)


def test_by_hand():
    """Two pixels (1, 1/2); h = (2a - 2b, 4b - a) = (1, 1); the score 3h - h' is 2."""
    image = np.float32([1, 0.5]).reshape(1, 1, 1, 2)

    def score(x):
        hidden = jax.nn.relu(x.reshape(1, 2) @ jnp.array([[2.0, -1], [-2, 4]]))
        return hidden @ jnp.array([[3.0], [-1]])

    def pixels(**options):
        return np.asarray(lrp(score, image, 0, reduction=None, **options)).ravel()

    exact = {"epsilon": 0.0}
    np.testing.assert_allclose(pixels(rule="epsilon", **exact), (7, -5))
    np.testing.assert_allclose(pixels(rule="alpha_beta", **exact), (2, 0))
    twice = pixels(rule="alpha_beta", alpha=2.0, **exact)
    np.testing.assert_allclose(twice, (10, -8), rtol=1e-6)
    favoured = pixels(rule="gamma", gamma=1.0, **exact)
    np.testing.assert_allclose(favoured, (10 / 3, -4 / 3), rtol=1e-6)


def test_without_epsilon_it_is_the_gradient_times_the_input():
    batch = images(3)
    maps = lrp(classifier(), batch, rule="epsilon", epsilon=0.0)
    np.testing.assert_allclose(maps, input_x_gradient(classifier(), batch), rtol=1e-6)
    maps, aux = lrp(answer_of, IMAGE, 0, rule="epsilon", epsilon=0.0, return_aux=True)
    np.testing.assert_allclose(maps, input_x_gradient(answer_of, IMAGE, 0))
    # Both biases of the worked example: 4 * -50, and of the channel -75 the last one.
    total = maps.sum()
    np.testing.assert_allclose(aux["conservation_gap"], 54 - total, rtol=1e-5)


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


def test_of_a_hidden_unit():
    def stem(x):
        return jax.nn.relu(first_stage(x)).reshape(len(x), -1)

    place = (2 * SIZE + 3) * 4 + 1
    model = Classifier.from_function(stem, mean=MEAN, std=STD)
    for options in ({"rule": "alpha_beta"}, {"rule": "composite"}):
        expected = lrp(model, X, place, **options)
        unit = Unit(1, (2, 3), "hidden")
        np.testing.assert_allclose(
            lrp(NETWORK, X, unit, **options), expected, atol=1e-6
        )


def test_what_has_no_rule_is_named():
    def attention(x):
        pixels = convolution(x, KERNEL_1).reshape(len(x), -1, 4)
        weights = jax.nn.softmax(pixels @ pixels.mT)
        return (weights @ pixels).mean(1)

    with pytest.raises(InputError) as caught:
        lrp(attention, X, 0)
    message = str(caught.value)
    assert message.count("dot_general") == 2 and message.count("div") == 1
    assert "of two activations" in message and "test_relevance.py" in message
    assert "pass a layer behind it" in message
    with pytest.raises(InputError, match="no rule for div .* explain logits"):
        lrp(lambda x: jax.nn.softmax(network(x)), X, 0)

    def with_a_layer(x):
        return first_stage(checkpoint_name(jnp.cumprod(x, 1), "late")).mean((1, 2))

    with pytest.raises(InputError, match="no rule for cumprod"):
        lrp(with_a_layer, X, 0)
    assert np.isfinite(lrp(with_a_layer, X, 0, layer="late")).all()


def test_errors():
    for options, message in (
        ({"rule": "z"}, "rule='z' is unknown: use one of .'composite', "),
        ({"bias": "zero"}, "bias='zero' is unknown"),
        ({"variant": "zennit"}, "variant='zennit' is unknown"),
        ({"alpha": 0.5}, "alpha is 0.5: it must be at least 1"),
        ({"epsilon": -1.0}, "epsilon is -1.0: it must be at least 0"),
        ({"variant": "captum"}, "variant='captum' is for rule='gamma'"),
        (
            {"rule": "alpha_beta", "alpha": 2.0, "variant": "captum"},
            "for rule='alpha_beta' with alpha=1",
        ),
    ):
        with pytest.raises(InputError, match=message):
            inspect.unwrap(lrp)(NETWORK, X, 0, **options)
    squared = lambda x: first_stage(x).mean((1, 2)) + (x**2).mean((1, 2, 3))[:, None]
    with pytest.raises(
        InputError, match="but integer_pow reads them too: use another rule"
    ):
        lrp(squared, X, 0)
    assert np.isfinite(lrp(squared, X, 0, rule="gamma")).all()
