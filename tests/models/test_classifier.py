"""The classifier as a pytree, and the normalisation that belongs to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.models.classifier import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Classifier,
    normalise,
)
from saliency_jax.models.resnet import ResNet
from tests.models import reproducible


@pytest.fixture(scope="module")
def classifier():
    module = ResNet((1, 1), False, 5, width=4, stem="small_stride2")
    variables = reproducible.variables(module, jnp.zeros((1, 16, 16, 3)))
    return Classifier(variables, module, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def images():
    shape = (3, 16, 16, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_normalise_by_hand():
    pixel = np.array([[[[255, 0, 51]]]], np.uint8)
    expected = np.array([(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225])
    for image in (pixel, (pixel / 255.0).astype(np.float32)):
        result = normalise(image, IMAGENET_MEAN, IMAGENET_STD)
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result[0, 0, 0], expected, rtol=1e-6)


def test_normalise_refuses_integers_of_unknown_range():
    with pytest.raises(InputError, match="int32.*uint8"):
        normalise(jnp.zeros((1, 2, 2, 3), jnp.int32))


def test_bytes_and_unit_floats_give_the_same_logits(classifier, images):
    logits, taps = classifier.features(images)
    assert logits.shape == (3, 5)
    assert len(taps) == 3  # the stem and two stages
    np.testing.assert_array_equal(classifier(images), logits)
    floats = jnp.asarray(images, jnp.float32) / 255.0
    np.testing.assert_allclose(classifier(floats), logits, atol=1e-5)
    normalised = normalise(images, classifier.mean, classifier.std)
    direct, _ = classifier.module.apply(classifier.variables, normalised, False)
    np.testing.assert_array_equal(direct, logits)


def test_new_weights_do_not_recompile(classifier, images):
    traces = []

    @jax.jit
    def logits_of(classifier, images):
        traces.append(1)
        return classifier(images)

    first = logits_of(classifier, images)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, classifier)
    second = logits_of(doubled, images)
    assert len(traces) == 1
    assert jnp.abs(first - second).max() > 0


def test_gradient_and_vmap_go_through(classifier, images):
    floats = jnp.asarray(images, jnp.float32) / 255.0
    gradient = jax.jit(jax.grad(lambda c, x: c(x)[:, 0].sum(), argnums=(0, 1)))
    by_weights, by_pixels = gradient(classifier, floats)
    assert jnp.abs(by_weights.variables["params"]["fc"]["kernel"]).max() > 0
    assert jnp.abs(by_pixels).max() > 0
    one_by_one = jax.vmap(lambda x: classifier(x[None])[0])(floats)
    np.testing.assert_allclose(one_by_one, classifier(floats), atol=1e-5)
