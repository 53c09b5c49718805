"""Memory is bounded by `batch_size`, however many images and samples there are."""

import jax
import jax.numpy as jnp
import pytest

from saliency_jax import attribution
from saliency_jax.attribution.registry import FILE_OF
from tests.attribution.cheap import cheap
from tests.attribution.small_network import classifier

NAMES = list(FILE_OF)
IMAGES = 32
BATCH_SIZE = 8
PEAK = 250e6  # bytes; 32 images at once need more already for a plain gradient


def peak_bytes(name, batch_size):
    """What XLA allocates besides arguments and results, for images of 224x224."""
    method, options = attribution.get(name), {"key": jax.random.key(0)} | cheap(name)
    explain = lambda model, images, targets: method(
        model, images, targets, batch_size=batch_size, **options
    )
    images = jax.ShapeDtypeStruct((IMAGES, 224, 224, 3), jnp.uint8)
    targets = jax.ShapeDtypeStruct((IMAGES,), jnp.int32)
    compiled = jax.jit(explain).lower(classifier(), images, targets).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("name", NAMES)
def test_peak_at_224_pixels(name):
    assert peak_bytes(name, BATCH_SIZE) < PEAK


def test_the_bound_is_one():
    """Without it the same program does need more."""
    assert peak_bytes("gradient", IMAGES) > 1.5 * PEAK
    assert peak_bytes("lrp", IMAGES) > 3 * PEAK
