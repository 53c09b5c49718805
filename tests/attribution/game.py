"""A classifier whose logit is a function of which segments are shown.

Of an image of ones in 16 square segments, whose hidden segments are zeros.
"""

import jax.numpy as jnp
import numpy as np

from saliency_jax.models.classifier import Classifier

IMAGE = np.ones((1, 8, 8, 1), np.float32)


def classifier_of(value):
    """One class, whose logit is `value` of the brightness of the 16 squares."""

    def logits_fn(images):
        squares = images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)
        return value(squares)[:, None]

    return Classifier.from_function(logits_fn, mean=(0.0,), std=(1.0,))


def segments_of(players):
    """The 16 squares, those from number `players` on in the last of them."""
    squares = np.arange(16).reshape(4, 4).repeat(2, axis=0).repeat(2, axis=1)
    return np.minimum(squares, players - 1)


def quadratic(players, seed=0):
    """A value with interactions of pairs, with its weights `a` and `b`."""
    random = np.random.default_rng(seed)
    a = np.pad(random.normal(size=players), (0, 16 - players)).astype(np.float32)
    b = np.triu(random.normal(size=(players, players)), 1)
    b = np.pad(b, (0, 16 - players)).astype(np.float32)
    value = lambda shown: shown @ a + jnp.einsum("bi,ij,bj->b", shown, b, shown)
    return value, a, b
