"""Gradients that are computed another way on a CPU equal JAX's own."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.models import cpu_gradients
from saliency_jax.models.layers import conv_layer, max_pool_3x3
from saliency_jax.training import sharding
from tests.models import reproducible

PADS = (((1, 1), (1, 1)), ((0, 0), (0, 0)), ((0, 1), (0, 1)), ((1, 0), (0, 1)))


def maps(*shape):
    return jnp.asarray(reproducible.uniform(shape, "maps", -1.0, 1.0))


def gradients(function, *arguments):
    """Of a sum that weighs every output otherwise."""

    def total(*arguments):
        found = function(*arguments)
        weights = jnp.cos(jnp.arange(found.size, dtype=found.dtype))
        return jnp.sum(found * weights.reshape(found.shape))

    return jax.grad(total, argnums=tuple(range(len(arguments))))(*arguments)


@pytest.mark.parametrize(
    ("sides", "pads"),
    [*zip([(8, 8), (9, 6), (3, 4), (7, 5)], PADS, strict=True)],
)
def test_the_gradient_of_max_pooling(sides, pads):
    x = maps(1, *sides, 3)
    x = jnp.concatenate([x, jnp.round(2 * x), nn.relu(x)])  # with ties, and many zeros
    found = gradients(partial(cpu_gradients.trained_max_pool_3x3, pads=pads), x)
    expected = gradients(partial(cpu_gradients.plain_max_pool_3x3, pads=pads), x)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_the_gradient_of_max_pooling_by_hand():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 0, 0].set(2.0).at[0, 3, 2, 0].set(1.0)
    gradient = jnp.asarray([[1.0, 10.0], [100.0, 1000.0]]).reshape(1, 2, 2, 1)
    found = cpu_gradients.max_pool_3x3_gradient(x, gradient, PADS[0])
    expected = np.zeros((4, 4))
    expected[1, 0] = 101.0  # the greatest of both windows on the left
    expected[0, 1] = 10.0  # the first of nothing but zeros
    expected[3, 2] = 1000.0
    np.testing.assert_array_equal(found[0, :, :, 0], expected)


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(3, 1, 1), (3, 2, 1), (7, 2, 3), (3, 2, "SAME"), (3, 1, "VALID"), (2, 1, 0)],
)
def test_the_gradients_of_a_convolution(size, stride, padding):
    x = maps(2, 9, 8, 3)
    layers = [
        layer(5, (size, size), (stride, stride), padding=padding)
        for layer in (conv_layer(True), nn.Conv)
    ]
    variables = layers[0].init(jax.random.key(0), x)
    found, expected = (gradients(layer.apply, variables, x) for layer in layers)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5), found, expected
    )


@pytest.mark.parametrize(
    "options",
    [
        {"strides": (2, 1)},
        {"kernel_dilation": 2},
        {"feature_group_count": 3},
        {"precision": jax.lax.Precision.HIGHEST},
        {"channels": 5},
    ],
)
def test_other_convolutions_are_as_they_were(options):
    options = dict(options)
    x = maps(1, 9, 8, options.pop("channels", 3))
    layer = conv_layer(True)(6, (3, 3), **options)
    variables = layer.init(jax.random.key(0), x)
    text = str(jax.make_jaxpr(layer.apply)(variables, x))
    assert "custom_vjp" not in text
    jax.jvp(partial(layer.apply, variables), (x,), (x,))


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_a_gpu_has_the_gradients_of_jax(platform):
    x = maps(1, 8, 8, 4)
    kernel = maps(3, 3, 4, 4)
    pad = PADS[0]
    convolve = partial(cpu_gradients.trained_convolution, stride=1, pads=pad)
    pooled = lambda x, kernel: max_pool_3x3(convolve(x, kernel), True)
    traced = jax.jit(partial(gradients, pooled)).trace(x, kernel)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    convolutions = text.count("stablehlo.convolution")
    # forwards, of the input, and on a GPU of the kernel
    assert convolutions == (2 if platform == "cpu" else 3)
    assert ("select_and_scatter" in text) == (platform == "cuda")


def test_devices_add_up_the_kernels_gradient_once():
    mesh = sharding.data_mesh(jax.devices()[:4])
    by_batch, replicated = sharding.by_batch(mesh), sharding.replicated(mesh)
    x, kernel = maps(8, 8, 8, 3), maps(3, 3, 3, 4)
    convolve = partial(cpu_gradients.trained_convolution, stride=1, pads=PADS[0])
    pooled = lambda kernel, x: max_pool_3x3(convolve(x, kernel), True)
    total = lambda kernel, x: jnp.sum(pooled(kernel, x) ** 2)
    step = jax.jit(
        jax.grad(total),
        in_shardings=(replicated, by_batch),
        out_shardings=replicated,
    ).lower(kernel, x)
    compiled = step.compile()
    assert "all-gather" not in compiled.as_text()
    found = compiled(jax.device_put(kernel, replicated), jax.device_put(x, by_batch))
    np.testing.assert_allclose(found, jax.grad(total)(kernel, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_gradients_have_the_type_of_what_they_are_of(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        x, kernel = maps(1, 6, 6, 2).astype(dtype), maps(3, 3, 2, 2).astype(dtype)
        convolve = partial(cpu_gradients.trained_convolution, stride=1, pads=PADS[0])
        pooled = lambda x, kernel: max_pool_3x3(convolve(x, kernel), True)
        plain = lambda x, kernel: max_pool_3x3(
            cpu_gradients.convolution(x, kernel, 1, PADS[0]), False
        )
        found, expected = (gradients(f, x, kernel) for f in (pooled, plain))
    assert [array.dtype for array in found] == [dtype, dtype]
    tolerance = 0.05 if dtype == jnp.bfloat16 else 1e-12
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = (np.asarray(array, np.float64) for array in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
