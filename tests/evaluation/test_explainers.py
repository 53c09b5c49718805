"""Masks that are optimised one by one, as a row of the table."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import black_box_shapes, casm_shapes
from saliency_jax import prng
from saliency_jax.attribution.optimised_masks.iterative_mask import (
    IterativeOptions,
    iterative_masks,
)
from saliency_jax.data import pipeline
from saliency_jax.errors import InputError
from saliency_jax.evaluation.explainers import iterative, iterative_options
from saliency_jax.evaluation.scoring import score_masks
from saliency_jax.models.classifier import Classifier
from saliency_jax.removal import RemovalOptions
from tests.painted import SIZE, paint, source_of

BOX = [2, 4, 10, 12]
RECORDS = [
    paint(BOX, predicted=0, label=label, boxes=[BOX]) for label in (0, 1, 1, 2, 0)
]
OPTIONS = IterativeOptions(iterations=4, mask_size=8)
SEED = 5


def logits_of(images):
    """Of each class: how bright is the left, the right, or the top."""
    left, right = images[:, :, : SIZE // 2], images[:, :, SIZE // 2 :]
    parts = (left, right, images[:, : SIZE // 2])
    return jnp.stack([20 * part.mean((1, 2, 3)) for part in parts], axis=-1)


CLASSIFIER = Classifier.from_function(logits_of)


def score(batch_size, classifier=CLASSIFIER, seed=SEED, row="iterative"):
    source = source_of(RECORDS)
    images = pipeline.eval_batches(source, batch_size=batch_size, image_size=SIZE)
    predict = iterative(classifier, SIZE, OPTIONS, seed).predict
    return score_masks(
        predict, images, len(RECORDS), batch_size, variant="real_time", row=row
    )


def areas(outcome):
    return outcome.measured["iterative"].statistics.area


@pytest.fixture(scope="module")
def everything():
    (batch,) = pipeline.eval_batches(
        source_of(RECORDS), batch_size=len(RECORDS), image_size=SIZE
    )
    return batch


@pytest.fixture(scope="module")
def masks(everything):
    """By hand: of all images at once, for their true classes."""
    key = prng.stream_key(jax.random.key(SEED), "iterative")
    images, labels = everything["image"], everything["label"]
    masks = np.asarray(
        iterative_masks(
            CLASSIFIER,
            images,
            labels,
            key=key,
            places=np.arange(len(images)),
            options=OPTIONS,
        )
    )
    assert masks[1].std() > 0.01
    return masks


# of several devices or of one, and with a last batch that is filled up
@pytest.mark.parametrize("batch_size", [1, 2, 4, 5])
def test_the_row_has_the_masks_of_all_images_at_once(everything, masks, batch_size):
    outcome = score(batch_size)
    np.testing.assert_allclose(areas(outcome), masks.mean(axis=(1, 2)), atol=1e-5)
    np.testing.assert_array_equal(outcome.labels, [0, 1, 1, 2, 0])
    best = np.asarray(CLASSIFIER(everything["image"])).argmax(axis=-1)
    np.testing.assert_array_equal(outcome.top_hits[:, 0], best == outcome.labels)


def test_the_seed_and_the_place_decide_the_draws(masks):
    first = areas(score(5))
    assert abs(first[1] - first[2]) > 1e-4  # the same image
    assert np.abs(areas(score(5, seed=SEED + 1)) - first).max() > 1e-4


def test_a_classifier_without_a_gradient_is_named():
    unfit = Classifier.from_function(lambda images: logits_of(images) / 0)
    with pytest.raises(InputError, match="row iterative are not finite: .* gradient"):
        score(5, unfit)


def filed(config):
    return json.loads(json.dumps(config.to_dict()))


def test_a_casm_run_has_the_authors_constants():
    options = iterative_options(filed(casm_shapes.get_config()), 7)
    assert options == IterativeOptions(iterations=7)


def test_a_black_box_run_says_how_evidence_is_removed():
    config = black_box_shapes.get_config("paper")
    config.removal.removal = "zero"
    options = iterative_options(filed(config), 7)
    assert options == IterativeOptions(
        removal=RemovalOptions(removal="zero", blur_sigma=10.0), iterations=7
    )
    usual = iterative_options(filed(black_box_shapes.get_config()), 200)
    assert usual == IterativeOptions()


def test_no_iteration_is_refused():
    with pytest.raises(InputError, match="iterations is 0"):
        iterative_options(filed(casm_shapes.get_config()), 0)
