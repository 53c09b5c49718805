"""Figures of held-out images, on answers and masks written down by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.training import evaluators

RANKED = np.array([9, 8, 7, 6, 5, 4, 3], np.float32)  # class 0 first, class 6 last


def batches_of(labels, valid, size=2):
    for first in range(0, len(labels), size):
        part = slice(first, first + size)
        yield {
            "image": np.zeros((size, 16, 16, 3), np.uint8),
            "label": np.array(labels[part]),
            "valid": np.array(valid[part]),
            "boxes_pixels": np.array([[[2, 2, 10, 10]]] * size, np.int32),
            "original_size": np.array([[16, 16]] * size, np.int32),
        }


def test_accuracy_counts_valid_images_only():
    scores = evaluators.classification(
        lambda images: jnp.asarray(np.tile(RANKED, (2, 1))),
        batches_of([0, 4, 5, 0, 6, 0], [True, True, True, True, True, False]),
    )
    # of the classes 0, 4, 5, 0, 6 two are first and three among the first five
    assert scores == {"accuracy": 2 / 5, "top5_accuracy": 3 / 5}


def test_with_several_labels_any_is_right():
    (batch,) = batches_of([6, 5], [True, True])
    present = np.zeros((2, 7), bool)
    present[0, [6, 0]] = present[1, [5, 3]] = True
    classify = lambda images: jnp.asarray(np.tile(RANKED, (2, 1)))
    several = [batch | {"present": present}]
    scores = evaluators.classification(classify, several, several_labels=True)
    assert scores == {"accuracy": 0.5, "top5_accuracy": 1.0}
    assert evaluators.classification(classify, several)["top5_accuracy"] == 0
    one = evaluators.classification(classify, [batch], several_labels=True)
    assert one == evaluators.classification(classify, [batch])


def test_top_hits_are_in_the_order_of_the_logits():
    hits = evaluators.top_hits(np.stack([RANKED, RANKED[::-1]]), np.array([2, 2]))
    assert hits.tolist() == [
        [False, False, True, False, False],
        [False, False, False, False, True],
    ]


def test_other_classes_of_the_image_are_not_in_the_labels_way():
    present = np.zeros((2, 7), bool)
    present[0, [0, 1, 2]] = present[1, 2] = True
    hits = evaluators.top_hits(np.tile(RANKED, (2, 1)), np.array([2, 2]), present)
    assert hits.argmax(axis=1).tolist() == [0, 2]


def test_localisation_by_hand():
    """Three images: found and right, found and wrong, missed and right; one padded."""
    found = np.zeros((16, 16), np.float32)
    found[2:10, 2:10] = 1
    missed = np.zeros((16, 16), np.float32)
    missed[12:16, 12:16] = 1
    masks = iter([np.stack([found, found]), np.stack([missed, missed])])
    scores = evaluators.localisation(
        lambda images, labels: (next(masks), np.tile(RANKED, (2, 1))),
        batches_of([0, 1, 0, 0], [True, True, True, False]),
    )
    assert scores["le"] == pytest.approx(1 / 3)
    assert scores["om"] == pytest.approx(2 / 3)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(2 / 3, abs=1e-5)
    assert scores["mask_mean"] == pytest.approx((64 + 64 + 16) / 3 / 256)


def test_images_without_a_box_count_for_the_accuracy_only():
    whole = np.ones((2, 16, 16), np.float32)
    (batch,) = batches_of([0, 1], [True, True])
    batch["boxes_pixels"][0] = -1
    scores = evaluators.localisation(
        lambda images, labels: (whole, np.tile(RANKED, (2, 1))), [batch]
    )
    assert scores["accuracy"] == 0.5
    assert scores["le"] == scores["om"] == 1
    assert scores["mask_mean"] == 1


def test_best_has_the_lowest_localisation_error_or_the_highest_accuracy():
    low, high = {"le": 0.2, "accuracy": 0.1}, {"le": 0.4, "accuracy": 0.9}
    assert evaluators.selection_score(low) > evaluators.selection_score(high)
    accurate, other = {"accuracy": 0.9}, {"accuracy": 0.1}
    assert evaluators.selection_score(accurate) > evaluators.selection_score(other)


def test_mean_over_steps():
    metrics = [{"loss": jnp.array(value)} for value in (1.0, 2.0, 6.0)]
    assert evaluators.mean_of(metrics) == {"loss": 3.0}
    metrics.append({"loss": jnp.array(jnp.nan)})
    assert np.isnan(evaluators.mean_of(metrics)["loss"])


def test_one_line():
    values = {"loss": 1.23456, "le": 0.5, "rate": 1e-7}
    assert evaluators.one_line(values) == "loss 1.235, le 0.5, rate 1e-07"
