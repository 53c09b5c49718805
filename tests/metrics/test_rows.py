import numpy as np
import pytest

from saliency_jax.metrics import rows
from saliency_jax.metrics.saliency_metric import SaliencyMetric

EVERYTHING = np.ones(6, bool)
SALIENCY = SaliencyMetric(
    np.log([0.5, 0.25, 0.05, 1.0, 0.5, 0.125]),
    np.log([1.0, 0.5, 0.01, 0.25, 0.5, 0.5]),
    np.array([True, True, False, False, True, False]),
)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    masks = rng.random((6, 12, 12)).astype(np.float32) ** 4
    first = rng.integers(0, 6, (6, 2, 2))
    boxes = np.concatenate([first, first + rng.integers(3, 9, (6, 2, 2))], axis=2)
    boxes[2] = -1  # an image without boxes
    boxes[4, 1] = -1
    return masks, boxes, np.full((6, 2), 15)


def test_parts_join_to_the_whole(batch):
    whole = rows.measure(*batch)
    parts = [rows.measure(*(values[i : i + 2] for values in batch)) for i in (0, 2, 4)]
    assert list(whole) == ["casm", "whole_image", "center_box", "ground_truth_box"]
    for name, expected in whole.items():
        joined = rows.join([part[name] for part in parts])
        for got, want in zip(
            (*joined.scores, *joined.statistics),
            (*expected.scores, *expected.statistics),
            strict=True,
        ):
            np.testing.assert_array_equal(got, want)


def test_images_without_boxes_count_nowhere(batch):
    correct = np.array([True, False, True, True, True, False])
    scored = np.array([0, 1, 3, 4, 5])
    for name, measured in rows.measure(*batch).items():
        without = rows.measure(*(values[scored] for values in batch))[name]
        row = rows.summarise(measured, SALIENCY, correct, EVERYTHING)
        kept = SaliencyMetric(*(values[scored] for values in SALIENCY))
        assert row == rows.summarise(without, kept, correct[scored], EVERYTHING[:5])
        # left out by hand instead
        assert row == rows.summarise(measured, SALIENCY, correct, np.arange(6) != 2)


def test_om_counts_a_hit_with_a_wrong_class_as_a_miss(batch):
    measured = rows.measure(*batch)["ground_truth_box"]
    correct = np.array([True, False, True, True, True, False])
    row = rows.summarise(measured, SALIENCY, correct, EVERYTHING)
    hit = measured.scores.hit
    assert hit.sum() >= 3
    assert row["om"] == pytest.approx(1 - (hit & correct).sum() / 5)
    assert row["le"] == pytest.approx(1 - hit.sum() / 5)
    right = rows.summarise(measured, SALIENCY, EVERYTHING, EVERYTHING)
    assert right["om"] == row["le"]
    for name in ("le", "om", "f1", "f1a", "mask_mean", "mask_entropy"):
        low, high = row[f"{name}_interval"]
        assert 0 <= low <= row[name] <= high <= 1


def test_the_saliency_metric_of_a_row(batch):
    measured = rows.measure(*batch, row="mine")["mine"]
    counted = np.array([True, True, False, False, False, False])
    row = rows.summarise(measured, SALIENCY, EVERYTHING, counted)
    # log 1/2 - log 1 and log 1/4 - log 1/2
    assert row["sm"] == pytest.approx(np.log(1 / 2))
    assert row["sm_interval"] == pytest.approx((np.log(1 / 2),) * 2)
    assert row["sm_log_area"] == pytest.approx(np.log(1 / 8) / 2)
    assert row["sm_log_probability"] == pytest.approx(np.log(1 / 2) / 2)
    assert row["sm_accuracy"] == 1
    low, high = row["sm_log_area_interval"]
    assert low == pytest.approx(np.log(0.05)) and high == 0  # two images say little
    one = rows.summarise(measured, SALIENCY, EVERYTHING, np.arange(6) == 3)
    assert one["sm"] == pytest.approx(np.log(4)) and one["sm_accuracy"] == 0
    # one image has no interval where the figure has no bounds
    assert "sm_interval" not in one and "sm_log_probability_interval" not in one
    assert "sm_accuracy_interval" in one
