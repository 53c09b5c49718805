"""Memory is bounded by `batch_size`, however many images and samples there are."""

import jax
import jax.numpy as jnp
import pytest
from jax import nn

from saliency_jax import attribution
from saliency_jax.attribution.registry import FILE_OF
from saliency_jax.models.classifier import Classifier
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


def test_peak_of_score_cam_where_python_loops():
    """No more images' channels are held than go through the classifier at once."""
    alive = []
    others = jax.live_arrays()  # of other tests; held here, so that their ids stay
    known = set(map(id, others))

    def largest():
        new = (x.nbytes for x in jax.live_arrays() if id(x) not in known)
        alive.append(max(new, default=0))

    def logits(images):
        jax.debug.callback(largest)
        maps = jnp.tile(images, (1, 1, 1, 16))
        return jnp.mean(nn.relu(maps @ jnp.eye(48)), axis=(1, 2))

    classifier = Classifier.from_function(logits)
    pictures = jax.random.uniform(jax.random.key(0), (40, 16, 16, 3))
    of = lambda batch_size: attribution.score_cam(
        classifier, pictures, 0, batch_size=batch_size
    )
    jax.block_until_ready(of(2))
    jax.effects_barrier()
    assert alive and max(alive) <= pictures.nbytes
    alive.clear()
    jax.block_until_ready(of(40))
    jax.effects_barrier()
    assert max(alive) >= 16 * pictures.nbytes
