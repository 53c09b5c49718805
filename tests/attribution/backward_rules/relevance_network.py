"""A small network of two convolutions and a dense layer, with signs of all kinds."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from saliency_jax.models.classifier import Classifier

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
