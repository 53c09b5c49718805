import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.pixel_precision import (
    THRESHOLDS,
    average_precision,
    mask_iou,
    pixel_counts,
)


def scenes(count=6, size=12):
    rng = np.random.default_rng(0)
    masks = rng.random((count, size, size)) < 0.3
    maps = np.clip(0.3 * masks + rng.random(masks.shape), 0, 1).astype(np.float32)
    maps[:, :2] = np.round(10 * maps[:, :2]) / 10  # at bins' edges
    return maps, masks, rng.random(masks.shape) < 0.2


def plain_precision(values, inside, thresholds):
    """The sum over thresholds of pixels that are at or above, from the highest."""
    area, before = 0.0, 0.0
    for threshold in sorted([*thresholds, 1.0], reverse=True):
        kept = np.asarray(values, np.float64) >= threshold
        if kept.any():
            precision, recall = (
                inside[kept].mean(),
                (inside & kept).sum() / inside.sum(),
            )
            area += precision * (recall - before)
            before = recall
    return area


@pytest.mark.parametrize("thresholds", [THRESHOLDS, np.arange(0, 1, 0.1)])
def test_agrees_with_every_threshold(thresholds):
    maps, masks, ignored = scenes()
    inside, outside = pixel_counts(maps, masks, ignored, thresholds=thresholds)
    each = average_precision(inside, outside)
    pooled = average_precision(inside.sum(0), outside.sum(0))
    counted = masks | ~ignored
    for index in range(len(maps)):
        use = counted[index]
        expected = plain_precision(maps[index][use], masks[index][use], thresholds)
        assert each[index] == pytest.approx(expected)
    expected = plain_precision(maps[counted], masks[counted], thresholds)
    assert pooled == pytest.approx(expected)
    assert masks.mean() + 0.05 < pooled < 0.95


def test_ignored_pixels_are_as_if_they_were_not_there():
    maps, masks, ignored = scenes()
    changed = np.where(ignored & ~masks, 1 - maps, maps)
    for one, other in zip(
        pixel_counts(maps, masks, ignored),
        pixel_counts(changed, masks, ignored),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert (
        pixel_counts(maps, masks).outside != pixel_counts(changed, masks).outside
    ).any()


def test_a_map_that_is_the_mask_and_maps_that_say_nothing():
    _, masks, _ = scenes()
    perfect = average_precision(*pixel_counts(masks.astype(np.float32), masks))
    np.testing.assert_allclose(perfect, 1)
    for value in (0.0, 0.25, 0.9995, 1.0):
        constant = np.full(masks.shape, value, np.float32)
        counts = pixel_counts(constant, masks)
        np.testing.assert_allclose(average_precision(*counts), masks.mean(axis=(1, 2)))
        pooled = average_precision(counts.inside.sum(0), counts.outside.sum(0))
        assert pooled == pytest.approx(masks.mean())
    nothing = pixel_counts(masks.astype(np.float32), np.zeros_like(masks))
    assert not average_precision(*nothing).any()


def test_by_hand():
    # 0.9 is right, 0.5 is wrong, 0.2 is right: 1/2 * 1 + 1/2 * 2/3.
    maps = np.array([[[0.9, 0.5, 0.2, 0.1]]], np.float32)
    masks = np.array([[[True, False, True, False]]])
    assert average_precision(*pixel_counts(maps, masks))[0] == pytest.approx(5 / 6)


def test_bad_maps():
    maps, masks, _ = scenes()
    with pytest.raises(InputError, match="expected \\[0, 1\\]"):
        pixel_counts(2 * maps, masks)
    with pytest.raises(InputError, match="not finite"):
        pixel_counts(np.nan * maps, masks)


def test_iou_with_a_mask():
    binary = np.array([[[1, 1, 0]], [[0, 0, 0]], [[1, 1, 1]], [[0, 0, 0]]], bool)
    exact = np.array([[[0, 1, 1]], [[1, 1, 1]], [[1, 1, 1]], [[0, 0, 0]]], bool)
    np.testing.assert_allclose(mask_iou(binary, exact), [1 / 3, 0, 1, 0])
