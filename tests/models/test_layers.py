"""The layers are Flax's, written another way: same values, gradients and names."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.models.create import create_backbone
from saliency_jax.models.layers import Conv
from tests.models import reproducible


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", 0, 1])
@pytest.mark.parametrize("side", [1, 3])
def test_convolution_is_flax_and_its_gradients_too(side, padding, strides):
    x = jnp.asarray(reproducible.uniform((2, 7, 8, 5), "x", -1.0, 1.0))
    arguments = dict(features=6, kernel_size=(side, side), padding=padding)
    ours, flax = (conv(**arguments, strides=strides) for conv in (Conv, nn.Conv))
    variables = flax.init(jax.random.key(0), x)
    shapes = jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x))
    assert shapes == jax.tree.map(jnp.shape, variables)

    squared = lambda conv: lambda v, x: jnp.sum(conv.apply(v, x) ** 2)
    results = [
        (
            conv.apply(variables, x),
            jax.grad(squared(conv), argnums=(0, 1))(variables, x),
        )
        for conv in (ours, flax)
    ]
    for mine, theirs in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_1x1_convolution_is_one_product():
    x = jnp.zeros((2, 8, 8, 5))
    conv = Conv(6, (1, 1), (2, 2))
    variables = conv.init(jax.random.key(0), x)
    text = jax.jit(jax.grad(lambda v: jnp.sum(conv.apply(v, x)))).lower(variables)
    assert "convolution" not in text.as_text()


def test_mobilenet_in_evaluation_differentiates_forwards():
    network = create_backbone("mobilenet_v1", 10)
    x = jnp.ones((1, 32, 32, 3))
    variables = network.init(jax.random.key(0), x, False)
    logits = lambda x: network.apply(variables, x, False)[0][0, 3]
    _, change = jax.jvp(logits, (x,), (x,))
    np.testing.assert_allclose(change, jnp.sum(jax.grad(logits)(x) * x), rtol=1e-4)
