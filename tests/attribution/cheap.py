"""Options that make each method fast enough for a test of all of them."""

import functools

import jax
import jax.numpy as jnp

from saliency_jax.models.create import create_backbone
from saliency_jax.models.selective_masker import SelectiveDecoder, SelectiveMasker
from saliency_jax.saliency import Masker
from tests.attribution.small_network import CLASSES, SIZE, classifier


@functools.cache
def small_masker():
    """A real-time masker with random weights."""
    encoder = create_backbone("resnet10", CLASSES, width=8)
    module = SelectiveMasker(encoder, SelectiveDecoder(CLASSES, base=4))
    one = jnp.zeros((1, SIZE, SIZE, 3)), jnp.zeros(1, int)
    variables = jax.jit(lambda key: module.init(key, *one, False))(jax.random.key(3))
    return Masker(variables, classifier(), module)


CHEAP = {
    "trained_masker": lambda: {"masker": small_masker()},
}


def cheap(name):
    """The options of a method in the tests of all methods."""
    options = CHEAP.get(name, {})
    return options() if callable(options) else options
