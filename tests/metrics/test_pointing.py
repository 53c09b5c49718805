import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.pointing import (
    box_regions,
    by_class,
    class_mean,
    energy_inside,
    peaks,
    pointing_hits,
)


def test_regions_hold_the_last_pixel_and_every_box():
    boxes = np.array([[[0, 1, 2, 1], [2, 0, 4, 2]], [[-1] * 4, [-1] * 4]])
    regions = box_regions(boxes, np.array([[5, 5], [0, 0]]), 5)
    expected = np.zeros((2, 5, 5), bool)
    expected[0, 1, 0:3] = expected[0, 0:3, 2:5] = True
    np.testing.assert_array_equal(regions, expected)
    assert not box_regions(boxes[:, :0], np.array([[5, 5], [5, 5]]), 5).any()


def test_the_first_of_several_peaks():
    maps = np.zeros((3, 3, 4), np.float32)
    maps[0, 1, 2] = maps[0, 2, 0] = 5
    maps[1] = -maps[0] - 1
    np.testing.assert_array_equal(peaks(maps), [[1, 2], [0, 0], [0, 0]])


@pytest.mark.parametrize(
    ("away", "hit"),
    [
        ((0, 14), True),
        ((0, 15), False),  # strictly
        ((9, 11), True),  # 202
        ((9, 12), False),  # exactly 225
        ((-14, 5), True),
        ((-15, 0), False),
    ],
)
def test_fifteen_pixels(away, hit):
    regions = np.zeros((1, 60, 64), bool)
    regions[0, 30, 32] = True
    point = np.array([[30 + away[0], 32 + away[1]]])
    assert pointing_hits(point, regions)[0] == hit


def test_agrees_with_every_pixel_of_the_region():
    rng = np.random.default_rng(0)
    regions = rng.random((200, 8, 9)) < 0.03
    points = np.stack([rng.integers(0, 8, 200), rng.integers(0, 9, 200)], axis=1)
    hits = pointing_hits(points, regions, tolerance=3)
    for hit, region, (row, column) in zip(hits, regions, points, strict=True):
        distances = [np.hypot(y - row, x - column) for y, x in np.argwhere(region)]
        assert hit == (min(distances, default=9) < 3 - 1e-9)
    assert 20 < hits.sum() < 180 and not regions.any(axis=(1, 2)).all()


def test_a_tolerance_of_one_is_inside():
    regions = np.zeros((1, 4, 4), bool)
    regions[0, 1, 1] = True
    assert pointing_hits(np.array([[1, 1]]), regions, 1)[0]
    assert not pointing_hits(np.array([[1, 2]]), regions, 1)[0]
    with pytest.raises(InputError, match="tolerance is 0"):
        pointing_hits(np.array([[1, 1]]), regions, 0)


def test_energy():
    maps = np.array([[[3.0, 1, -4]], [[-1, -2, -3]], [[0, 0, 2]], [[2, 2, 2]]])
    regions = np.array([[[True, False, True]]] * 4)
    np.testing.assert_allclose(energy_inside(maps, regions), [3 / 4, 0, 1, 2 / 3])
    assert energy_inside(regions.astype(np.float32), regions).tolist() == [1.0] * 4
    with pytest.raises(InputError, match="not finite"):
        energy_inside(maps + np.inf, regions)


def test_the_mean_over_classes():
    values = np.array([True, True, False, False, True])
    labels = np.array([7, 7, 7, 2, 4])
    every, doubled = by_class(values, labels), by_class(values * 0.5, labels)
    means = np.stack([every.mean(axis=0), every[:4].mean(axis=0), doubled.mean(axis=0)])
    # The second draw has no image of class 4, which then does not count.
    np.testing.assert_allclose(
        class_mean(means),
        [(2 / 3 + 0 + 1) / 3, (2 / 3 + 0) / 2, (1 / 3 + 0 + 1 / 2) / 3],
        rtol=1e-6,
    )
