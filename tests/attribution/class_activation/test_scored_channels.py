"""Score-CAM against a loop over channels in NumPy."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.class_activation.scored_channels import score_cam
from saliency_jax.attribution.layers import Unit
from saliency_jax.errors import InputError
from tests.attribution.small_network import classifier, images, with_dead_channels


def twice(maps):
    """Bilinear, between the centres of cells: 8x8 to 16x16."""
    places = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7)
    low = np.floor(places).astype(int)
    high, share = np.minimum(low + 1, 7), places - low
    rows = maps[low] * (1 - share[:, None]) + maps[high] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, high] * share


def by_loop(model, image, target, variant, keep=None):
    activations = np.asarray(model.features(image[None])[1][0])[0]
    mean = np.array(model.mean)
    scores, shown = [], []
    channels = range(activations.shape[-1])
    if keep is not None:
        channels = np.argsort(-activations.std((0, 1)))[:keep]
    for k in channels:
        mask = twice(activations[..., k])
        if mask.max() == mask.min():
            continue
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        normalised = (image - mean) * mask[..., None]
        logits = np.asarray(model((normalised + mean)[None].astype(np.float32)))[0]
        probability = np.exp(logits) / np.exp(logits).sum()
        scores.append((probability if variant == "author" else logits)[target])
        shown.append(activations[..., k])
    if variant == "author":
        return np.maximum(sum(map(np.multiply, scores, map(twice, shown))), 0)
    weights = np.exp(scores) / np.exp(scores).sum()
    return twice(np.maximum(np.tensordot(weights, shown, 1), 0))


@pytest.mark.parametrize("variant", ["paper", "author"])
@pytest.mark.parametrize("keep", [None, 5])
def test_is_the_loop_over_channels(variant, keep):
    model, batch, targets = classifier(), images(2), np.array([1, 3])
    maps = score_cam(
        model, batch, targets, variant=variant, max_channels=keep, batch_size=5
    )
    for found, image, target in zip(maps, batch, targets, strict=True):
        expected = by_loop(model, image, target, variant, keep)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_more_channels_than_there_are():
    model, batch = classifier(), images(1)
    np.testing.assert_array_equal(
        score_cam(model, batch, 1, max_channels=99), score_cam(model, batch, 1)
    )


def test_constant_channels_have_no_part():
    for variant in ("paper", "author"):
        maps = score_cam(with_dead_channels(), images(2), 1, variant=variant)
        np.testing.assert_array_equal(maps, 0)


def test_memory_is_bounded_by_the_batch_size():
    shown = []
    model = classifier()

    def logits(images):
        shown.append(len(images))
        return model(images)

    layer = (lambda images: model.features(images)[1][0], lambda maps: maps)
    score_cam(logits, images(3), 1, layer=layer, batch_size=5)
    assert max(shown) == 5  # in 8 chunks of 3 images times 12 channels


def test_units_and_functions_as_targets():
    model, batch = classifier(), images(2)
    of_class = score_cam(model, batch, 2)
    as_function = score_cam(model, batch, lambda logits: logits[2])
    np.testing.assert_allclose(as_function, of_class, atol=1e-6)
    of_probability = score_cam(model, batch, lambda p: p[2], variant="author")
    np.testing.assert_allclose(
        of_probability, score_cam(model, batch, 2, variant="author"), atol=1e-6
    )
    unit = score_cam(model, batch, Unit(jnp.array([1, 2])), batch_size=5)
    assert np.abs(unit - of_class).max() > 1e-4
    alone = score_cam(model, batch[1:], Unit(2))
    np.testing.assert_allclose(unit[1:], alone, atol=1e-5)
    with pytest.raises(InputError, match="a hidden unit has not"):
        score_cam(model, batch, Unit(1), variant="author")


def test_what_cannot_be_is_said():
    model, batch = classifier(), images(1)
    with pytest.raises(InputError, match="max_channels is 0: it must be at least 1"):
        score_cam(model, batch, max_channels=0)
    with pytest.raises(InputError, match="variant='none' is unknown"):
        inspect.unwrap(score_cam)(model, batch, variant="none")


def test_a_sigmoids_probabilities_are_of_each_class_by_itself():
    model, batch = classifier(), images(1)
    sigmoid = model.replace(output="sigmoid")
    maps = score_cam(sigmoid, batch, 2, variant="author")
    odds = lambda p: p[2] / (1 - p[2])
    assert np.abs(maps - score_cam(model, batch, 2, variant="author")).max() > 1e-4
    # The odds of a sigmoid are the exponential of its logit, and so are the weights of
    # a softmax over channels before it is scaled to 1.
    softmax = np.asarray(score_cam(model, batch, 2, upsampling=None))
    of_odds = score_cam(sigmoid, batch, odds, variant="author", upsampling=None)
    ratio = np.asarray(of_odds) / softmax
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-4)
