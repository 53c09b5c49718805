"""A linear classifier, whose perfect maps are known, and images for it."""

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from saliency_jax.models.classifier import Classifier

MEAN, STD = (0.5, 0.4, 0.6), (0.25, 0.2, 0.3)
SIZE = (7, 6)

_RANDOM = np.random.default_rng(0)
WEIGHTS = _RANDOM.normal(scale=0.2, size=(*SIZE, 3, 4)).astype(np.float32)
IMAGES = _RANDOM.uniform(size=(3, *SIZE, 3)).astype(np.float32)
MAPS = _RANDOM.normal(size=(3, *SIZE)).astype(np.float32)
TARGETS = np.array([2, 0, 3])


def normalised(images):
    return (images - np.asarray(MEAN)) / np.asarray(STD)


def _logits(weights, images):
    return jnp.einsum("bhwc,hwck->bk", images, weights, precision="highest")


def classifier(weights=WEIGHTS):
    """One whose weights are of normalised images, and its leaves."""
    logits_fn = Partial(_logits, jnp.asarray(weights))
    return Classifier.from_function(logits_fn, mean=MEAN, std=STD)


def logits(images, weights=WEIGHTS):
    """What it answers, in NumPy."""
    return np.einsum("bhwc,hwck->bk", normalised(images), weights)


def probabilities(images):
    """The softmax of it, in NumPy."""
    powers = np.exp(logits(images))
    return powers / powers.sum(axis=1, keepdims=True)


def contributions():
    """What each pixel adds to the logit, over the mean colour."""
    return np.einsum("bhwc,hwcb->bhw", normalised(IMAGES), WEIGHTS[..., TARGETS])


def gradients():
    """Of each pixel of images in [0, 1], summed over the channels."""
    scaled = WEIGHTS[..., TARGETS] / np.asarray(STD)[:, None]
    return np.moveaxis(scaled.sum(axis=2), -1, 0)
