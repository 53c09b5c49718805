"""The layers are Flax's, written another way: the same up to rounding, and names."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.models import cpu_gradients
from saliency_jax.models.create import create_backbone
from saliency_jax.models.layers import Conv, conv_layer
from saliency_jax.training import sharding
from tests.models import reproducible

CONVOLUTIONS = {
    "one": dict(kernel_size=(1, 1)),
    "one, of every second": dict(kernel_size=(1, 1), strides=(2, 2)),
    "one, VALID": dict(kernel_size=(1, 1), padding="VALID", strides=(2, 1)),
    "one, pairs of zeros": dict(kernel_size=(1, 1), padding=[(0, 0), (0, 0)]),
    "one, padded": dict(kernel_size=(1, 1), padding=[(0, 1), (0, 0)]),
    "one, of spread maps": dict(
        kernel_size=(1, 1), padding=[(0, 0), (0, 0)], input_dilation=2
    ),
    "one, in groups": dict(kernel_size=(1, 1), feature_group_count=2),
    "one, without bias": dict(kernel_size=(1, 1), use_bias=False),
    "one by three": dict(kernel_size=(1, 3)),
    "three": dict(kernel_size=(3, 3), strides=(2, 2), padding=1),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_is_flax_and_its_gradients_too(name, dtype):
    is_flax(Conv, (7, 8), 4, dtype, CONVOLUTIONS[name])


SMALL = {
    "three": dict(kernel_size=(3, 3), padding=1),
    "three, of every second": dict(kernel_size=(3, 3), strides=(2, 2), padding=1),
    "three, SAME": dict(kernel_size=(3, 3), strides=(2, 1), padding="SAME"),
    "three by two": dict(kernel_size=(3, 2), padding=[(1, 2), (0, 1)]),
    "five": dict(kernel_size=(5, 5), padding=2, use_bias=False),
    "three, spread": dict(kernel_size=(3, 3), padding=2, kernel_dilation=2),
    "three, of spread maps": dict(kernel_size=(3, 3), padding=1, input_dilation=2),
    "three, in groups": dict(kernel_size=(3, 3), padding=1, feature_group_count=2),
}


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 4), (4, 5)])
@pytest.mark.parametrize("name", SMALL)
def test_a_convolution_of_small_maps_is_flax_too(name, size):
    is_flax(conv_layer(True), size, 6, jnp.float32, SMALL[name])


def test_a_convolution_of_small_maps_is_a_product_in_training_alone():
    for train, side in ((True, 4), (True, 5), (False, 4)):
        x = jnp.zeros((2, side, side, 8))
        conv = conv_layer(train)(6, (3, 3))
        variables = conv.init(jax.random.key(0), x)
        text = jax.jit(jax.grad(lambda v, x=x, c=conv: jnp.sum(c.apply(v, x))))
        is_product = "convolution" not in text.lower(variables).as_text()
        assert is_product == (train and side == 4)


def is_flax(conv_class, size, channels, dtype, options):
    x = jnp.asarray(reproducible.uniform((2, *size, channels), "x", -1.0, 1.0))
    ours, flax = (
        conv(features=6, dtype=dtype, **options) for conv in (conv_class, nn.Conv)
    )
    variables = flax.init(jax.random.key(0), x)
    shapes = jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x))
    assert shapes == jax.tree.map(jnp.shape, variables)

    def squared(variables, x, conv):
        return jnp.sum(conv.apply(variables, x).astype(jnp.float32) ** 2)

    gradients = jax.grad(squared, argnums=(0, 1))
    results = [
        (conv.apply(variables, x), gradients(variables, x, conv))
        for conv in (ours, flax)
    ]
    assert results[0][0].dtype == dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 3e-2
    for mine, theirs in zip(*map(jax.tree.leaves, results), strict=True):
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(
            mine.astype(jnp.float32),
            theirs.astype(jnp.float32),
            rtol=0,
            atol=tolerance * scale,
        )


def test_a_1x1_convolution_is_one_product():
    x = jnp.zeros((2, 8, 8, 5))
    conv = Conv(6, (1, 1), (2, 2))
    variables = conv.init(jax.random.key(0), x)
    text = jax.jit(jax.grad(lambda v: jnp.sum(conv.apply(v, x)))).lower(variables)
    assert "convolution" not in text.as_text()


def depthwise_inputs(batch):
    padded = reproducible.uniform((batch, 9, 8, 5), "padded", -1.0, 1.0)
    kernel = reproducible.uniform((3, 3, 1, 5), "kernel", -1.0, 1.0)
    return jnp.asarray(padded), jnp.asarray(kernel)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_depthwise_kernels_gradient_on_either_kind_of_device(stride):
    padded, kernel = depthwise_inputs(2)
    gradient = cpu_gradients.shifted_products(padded, kernel, stride)
    at_once = cpu_gradients.kernel_gradient_at_once(padded, gradient, stride)
    by_row = cpu_gradients.kernel_gradient_row_by_row(padded, gradient, stride)
    np.testing.assert_allclose(by_row, at_once, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("platform", "loops"), [("cpu", True), ("cuda", False)])
def test_the_depthwise_kernels_gradient_loops_on_a_cpu_only(platform, loops):
    padded, kernel = depthwise_inputs(2)
    total = lambda kernel: jnp.sum(
        cpu_gradients.trained_shifted_products(padded, kernel, 1)
    )
    traced = jax.jit(jax.grad(total)).trace(kernel)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.while" in text) == loops


def test_devices_add_up_the_depthwise_kernels_gradient_once():
    mesh = sharding.data_mesh(jax.devices()[:4])
    by_batch, replicated = sharding.by_batch(mesh), sharding.replicated(mesh)
    padded, kernel = depthwise_inputs(8)
    squared = lambda convolve: (
        lambda kernel, padded: jnp.sum(convolve(padded, kernel, 1) ** 2)
    )
    expected = jax.grad(squared(cpu_gradients.shifted_products))(kernel, padded)
    step = jax.jit(
        jax.grad(squared(cpu_gradients.trained_shifted_products)),
        in_shardings=(replicated, by_batch),
        out_shardings=replicated,
    ).lower(kernel, padded)
    compiled = step.compile()
    assert compiled.as_text().count(" all-reduce(") == 1
    assert "all-gather" not in compiled.as_text()
    gradient = compiled(
        jax.device_put(kernel, replicated), jax.device_put(padded, by_batch)
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


def test_the_depthwise_gradient_in_float64():
    with jax.enable_x64(True):
        padded, kernel = (x.astype(jnp.float64) for x in depthwise_inputs(2))
        squared = lambda kernel, convolve: jnp.sum(convolve(padded, kernel, 1) ** 2)
        gradients = [
            jax.grad(squared)(kernel, convolve)
            for convolve in (
                cpu_gradients.trained_shifted_products,
                cpu_gradients.shifted_products,
            )
        ]
    np.testing.assert_allclose(*gradients, rtol=1e-12)


@pytest.mark.slow
def test_mobilenet_in_evaluation_differentiates_forwards():
    network, x = create_backbone("mobilenet_v1", 10), jnp.ones((1, 32, 32, 3))
    variables = jax.jit(network.init, static_argnums=2)(jax.random.key(0), x, False)
    logits = lambda x: network.apply(variables, x, False)[0][0, 3]
    _, change = jax.jit(lambda x: jax.jvp(logits, (x,), (x,)))(x)
    backwards = jnp.sum(jax.jit(jax.grad(logits))(x) * x)
    np.testing.assert_allclose(change, backwards, rtol=1e-3)
