"""A linear model, whose gradient is its weights wherever it is taken."""

import jax.numpy as jnp
import numpy as np

_RANDOM = np.random.default_rng(0)
WEIGHTS = _RANDOM.normal(size=(6, 5, 3, 4)).astype(np.float32)
"""Of each pixel and channel, for each of four classes."""

IMAGES = _RANDOM.uniform(size=(2, 6, 5, 3)).astype(np.float32)


def linear(images):
    return jnp.einsum("bhwc,hwck->bk", images, WEIGHTS)
