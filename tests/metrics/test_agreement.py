"""Figures of agreement, against cases by hand, scipy and NumPy twins."""

import numpy as np
import pytest
import scipy.stats
from scipy import ndimage

from saliency_jax.errors import InputError
from saliency_jax.metrics.agreement import (
    agreement_matrix,
    hog_correlation,
    mean_pairwise_correlation,
    rank_correlation,
    similarities,
    structural_similarity,
)

RANDOM = np.random.default_rng(3)
MAPS = RANDOM.normal(size=(3, 32, 40)).astype(np.float32)
OTHERS = (0.6 * MAPS + RANDOM.normal(size=MAPS.shape)).astype(np.float32)


def spearman(one, other):
    return scipy.stats.spearmanr(one, other, axis=None).statistic


def test_rank_correlation_by_hand():
    maps = np.array([[[1.0, 2], [3, 4]]] * 4, np.float32)
    others = np.array(
        [[[10.0, 20], [30, 90]], [[4, 3], [2, 1]], [[2, 1], [3, 4]], [[5, 5], [5, 5]]],
        np.float32,
    )
    # The third has two neighbours exchanged: 1 - 6 * (1 + 1) / (4 * 15).
    np.testing.assert_allclose(rank_correlation(maps, others), [1, -1, 0.8, 0])


def test_the_absolute_rank_correlation_does_not_see_signs():
    np.testing.assert_allclose(rank_correlation(MAPS, -MAPS), -1)
    np.testing.assert_allclose(rank_correlation(MAPS, -MAPS, absolute=True), 1)
    signs = np.where(RANDOM.random(MAPS.shape) < 0.5, np.float32(-1), np.float32(1))
    np.testing.assert_allclose(rank_correlation(MAPS, signs * MAPS, absolute=True), 1)
    assert np.abs(rank_correlation(MAPS, signs * MAPS)).max() < 0.1


def test_rank_correlation_is_scipys_with_and_without_ties():
    tied, others_tied = np.round(MAPS, 1), np.maximum(OTHERS, 0)
    for one, other in ((MAPS, OTHERS), (tied, others_tied)):
        expected = [spearman(*pair) for pair in zip(one, other, strict=True)]
        np.testing.assert_allclose(rank_correlation(one, other), expected, rtol=1e-12)
    absolute = [spearman(abs(a), abs(b)) for a, b in zip(MAPS, OTHERS, strict=True)]
    found = rank_correlation(MAPS, OTHERS, absolute=True)
    np.testing.assert_allclose(found, absolute, rtol=1e-12)


def ssim_twin(one, other):
    """Wang et al.'s formula by full 2-D windows, on maps scaled to [0, 1]."""
    one, other = ((x - x.min()) / (x.max() - x.min()) for x in (one, other))
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    patches = [
        np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (11, 11))
        for x in (one, other)
    ]
    mean = lambda x: np.einsum("hwij,ij->hw", x, window)
    (a, b), (x, y) = patches, (mean(p) for p in patches)
    covariance = mean(a * b) - x * y
    variances = mean(a * a) - x**2 + mean(b * b) - y**2
    values = (2 * x * y + 1e-4) * (2 * covariance + 9e-4)
    return np.mean(values / ((x**2 + y**2 + 1e-4) * (variances + 9e-4)))


def test_structural_similarity_is_that_of_the_paper():
    expected = [ssim_twin(*pair) for pair in zip(MAPS, OTHERS, strict=True)]
    found = structural_similarity(MAPS, OTHERS)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (0.1 < found).all() and (found < 0.9).all()


def test_structural_similarity_sees_no_scale_and_no_offset():
    np.testing.assert_allclose(structural_similarity(MAPS, 3 * MAPS + 7), 1, atol=1e-5)
    assert (structural_similarity(MAPS, -MAPS) < 0).all()
    flat = np.full_like(MAPS, 5)
    np.testing.assert_allclose(structural_similarity(flat, -flat), 1)
    assert (structural_similarity(MAPS, flat) < 0.1).all()


def hog_twin(values):
    """Dalal and Triggs' features in loops, with hard bins in space and in direction."""
    values = (values - values.min()) / (values.max() - values.min())
    down, right = (
        ndimage.correlate1d(values, [-1, 0, 1], axis=axis, mode="nearest")
        for axis in (0, 1)
    )
    down[[0, -1]], right[:, [0, -1]] = 0, 0
    degrees = np.rad2deg(np.arctan2(down, right)) % 180
    strength, bins = np.hypot(down, right), (degrees // 20).astype(int) % 9
    rows, columns = (side // 8 for side in values.shape)
    cells = np.zeros((rows, columns, 9))
    for i, j, k in np.ndindex(rows, columns, 9):
        place = slice(8 * i, 8 * i + 8), slice(8 * j, 8 * j + 8)
        cells[i, j, k] = strength[place][bins[place] == k].sum() / 64
    blocks = []
    for i, j in np.ndindex(rows - 1, columns - 1):
        block = cells[i : i + 2, j : j + 2].ravel()
        block = np.minimum(block / np.sqrt(np.sum(block**2) + 1e-10), 0.2)
        blocks.append(block / np.sqrt(np.sum(block**2) + 1e-10))
    return np.concatenate(blocks)


def test_hog_correlation_is_that_of_the_features():
    maps, others = MAPS.astype(np.float64), OTHERS.astype(np.float64)
    expected = [
        np.corrcoef(hog_twin(one), hog_twin(other))[0, 1]
        for one, other in zip(maps, others, strict=True)
    ]
    np.testing.assert_allclose(hog_correlation(maps, others), expected, atol=1e-6)


def test_hog_correlation_sees_directions_alone():
    np.testing.assert_allclose(hog_correlation(MAPS, MAPS), 1)
    np.testing.assert_allclose(hog_correlation(MAPS, 2 - 5 * MAPS), 1, atol=1e-4)
    across = np.broadcast_to(np.arange(32) // 4 % 2, (1, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(hog_correlation(across, 9 * across + 1), 1)
    assert hog_correlation(across, across.transpose(0, 2, 1))[0] < 0
    np.testing.assert_array_equal(hog_correlation(MAPS, np.zeros_like(MAPS)), 0)


def test_similarities_of_a_map_and_its_negative():
    same, negative = similarities(MAPS, MAPS), similarities(MAPS, -MAPS)
    for values in same:
        np.testing.assert_allclose(values, 1)
    np.testing.assert_allclose(negative.spearman, -1)
    np.testing.assert_allclose(negative.spearman_absolute, 1)
    np.testing.assert_allclose(negative.hog, 1)
    assert (negative.ssim < 0).all()


def test_the_matrix_is_scipys_mean_over_images():
    third = np.round(OTHERS, 1)
    third[1] = 4  # a constant map, which agrees with nothing
    rows = {"a": MAPS, "b": OTHERS, "c": third}
    found = agreement_matrix(rows)
    expected = np.zeros((3, 3))
    for i, one in enumerate(rows.values()):
        for j, other in enumerate(rows.values()):
            of_images = [spearman(one[n], other[n]) for n in (0, 2)]
            of_images.append(0 if 2 in (i, j) else spearman(one[1], other[1]))
            expected[i, j] = np.mean(of_images)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(np.diag(found), [1, 1, 2 / 3])


@pytest.mark.filterwarnings("error")
def test_the_matrix_depends_on_the_order_of_the_values_alone():
    rows = {"a": MAPS, "b": np.exp(MAPS), "c": -(MAPS**3), "d": np.zeros_like(MAPS)}
    expected = np.zeros((4, 4))
    expected[:3, :3] = np.outer([1, 1, -1], [1, 1, -1])
    np.testing.assert_allclose(agreement_matrix(rows), expected)


def test_the_matrix_ranks_each_map_once(monkeypatch):
    sorted_sizes, argsort = [], np.argsort
    monkeypatch.setattr(
        np, "argsort", lambda x: sorted_sizes.append(x.size) or argsort(x)
    )
    agreement_matrix({"a": MAPS, "b": OTHERS, "c": -MAPS, "d": -OTHERS})
    assert sorted_sizes == [32 * 40] * 4 * 3


def test_the_matrix_names_the_maps_that_do_not_fit():
    with pytest.raises(InputError, match="no maps to compare"):
        agreement_matrix({})
    with pytest.raises(InputError, match=r"maps of b have shape \(2, 32, 40\), those"):
        agreement_matrix({"a": MAPS, "b": MAPS[:2]})
    with pytest.raises(InputError, match=r"maps of a have shape \(32, 40\)"):
        agreement_matrix({"a": MAPS[0]})
    broken = MAPS.copy()
    broken[2, 3, 4] = np.nan
    with pytest.raises(InputError, match="maps of b: map 2 has values that are not"):
        agreement_matrix({"a": MAPS, "b": broken})
    for figure in (rank_correlation, structural_similarity, hog_correlation):
        with pytest.raises(InputError, match="second maps: map 2 has values"):
            figure(MAPS, broken)


def test_maps_smaller_than_a_window_are_refused():
    small = MAPS[:, :10]
    with pytest.raises(InputError, match="of 10 x 40 pixels: .* at least 11"):
        structural_similarity(small, small)
    with pytest.raises(InputError, match="of 10 x 40 pixels: .* at least 16"):
        hog_correlation(small, small)
    np.testing.assert_allclose(rank_correlation(small, small), 1)


def test_mean_pairwise_correlation():
    maps = np.stack([MAPS, OTHERS, -MAPS])
    found = mean_pairwise_correlation(maps)
    pair = rank_correlation(MAPS, OTHERS)
    np.testing.assert_allclose(found, (pair - pair - 1) / 3, atol=1e-12)
    np.testing.assert_allclose(mean_pairwise_correlation(np.stack([MAPS] * 4)), 1)
    with pytest.raises(InputError, match="at least two"):
        mean_pairwise_correlation(MAPS[None])
