"""RISE's published figures, a twin in NumPy, the ends of curves, planted evidence."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from saliency_jax.errors import InputError
from saliency_jax.metrics.faithfulness.insertion_deletion import (
    blur_kernel,
    deletion,
    insertion,
    insertion_deletion,
)
from saliency_jax.models.classifier import Classifier
from tests.metrics.faithfulness import linear_classifier as linear

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "insertion_deletion.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def test_published_code(golden):
    def logits_fn(images):
        cells = images.reshape(-1, 14, 16, 14, 16, 3).mean(axis=(2, 4))
        # The golden classifier reads its features channel by channel.
        features = jax.nn.relu(cells).transpose(0, 3, 1, 2).reshape(-1, 588)
        return jnp.dot(features, golden["weights"], precision="highest")

    mean, std = 0.5, 0.1
    classifier = Classifier.from_function(logits_fn, mean=3 * (mean,), std=3 * (std,))
    images = golden["image56_nchw"].transpose(0, 2, 3, 1) * std + mean
    images = images.repeat(4, axis=1).repeat(4, axis=2)
    for moves, step in ((28, 1792), (4, 12544)):
        both = insertion_deletion(classifier, images, golden["maps"], moves=moves)
        for name, curve in zip(("insertion", "deletion"), both, strict=True):
            scores = golden[f"{name}_scores_step{step}"]
            np.testing.assert_allclose(curve.scores, scores, atol=1e-5)
            areas = golden[f"{name}_auc_step{step}"]
            np.testing.assert_allclose(curve.auc, areas, atol=1e-5)


def test_blur(golden):
    kernel = blur_kernel()
    np.testing.assert_allclose(
        np.outer(kernel, kernel), golden["blur_kernel"], rtol=1e-6
    )
    assert kernel.sum() == pytest.approx(1, abs=1e-12)


def test_area_of_a_known_curve():
    table = np.log([1e-30, 0.2, 0.5, 0.8, 1]) - np.log([1, 0.8, 0.5, 0.2, 1e-30])

    def logit_of_how_many_are_left(images):
        left = jnp.round(jnp.sum(images, axis=(1, 2, 3))).astype(int)
        return jnp.asarray(table, jnp.float32)[left][:, None]

    classifier = Classifier.from_function(
        logit_of_how_many_are_left, mean=(0.0,), std=(1.0,), output="sigmoid"
    )
    ones = np.ones((1, 2, 2, 1), np.float32)
    curve = deletion(classifier, ones, np.zeros((1, 2, 2)), 0, moves=4)
    np.testing.assert_allclose(curve.scores[0], [1, 0.8, 0.5, 0.2, 0], atol=1e-6)
    np.testing.assert_allclose(curve.auc, [0.5], atol=1e-6)
    np.testing.assert_allclose(curve.normalised_auc, [0.5], atol=1e-6)


def numpy_curve(images, maps, targets, moves, inserts):
    """Pixels of start become those of finish, move by move, as the authors do it."""
    kernel = scipy.ndimage.gaussian_filter(np.pad([[1.0]], 5), 5)[None, :, :, None]
    centred = images - np.asarray(linear.MEAN)
    blurred = scipy.ndimage.convolve(centred, kernel, mode="constant")
    substrate = (blurred if inserts else 0 * images) + np.asarray(linear.MEAN)
    now, finish = (substrate, images) if inserts else (images, substrate)
    now = now.copy().reshape(len(images), -1, 3)
    finish = finish.reshape(now.shape)
    order = np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")
    step = -(-order.shape[1] // moves)
    rows = np.arange(len(images))[:, None]
    scores = []
    for first in range(0, order.shape[1] + step, step):
        found = linear.probabilities(now.reshape(images.shape))
        scores.append(found[np.arange(len(images)), targets])
        move = order[:, first : first + step]
        now[rows, move] = finish[rows, move]
    return np.stack(scores, axis=1)


@pytest.mark.parametrize(("moves", "points"), [(5, 6), (20, 15)])
def test_twin(moves, points):
    maps = np.round(2 * linear.MAPS)  # many are equal
    both = insertion_deletion(
        linear.classifier(), linear.IMAGES, maps, linear.TARGETS, moves=moves
    )
    for curve, inserts in zip(both, (True, False), strict=True):
        scores = numpy_curve(linear.IMAGES, maps, linear.TARGETS, moves, inserts)
        assert curve.scores.shape == scores.shape == (3, points)
        np.testing.assert_allclose(curve.scores, scores, atol=1e-5)
        areas = np.trapezoid(scores, dx=1 / (points - 1), axis=1)
        np.testing.assert_allclose(curve.auc, areas, atol=1e-5)
        low, clean = scores[:, :: points - 1].T[:: 1 if inserts else -1]
        expected = np.where(clean - low < 0.01, 0.5, (areas - low) / (clean - low))
        np.testing.assert_allclose(curve.normalised_auc, expected, atol=1e-4)


def test_each_by_itself():
    arguments = linear.classifier(), linear.IMAGES, linear.MAPS, linear.TARGETS
    both = insertion_deletion(*arguments, moves=5)
    for function, curve in zip((insertion, deletion), both, strict=True):
        jax.tree.map(
            np.testing.assert_array_equal, function(*arguments, moves=5), curve
        )


def patch_detector(images):
    """Its two classes are decided by the redness of the upper left corner."""
    red = 8 * jnp.mean(images[:, :4, :4, 0], axis=(1, 2)) - 4
    return jnp.stack([red, -red], axis=1)


def test_planted_evidence():
    random = np.random.default_rng(1)
    image = random.uniform(0.3, 0.7, (1, 12, 12, 3)).astype(np.float32)
    image[:, :4, :4, 0] = 1
    perfect = np.zeros((12, 12))
    perfect[:4, :4] = 1
    noise = random.normal(size=(12, 12))
    maps = np.stack([perfect, noise, -perfect])
    both = insertion_deletion(patch_detector, image.repeat(3, axis=0), maps, moves=12)
    for areas in (both.insertion.auc, both.insertion.normalised_auc):
        assert areas[0] > areas[1] + 0.1 > areas[2] + 0.2
    for areas in (both.deletion.auc, both.deletion.normalised_auc):
        assert areas[0] < areas[1] - 0.1 < areas[2] - 0.2


def test_nothing_to_order():
    constant = lambda images: jnp.zeros((len(images), 2)) + 0 * images[:, 0, 0, :1]
    for maps in (np.zeros_like(linear.MAPS), linear.MAPS):
        for curve in insertion_deletion(constant, linear.IMAGES, maps, moves=4):
            np.testing.assert_allclose(curve.scores, np.full((3, 5), 0.5))
            np.testing.assert_allclose(curve.normalised_auc, 3 * [0.5])
    # A class that is likelier without the image is not divided by a negative number.
    against = np.argmin(linear.probabilities(linear.IMAGES), axis=1)
    flat = np.zeros_like(linear.MAPS)
    curve = deletion(linear.classifier(), linear.IMAGES, flat, against)
    np.testing.assert_allclose(curve.normalised_auc, 3 * [0.5])


def test_how_many_images_the_classifier_sees():
    seen = []

    def logits_fn(images):
        jax.debug.callback(lambda x: seen.append(len(x)), images)
        return jnp.mean(images, axis=(1, 2))

    images, maps = linear.IMAGES[:2], linear.MAPS[:2]
    jax.block_until_ready(insertion(logits_fn, images, maps, moves=21, batch_size=7))
    jax.effects_barrier()
    # After each move but the last, which is the whole image; and to find the class.
    assert sum(seen) == len(images) * (21 + 2) <= 1.2 * len(images) * 22
    seen.clear()
    jax.block_until_ready(
        insertion_deletion(logits_fn, images, maps, 0, moves=21, batch_size=7)
    )
    jax.effects_barrier()
    assert sum(seen) == len(images) * (2 * 21 + 1)


def test_errors():
    call = lambda **options: insertion(
        linear.classifier(), linear.IMAGES, linear.MAPS, **options
    )
    with pytest.raises(InputError, match="moves is 0: it must be at least 1"):
        call(moves=0)
