"""Winograd's form of a 3x3 convolution gives what the convolution gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.models import winograd
from saliency_jax.models.cpu_gradients import convolution
from saliency_jax.models.layers import conv_layer
from saliency_jax.training import sharding
from tests.models import reproducible

MANY = winograd.MANY_CHANNELS


def arrays(*shapes, dtype=jnp.float32):
    return [
        jnp.asarray(reproducible.uniform(shape, f"array {i}", -1.0, 1.0), dtype)
        for i, shape in enumerate(shapes)
    ]


def plain(x, kernel):
    return convolution(x, kernel, 1, winograd.PADS)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 8), (7, 6), (9, 11)])
def test_it_is_the_convolution_and_its_gradients(size, m):
    """In float64, so that a wrong number in a matrix could not pass for rounding."""
    with jax.enable_x64(True):
        x, kernel, gradient = arrays(
            (2, *size, 3), (3, 3, 3, 4), (2, *size, 4), dtype=jnp.float64
        )
        expected, back = jax.vjp(plain, x, kernel)
        of_maps, of_kernel = back(gradient)
        pairs = [
            (winograd.convolve(x, kernel, m), expected),
            (winograd.gradient_of_maps(gradient, kernel, m), of_maps),
            (winograd.gradient_of_kernel(x, gradient, m), of_kernel),
        ]
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-11)


def test_its_rounding_is_that_of_a_convolution():
    """The forms that `trained_3x3` chooses, beside float64."""
    shapes = (4, 28, 28, 32), (3, 3, 32, 32), (4, 28, 28, 32)
    x, kernel, gradient = arrays(*shapes)
    single = jax.vjp(plain, x, kernel)
    singles = single[0], *single[1](gradient)
    ours = (
        winograd.convolve(x, kernel, 2),
        winograd.gradient_of_maps(gradient, kernel, 2),
        winograd.gradient_of_kernel(x, gradient, 4),
    )
    with jax.enable_x64(True):
        x, kernel, gradient = (a.astype(jnp.float64) for a in (x, kernel, gradient))
        exact, back = jax.vjp(plain, x, kernel)
        doubles = [np.asarray(each) for each in (exact, *back(gradient))]
    # The gradient of the kernel sums 3,000 pixels: a bound for it, not a comparison.
    for found, other, wanted, bound in zip(
        ours, singles, doubles, (2e-6, 2e-6, 1e-5), strict=True
    ):
        scale = np.abs(wanted).max()
        assert np.abs(found - wanted).max() <= bound * scale
        assert np.abs(other - wanted).max() <= bound * scale


@pytest.mark.parametrize(("side", "channels"), [(8, MANY), (9, 32), (18, 32)])
def test_the_layer_trains_with_it_and_gives_the_same(side, channels):
    x, kernel = arrays((2, side, side, channels), (3, 3, channels, channels))
    layer = conv_layer(True)(channels, (3, 3), padding=1, use_bias=False)
    apply = lambda x, kernel: layer.apply({"params": {"kernel": kernel}}, x)
    assert "custom_vjp" in str(jax.make_jaxpr(apply)(x, kernel))
    value = lambda f: lambda x, kernel: jnp.sum(f(x, kernel) ** 2)
    found = apply(x, kernel), *jax.grad(value(apply), (0, 1))(x, kernel)
    wanted = plain(x, kernel), *jax.grad(value(plain), (0, 1))(x, kernel)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("options", "x"),
    [
        ({"strides": 2}, (1, 8, 8, 32)),
        ({"padding": "VALID"}, (1, 8, 8, 32)),
        ({"padding": [(0, 1), (1, 1)]}, (1, 8, 8, 32)),
        ({"kernel_dilation": 2}, (1, 8, 8, 32)),
        ({"feature_group_count": 2}, (1, 8, 8, 64)),
        ({"precision": jax.lax.Precision.HIGHEST}, (1, 8, 8, 32)),
        ({"dtype": jnp.bfloat16}, (1, 8, 8, 32)),
        ({}, (1, 8, 8, 16)),
        ({}, (1, 7, 7, 32)),
    ],
)
def test_other_convolutions_are_as_they_were(options, x):
    layer = conv_layer(True)(32, (3, 3), **options)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros(x))
    assert "custom_vjp" not in str(jax.make_jaxpr(layer.apply)(shapes, jnp.zeros(x)))


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_a_gpu_has_the_convolutions_of_jax(platform):
    x, kernel = arrays((2, 8, 8, MANY), (3, 3, MANY, MANY))
    total = lambda x, kernel: jnp.sum(winograd.trained_3x3(x, kernel) ** 2)
    traced = jax.jit(jax.grad(total, (0, 1))).trace(x, kernel)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == (0 if platform == "cpu" else 3)


def test_devices_add_up_the_kernels_gradient_once():
    mesh = sharding.data_mesh(jax.devices()[:4])
    by_batch, replicated = sharding.by_batch(mesh), sharding.replicated(mesh)
    x, kernel = arrays((8, 6, 6, 32), (3, 3, 32, 32))
    total = lambda kernel, x: jnp.sum(winograd.trained_3x3(x, kernel) ** 2)
    step = jax.jit(
        jax.grad(total),
        in_shardings=(replicated, by_batch),
        out_shardings=replicated,
    ).lower(kernel, x)
    compiled = step.compile()
    text = compiled.as_text()
    assert "all-gather" not in text and "all-to-all" not in text
    assert text.count("all-reduce(") == 1
    found = compiled(jax.device_put(kernel, replicated), jax.device_put(x, by_batch))
    wanted = jax.grad(total)(kernel, x)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
