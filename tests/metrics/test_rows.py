import numpy as np
import pytest

from saliency_jax.metrics import rows


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
        assert rows.summarise(measured, correct) == rows.summarise(
            without, correct[scored]
        )


def test_om_counts_a_hit_with_a_wrong_class_as_a_miss(batch):
    measured = rows.measure(*batch)["ground_truth_box"]
    correct = np.array([True, False, True, True, True, False])
    row = rows.summarise(measured, correct)
    hit = measured.scores.hit
    assert hit.sum() >= 3
    assert row["om"] == pytest.approx(1 - (hit & correct).sum() / 5)
    assert row["le"] == pytest.approx(1 - hit.sum() / 5)
    assert rows.summarise(measured, np.ones(6, bool))["om"] == row["le"]
    for name in ("le", "om", "f1", "f1a", "mask_mean", "mask_entropy"):
        low, high = row[f"{name}_interval"]
        assert 0 <= low <= row[name] <= high <= 1
