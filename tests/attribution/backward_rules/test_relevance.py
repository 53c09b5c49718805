"""Relevance: each rule against its formula, by hand, and what is refused.

The formulas are evaluated in NumPy on the matrices of the layers, every contribution by
itself; the code under test never sees those.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from saliency_jax.attribution.backward_rules.relevance import lrp
from saliency_jax.attribution.gradients.plain import input_x_gradient
from saliency_jax.attribution.layers import Unit
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from tests.attribution.backward_rules.relevance_network import (
    KERNEL_1,
    MEAN,
    NETWORK,
    SIZE,
    STD,
    TARGETS,
    X,
    convolution,
    first_stage,
    network,
    second_stage,
    third_stage,
)
from tests.attribution.small_network import classifier, images
from tests.attribution.worked_example import IMAGE, answer_of

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


@pytest.mark.parametrize(
    ("last", "named"),
    [
        (jax.nn.log_softmax, "log "),
        (lambda x: x - jax.nn.logsumexp(x, axis=-1, keepdims=True), "log "),
        (lambda x: 1 / x, "div .* by an activation"),
        (lambda x: reciprocal(x), "custom_jvp_call"),
        (lambda x: x**-2, "integer_pow"),
        (lambda x: x**-0.5, "pow"),
    ],
)
def test_what_is_infinite_at_zero_has_no_rule(last, named):
    with pytest.raises(InputError, match=f"no rule for .*{named}.* explain logits"):
        lrp(lambda x: last(network(x)), X, 0)


@jax.custom_jvp
def reciprocal(x):
    return 1 / x


reciprocal.defjvp(lambda x, dx: (1 / x[0], -dx[0] / x[0] ** 2))


@pytest.mark.parametrize(
    ("written", "known"),
    [
        (lambda x: x * (1 / (1 + jnp.exp(-x))), jax.nn.silu),
        (lambda x: x * jnp.tanh(jnp.log(1 + jnp.exp(x))), jax.nn.mish),
        (lambda x: x * jax.lax.rsqrt(1 + x * x), lambda x: x / jnp.sqrt(1 + x * x)),
        (jax.nn.softplus, lambda x: jnp.logaddexp(x, 0)),
    ],
)
def test_poles_elsewhere_than_at_zero_do_no_harm(written, known):
    last = jax.random.normal(jax.random.key(1), (3, 3))
    maps = [
        lrp(lambda x, f=function: f(network(x)) @ last, X, 0, rule="epsilon")
        for function in (written, known)
    ]
    np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-5)
    assert np.abs(maps[0]).max() > 0


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


@pytest.mark.parametrize("side", [2, 4])
def test_a_1x1_convolution_has_one_rule_however_it_is_written(side):
    """Also where the maps have one pixel, and its product the shape of a dense one."""
    shapes = (2, 2, 3, 4), (4, 6), (6, 5), (5, 2)
    *draws, of_images = jax.random.split(jax.random.key(0), 5)
    first, *kernels, last = map(jax.random.normal, draws, shapes)
    images = jax.random.uniform(of_images, (2, side, side, 3))

    def convolved(x, kernel, stride=1):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, 2 * (stride,), "VALID", dimension_numbers=layout
        )

    def multiplied(x, kernel):
        products = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
        return products.reshape(*x.shape[:-1], kernel.shape[-1])

    # With a bias, before the pixels become maps again and after it.
    def biased_before(x, kernel):
        products = x.reshape(-1, x.shape[-1]) @ kernel[0, 0] + kernel[0, 0, :1]
        return products.reshape(*x.shape[:-1], kernel.shape[-1])

    def biased_after(x, kernel):
        return convolved(x, kernel) + kernel[:, :, :1]

    def logits_fn(layer, images):
        x = jax.nn.relu(convolved(images, first, 2))
        for kernel in kernels:
            x = jax.nn.relu(layer(x, kernel[None, None]))
        return jnp.mean(x, (1, 2)) @ last

    for layers in ((convolved, multiplied), (biased_after, biased_before)):
        maps = [
            lrp(partial(logits_fn, layer), images, 1, rule="composite")
            for layer in layers
        ]
        np.testing.assert_allclose(*maps, rtol=1e-4, atol=1e-6)


def test_a_dense_layer_between_flat_and_square_maps_stays_one():
    """It reads all pixels of its maps, and makes new maps, of one pixel or of more."""
    shapes = (2, 2, 3, 4), (16, 12), (12, 2)
    *draws, of_images = jax.random.split(jax.random.key(0), 4)
    first, kernel, last = map(jax.random.normal, draws, shapes)
    images = jax.random.uniform(of_images, (2, 4, 4, 3))

    def logits_fn(maps, images):
        x = jax.lax.conv_general_dilated(
            images, first, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x).reshape(-1, 16) @ kernel
        return jax.nn.relu(x.reshape(-1, *maps)).reshape(-1, 12) @ last

    flat, square, single = (
        lrp(partial(logits_fn, maps), images, 1, rule="composite")
        for maps in ((12,), (2, 2, 3), (1, 1, 12))
    )
    np.testing.assert_allclose(square, flat, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(single, flat, rtol=1e-4, atol=1e-6)
