"""Max-sensitivity: a linear explanation, maps of zeros, and what is passed on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.faithfulness.max_sensitivity import max_sensitivity
from tests.metrics.faithfulness import linear_classifier as linear

CLASSES = jnp.arange(1.0, 5)


def explain(images, targets):
    """Of class k a map that is (k + 1) times the images, plus one."""
    return CLASSES[targets][:, None, None, None] * images + 1


def test_twin():
    key = jax.random.key(3)
    found = max_sensitivity(
        explain, linear.IMAGES, linear.TARGETS, key=key, radius=0.1, draws=5
    )
    noise = [
        jax.random.uniform(
            jax.random.fold_in(key, i), (*linear.SIZE, 3), minval=-1, maxval=1
        )
        for i in range(5)
    ]
    changes = 0.1 * np.sqrt((np.stack(noise) ** 2).sum(axis=(1, 2, 3)))
    factors = linear.TARGETS[:, None] + 1
    maps = factors[..., None, None] * linear.IMAGES + 1
    changes = factors * changes / np.sqrt((maps**2).sum(axis=(1, 2, 3)))[:, None]
    np.testing.assert_allclose(found.maximum, changes.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.average, changes.mean(axis=1), rtol=1e-5)


def test_batches_and_types():
    images = np.round(255 * linear.IMAGES).astype(np.uint8)
    options = dict(radius=0.3, draws=2)
    whole = max_sensitivity(explain, images, 1, **options)
    floats = max_sensitivity(explain, images / np.float32(255), 1, **options)
    np.testing.assert_allclose(floats.maximum, whole.maximum, rtol=1e-5)
    parts = max_sensitivity(explain, images, 1, batch_size=2, **options)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), whole, parts)
    in_numpy = max_sensitivity(lambda *x: np.asarray(explain(*x)), images, 1, **options)
    np.testing.assert_allclose(in_numpy.maximum, whole.maximum, rtol=1e-6)
    jitted = jax.jit(lambda images: max_sensitivity(explain, images, 1, **options))
    np.testing.assert_allclose(jitted(images).maximum, whole.maximum, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_maps_of_any_scale(scale):
    options = dict(radius=0.3, draws=2)
    whole = max_sensitivity(explain, linear.IMAGES, 1, **options)
    scaled = lambda *asked: jnp.float32(scale) * explain(*asked)
    found = max_sensitivity(scaled, linear.IMAGES, 1, **options)
    np.testing.assert_allclose(found.maximum, whole.maximum, rtol=1e-4)


def test_norms_of_zero():
    flat = lambda images, targets: jnp.zeros(images.shape[:3])
    found = max_sensitivity(flat, linear.IMAGES, 0, draws=2)
    np.testing.assert_array_equal(found.maximum, np.zeros(3))
    # Zero for the image, and the noise itself with it.
    noise = lambda images, targets: images - linear.IMAGES[:1]
    found = max_sensitivity(noise, linear.IMAGES[:1], 0, draws=3, radius=0.1)
    norm = 0.1 * np.sqrt(linear.IMAGES[0].size / 3)  # of uniform noise
    np.testing.assert_allclose(found.average, [norm], rtol=0.1)


def test_errors():
    with pytest.raises(InputError, match=r"targets of shape \(2,\) for 3 images"):
        max_sensitivity(explain, linear.IMAGES, np.array([0, 1]))
    with pytest.raises(InputError, match="radius is 0.0: it must be above 0"):
        max_sensitivity(explain, linear.IMAGES, 0, radius=0.0)
    with pytest.raises(InputError, match="draws is 0: it must be at least 1"):
        max_sensitivity(explain, linear.IMAGES, 0, draws=0)
