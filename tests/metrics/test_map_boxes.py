import math

import numpy as np
import pytest
from scipy import ndimage

from saliency_jax.errors import InputError
from saliency_jax.metrics import localisation
from saliency_jax.metrics.map_boxes import (
    ALPHAS,
    RULES,
    binary_masks,
    choose_alphas,
    component_boxes,
    grid_boxes,
)

# A twin, one pixel at a time


def plain_kept(values, rule, alpha):
    """The kept pixels of one map in [0, 1], as a set of (row, column)."""
    pixels = {index: float(v) for index, v in np.ndenumerate(values)}
    ordered = sorted(pixels.values(), reverse=True)
    if rule == "value":
        kept = {p for p, v in pixels.items() if v > np.float32(alpha)}
    elif rule == "mean":
        mean = math.fsum(ordered) / len(ordered)
        kept = {p for p, v in pixels.items() if v > np.float32(alpha * mean)}
    elif rule == "fixed":
        needed = math.floor(alpha * len(ordered) + 0.5)
        kept = {p for p, v in pixels.items() if needed and v >= ordered[needed - 1]}
    else:
        needed, total = 0, math.fsum(ordered)
        while math.fsum(ordered[: needed + 1]) < alpha * total - 1e-9:
            needed += 1
        kept = {p for p, v in pixels.items() if v >= ordered[needed]}
    return {p for p in kept if pixels[p] > 0}


def plain_box(kept, shape, rule):
    if rule == "fixed" and kept:
        binary = np.zeros(shape, bool)
        binary[tuple(np.array(sorted(kept)).T)] = True
        labels, _ = ndimage.label(binary)
        largest = 1 + np.argmax(np.bincount(labels.ravel())[1:])
        kept = {p for p in kept if labels[p] == largest}
    if not kept:
        return 0, 0, 0, 0
    rows, columns = zip(*kept, strict=True)
    return min(rows), min(columns), max(rows) + 1, max(columns) + 1


def scenes(count=12, height=7, width=9):
    """Maps of few values, so with many ties, and of many; some signed, one constant."""
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(count, height, width)).astype(np.float32)
    maps[: count // 2] = np.round(2 * maps[: count // 2])
    maps[3] = np.maximum(maps[3], 0)
    maps[4] = 2.5
    return maps


def normalised(maps):
    low = maps.min(axis=(1, 2), keepdims=True)
    span = np.ptp(maps, axis=(1, 2), keepdims=True)
    return (maps - low) / np.where(span, span, 1)


@pytest.mark.parametrize("rule", ["fixed", "value", "energy", "mean"])
def test_agrees_with_plain_loops(rule):
    maps = scenes()
    boxes = grid_boxes(maps, rule)
    assert boxes.shape == (len(maps), len(ALPHAS[rule]), 4)
    sizes = set()
    for column, alpha in enumerate(ALPHAS[rule]):
        binary = binary_masks(maps, rule, np.full(len(maps), alpha))
        for index, values in enumerate(normalised(maps)):
            kept = plain_kept(values, rule, alpha)
            assert set(zip(*np.nonzero(binary[index]), strict=True)) == kept
            expected = plain_box(kept, values.shape, rule)
            assert tuple(boxes[index, column]) == expected
            sizes.add(len(kept))
    assert len(sizes) > 10 and not boxes[4].any()


def test_quantile_is_casms_rule():
    maps = scenes()
    unit = normalised(maps)
    boxes = grid_boxes(maps, "quantile")
    np.testing.assert_array_equal(boxes[:, 0], localisation.predicted_boxes(unit))
    np.testing.assert_array_equal(
        binary_masks(maps, "quantile", np.ones(len(maps))),
        localisation.binarise_quantile(unit),
    )


@pytest.mark.parametrize("rule", RULES)
def test_an_alpha_for_each_image_and_no_neighbours(rule):
    maps = scenes()
    grid = ALPHAS[rule]
    chosen = np.arange(len(maps)) % len(grid)
    together = binary_masks(maps, rule, np.asarray(grid)[chosen])
    for index, column in enumerate(chosen):
        one = maps[index : index + 1]
        alone = binary_masks(one, rule, np.array([grid[column]]))
        np.testing.assert_array_equal(together[index], alone[0])
        np.testing.assert_array_equal(
            grid_boxes(maps, rule)[index, column],
            grid_boxes(one, rule, [grid[column]])[0, 0],
        )


@pytest.mark.parametrize("rule", RULES)
def test_scale_and_offset_of_a_raw_map_do_not_matter(rule):
    maps = scenes()
    boxes = grid_boxes(maps, rule)
    np.testing.assert_array_equal(grid_boxes(4 * maps - 8, rule), boxes)
    assert (grid_boxes(-maps, rule) != boxes).any()


@pytest.mark.parametrize("rule", RULES)
def test_a_transposed_map_has_the_transposed_box(rule):
    maps = np.random.default_rng(1).random((6, 7, 9)).astype(np.float32)
    turned = grid_boxes(maps.transpose(0, 2, 1), rule)
    # Of two components of one size the first in raster order counts, another one then.
    agree = (turned == grid_boxes(maps, rule)[..., [1, 0, 3, 2]]).all(axis=-1)
    assert agree.mean() > (0.7 if rule in ("fixed", "quantile") else 0.99)


# Hand-computed cases

SPOTS = np.array([[[0, 0, 0, 0, 0], [0, 4, 2, 0, 1], [0, 2, 0, 0, 1]]], np.float32)


@pytest.mark.parametrize(
    ("rule", "alpha", "box"),
    [
        ("value", 0.1, (1, 1, 3, 5)),  # of both spots
        ("value", 0.25, (1, 1, 3, 3)),  # not above: the right spot is just 0.25
        ("value", 0.5, (1, 1, 2, 2)),
        ("value", 1.0, (0, 0, 0, 0)),
        ("energy", 0.0, (0, 0, 0, 0)),
        ("energy", 0.4, (1, 1, 2, 2)),  # 4 of 10
        ("energy", 0.5, (1, 1, 3, 3)),  # both 2s come together
        ("energy", 0.8, (1, 1, 3, 3)),
        ("energy", 0.81, (1, 1, 3, 5)),
        ("energy", 1.0, (1, 1, 3, 5)),
        ("mean", 1.0, (1, 1, 3, 5)),  # mean 10/15
        ("mean", 2.0, (1, 1, 3, 3)),  # above 20/15
        ("fixed", 1 / 15, (1, 1, 2, 2)),
        ("fixed", 2 / 15, (1, 1, 3, 3)),
        ("fixed", 5 / 15, (1, 1, 3, 3)),  # of the largest component only
        ("fixed", 1.0, (1, 1, 3, 3)),  # a pixel at 0 is never kept
        ("fixed", 0.0, (0, 0, 0, 0)),
    ],
)
def test_spots(rule, alpha, box):
    assert tuple(grid_boxes(SPOTS, rule, [alpha])[0, 0]) == box


def test_a_mask_as_it_is():
    mask = np.full((1, 4, 6), 0.2, np.float32)
    mask[0, 1:3, 2:5] = 0.6
    alphas = [0.1, 0.2, 0.7]  # a float32 of 0.2 is not above 0.2
    as_it_is = grid_boxes(mask, "value", alphas, normalise=False)
    np.testing.assert_array_equal(
        as_it_is[0], [[0, 0, 4, 6], [1, 2, 3, 5], [0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        grid_boxes(mask, "value", alphas)[0], [[1, 2, 3, 5]] * 3
    )
    ones = np.ones((1, 4, 6), np.float32)
    for rule in RULES:
        assert not grid_boxes(ones, rule).any()
        assert not binary_masks(ones, rule, np.array([0.5])).any()
        whole = grid_boxes(ones, rule, [0.5], normalise=False)
        assert tuple(whole[0, 0]) == (0, 0, 4, 6)


def test_boxes_of_masks_that_somebody_else_made():
    binary = np.zeros((2, 5, 5), bool)
    binary[0, 0, 0] = binary[0, 2:4, 1:4] = True
    np.testing.assert_array_equal(component_boxes(binary), [[2, 1, 4, 4], [0, 0, 0, 0]])
    assert component_boxes(binary[:0]).shape == (0, 4)


def test_bad_input():
    with pytest.raises(InputError, match="'otsu' is unknown"):
        grid_boxes(SPOTS, "otsu")
    with pytest.raises(InputError, match="expected \\[0, 1\\]"):
        grid_boxes(SPOTS, "value", normalise=False)
    with pytest.raises(InputError, match="not finite"):
        binary_masks(SPOTS * np.nan, "value", np.array([0.5]))
    with pytest.raises(InputError, match="expected \\[B, H, W\\]"):
        grid_boxes(SPOTS[0], "value")
    for rule, alpha in (("energy", 1.1), ("fixed", -0.1), ("mean", -1.0)):
        with pytest.raises(InputError, match=f"alphas of the box rule {rule}"):
            grid_boxes(SPOTS, rule, [0.5, alpha])


@pytest.mark.parametrize("rule", RULES)
def test_no_maps_at_all(rule):
    assert grid_boxes(SPOTS[:0], rule).shape == (0, len(ALPHAS[rule]), 4)
    assert binary_masks(SPOTS[:0], rule, np.zeros(0)).shape == (0, *SPOTS.shape[1:])


# The choice of alpha


def test_each_half_chooses_for_the_other():
    # The 1st and 3rd scored image like the first alpha, the 2nd and 4th the last one.
    hits = np.array([[1, 0, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0], [0, 0, 1]], bool)
    scored = np.array([True, True, False, True, True])
    # All together: two hits for either end, the lower of the two in the middle.
    np.testing.assert_array_equal(choose_alphas(hits, scored), [2, 0, 0, 2, 0])


def test_no_image_has_a_say_in_its_own_alpha():
    rng = np.random.default_rng(0)
    hits = rng.random((9, 5)) < 0.5
    scored = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1], bool)
    chosen = choose_alphas(hits, scored)
    moved = np.zeros(9, int)
    for index in range(9):
        for _ in range(20):
            other = hits.copy()
            other[index] = rng.random(5) < 0.5
            again = choose_alphas(other, scored)
            assert again[index] == chosen[index]
            moved += again != chosen
            if not scored[index]:
                np.testing.assert_array_equal(again, chosen)
    assert moved[scored].all()


def test_ties_and_nobody_to_ask():
    hits = np.array([[0, 1, 1, 1, 0]] * 2, bool)
    np.testing.assert_array_equal(choose_alphas(hits, np.ones(2, bool)), [2, 2])
    np.testing.assert_array_equal(choose_alphas(hits, np.zeros(2, bool)), [2, 2])
    one = choose_alphas(hits[:1, :4], np.ones(1, bool))
    np.testing.assert_array_equal(one, [1])  # of 0 to 3 the lower middle
