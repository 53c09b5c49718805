"""Drop, increase and gain: a twin in NumPy, closed forms, and divisors of zero."""

import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.faithfulness.confidence import confidence
from tests.metrics.faithfulness import linear_classifier as linear


@pytest.mark.parametrize("variant", ["whole", "upper_half"])
def test_twin(variant):
    images, maps, targets = linear.IMAGES, linear.MAPS, np.array([3, 1, 3])
    found = confidence(linear.classifier(), images, maps, targets, variant=variant)
    masks = np.stack([(x - x.min()) / (x.max() - x.min()) for x in maps])
    if variant == "upper_half":
        masks = np.stack([np.where(x > np.median(x), x, 0) for x in masks])
    mean = np.asarray(linear.MEAN)
    shown = mean + masks[..., None] * (images - mean)
    rows = np.arange(3), targets
    before = linear.probabilities(images)[rows]
    after = linear.probabilities(shown)[rows]
    assert 0 < (after > before).sum() < 3
    np.testing.assert_allclose(
        found.drop, np.maximum(0, before - after) / before, atol=1e-5
    )
    np.testing.assert_array_equal(found.increase, after > before)
    np.testing.assert_allclose(
        found.gain, np.maximum(0, after - before) / (1 - before), atol=1e-5
    )


def test_odd_numbers_and_equal_pixels():
    """Of 9 equal-ish pixels the 5 first in raster order stay."""
    brightness = lambda images: jnp.stack(
        [jnp.sum(images, axis=(1, 2, 3)), jnp.zeros(len(images))], axis=1
    )
    maps = np.ones((1, 3, 3))
    maps[0, 2, 2] = 0
    ones = np.full((1, 3, 3, 1), 0.1, np.float32)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    for variant, left in (("whole", 0.8), ("upper_half", 0.5)):
        found = confidence(brightness, ones, maps, 0, variant=variant)
        drop = 1 - sigmoid(left) / sigmoid(0.9)
        np.testing.assert_allclose(found.drop, [drop], atol=1e-6)


def test_extremes():
    def certain(images):
        """The second class for dark images, beyond what float32 can tell from 1."""
        bright = 400 * jnp.mean(images, axis=(1, 2, 3)) - 200
        return jnp.stack([bright, -bright], axis=1)

    images = np.stack([np.ones((4, 4, 3)), np.zeros((4, 4, 3))]).astype(np.float32)
    constant = np.full((2, 4, 4), 7.0)
    found = confidence(certain, images, constant, 0)
    # A constant map keeps nothing: the first image becomes black as the second is.
    np.testing.assert_allclose(found.drop, [1, 0])
    np.testing.assert_allclose(found.gain, [0, 0])
    assert not found.increase.any()
    widest = np.where(np.arange(4) < 2, -3e38, 3e38).astype(np.float32)
    found = confidence(certain, images, np.broadcast_to(widest, (2, 4, 4)), 0)
    assert np.isfinite(found.drop).all()
    one = np.zeros((2, 4, 4))
    one[:, 0, 0] = 1
    found = confidence(certain, images, one, 1)
    np.testing.assert_allclose(found.gain, [1, 0])  # from 0, and from 1
    np.testing.assert_array_equal(found.increase, [True, False])
    np.testing.assert_allclose(found.drop, [0, 0])


def test_errors():
    call = lambda *arguments: confidence(
        linear.classifier(), linear.IMAGES, linear.MAPS, *arguments
    )
    with pytest.raises(InputError, match="confidence explains classes: pass a class"):
        call(lambda logits: logits[0])
