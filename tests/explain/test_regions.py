"""Rules by their text, and the region and box of a map."""

import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.explain.regions import Rule, region_and_box, rule_of
from saliency_jax.metrics.map_boxes import NO_BOX

SQUARE = np.zeros((8, 8, 3), np.uint8)


def blob():
    values = np.zeros((8, 8), np.float32)
    values[2:5, 3:7] = 0.6
    values[3, 4] = 1.0
    values[7, 0] = 0.3
    return values


def test_rules_are_read():
    assert rule_of("quantile") == Rule("quantile", 1.0)
    assert rule_of("graph_cut").name == "graph_cut"
    assert rule_of("mean:2.5") == Rule("mean", 2.5)
    assert rule_of("value:1") == Rule("value", 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quantil", r"no box rule 'quantil' \(did you mean quantile\?\)"),
        ("value", "value needs an alpha, as in value:0.5"),
        ("value:much", "value needs an alpha"),
        ("energy:1.5", "expected an alpha of 0 to 1"),
        ("mean:-1", "expected an alpha of 0 to inf"),
        ("value:nan", "expected an alpha of 0 to 1"),
        ("graph_cut:3", "graph_cut has no alpha: leave out :3"),
    ],
)
def test_wrong_rules_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        rule_of(text)


def test_a_threshold_of_the_scaled_map():
    region, box = region_and_box(SQUARE, 10 * blob() - 4, rule_of("value:0.5"), False)
    np.testing.assert_array_equal(region, blob() > 0.5)
    assert box.tolist() == [2, 3, 5, 7]


def test_a_mask_is_taken_as_it_is():
    half = 0.5 * blob()
    region, box = region_and_box(SQUARE, half, rule_of("value:0.4"), True)
    assert np.argwhere(region).tolist() == [[3, 4]] and box.tolist() == [3, 4, 4, 5]
    region, _ = region_and_box(SQUARE, half, rule_of("value:0.4"), False)
    assert region.sum() == 12


def test_a_constant_map_has_no_box():
    for text in ("quantile", "energy:0.5", "graph_cut", "grabcut"):
        flat = np.full((8, 8), 3.0, np.float32)
        region, box = region_and_box(SQUARE, flat, rule_of(text), False)
        assert not region.any() and tuple(box) == NO_BOX


@pytest.mark.parametrize("cut", ["graph_cut", "grabcut"])
def test_a_graph_cut_follows_the_colours(cut):
    # not flat: GrabCut's likelihoods underflow there
    square = np.random.default_rng(0).integers(180, 220, (24, 24, 3), np.uint8)
    square[4:16, 6:18] = square[4:16, 6:18] // 10
    rows, columns = np.indices((24, 24))
    heat = np.exp(-((rows - 10) ** 2 + (columns - 12) ** 2) / 50.0).astype(np.float32)
    region, box = region_and_box(square, heat, rule_of(cut), False)
    np.testing.assert_array_equal(region, square[..., 0] < 100)
    assert box.tolist() == [4, 6, 16, 18]
