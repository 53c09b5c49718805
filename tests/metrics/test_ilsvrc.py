import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.ilsvrc import (
    CONVENTIONS,
    box_hits,
    localisation_errors,
    truth_boxes,
)
from saliency_jax.metrics.localisation import rectangle_scores


def scenes(count=300, size=16):
    rng = np.random.default_rng(0)
    sizes = rng.integers(size, size + 8, (count, 2))
    low = rng.integers(0, 7, (count, 3, 2))
    boxes = np.concatenate([low, low + rng.integers(4, 14, low.shape)], axis=-1)
    boxes[rng.random((count, 3)) < 0.4] = -1
    low = rng.integers(0, 5, (count, 2))
    high = low + rng.integers(5, 12, (count, 2))
    return np.concatenate([low, high], axis=1), boxes, sizes, size


def plain_iou(predicted, box, width, height, size, extra):
    """Of one predicted and one filed box, as sets of pixels that may lie outside."""
    ratio = size / min(width, height)
    x_cut = (width * ratio - size) / 2 if width > height else 0
    y_cut = 0 if width > height else (height * ratio - size) / 2
    x0, x1 = (int(ratio * box[i] - x_cut) for i in (0, 2))
    y0, y1 = (int(ratio * box[i] - y_cut) for i in (1, 3))
    truth = {(y, x) for y in range(y0, y1 + extra) for x in range(x0, x1 + extra)}
    top, left, bottom, right = predicted
    found = {(y, x) for y in range(top, bottom) for x in range(left, right)}
    return len(found & truth) / max(len(found | truth), 1)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_agrees_with_sets_of_pixels(convention):
    predicted, boxes, sizes, size = scenes()
    hits = box_hits(predicted, boxes, sizes, size, convention)
    extra = convention == "inclusive"
    for index, (width, height) in enumerate(sizes.tolist()):
        filed = [box for box in boxes[index].tolist() if box[0] != -1]
        ious = [
            plain_iou(predicted[index].tolist(), box, width, height, size, extra)
            for box in filed
        ]
        assert hits.scored[index] == bool(filed)
        best = max(ious, default=0)
        assert hits.iou[index] == pytest.approx(best, abs=1e-12)
        assert hits.hit[index] == (best >= 0.5 if extra else best > 0.5)
    assert 30 < hits.hit.sum() < 270 and not hits.scored.all()


def test_casm_is_casms():
    predicted, boxes, sizes, size = scenes()
    published = rectangle_scores(predicted, boxes, sizes, size)
    hits = box_hits(predicted, boxes, sizes, size, "casm")
    np.testing.assert_array_equal(hits.hit, published.hit)
    np.testing.assert_array_equal(hits.scored, published.scored)


def test_the_last_pixel_and_exactly_one_half():
    # Filed as 2..9: eight pixels wide if the last one is inside, seven if it is not.
    boxes, size = np.array([[[2, 4, 9, 11]]]), np.array([[16, 16]])
    for box, inclusive, casm in (
        ([4, 2, 12, 10], 1.0, 49 / 64),
        ([4, 2, 11, 9], 49 / 64, 1.0),
        ([4, 2, 8, 10], 0.5, 28 / (32 + 49 - 28)),
        ([0, 0, 0, 0], 0.0, 0.0),
    ):
        for convention, expected in (("inclusive", inclusive), ("casm", casm)):
            found = box_hits(np.array([box]), boxes, size, 16, convention)
            assert found.iou[0] == expected
            assert found.hit[0] == (expected >= 0.5)
    half = np.array([[[0, 0, 8, 16]]])  # edges, of the whole crop
    found = box_hits(np.array([[0, 0, 16, 16]]), half, size, 16, "casm")
    assert found.iou[0] == 0.5 and not found.hit[0]


def test_wsolevaluations_iou():
    # (1, 2, 5, 6) and (3, 1, 4, 5), inclusive: 8 / 27.
    found = box_hits(
        np.array([[2, 1, 7, 6]]), np.array([[[3, 1, 4, 5]]]), np.array([[8, 8]]), 8
    )
    assert found.iou[0] == 8 / 27


def test_what_was_cropped_away_is_missed():
    # Of 32 x 16 the columns 8 to 24 are left: half of the box.
    wide = np.array([[[0, 0, 15, 15]]])
    visible = np.array([[0, 0, 16, 8]])
    found = box_hits(visible, wide, np.array([[32, 16]]), 16)
    assert found.iou[0] == 0.5


def test_many_boxes_of_an_image():
    predicted, boxes, sizes, size = scenes()
    grid = np.stack([predicted, np.roll(predicted, 1, axis=0)], axis=1)
    for convention in CONVENTIONS:
        together = box_hits(grid, boxes, sizes, size, convention)
        for column in (0, 1):
            alone = box_hits(grid[:, column], boxes, sizes, size, convention)
            np.testing.assert_array_equal(together.iou[:, column], alone.iou)
            np.testing.assert_array_equal(together.hit[:, column], alone.hit)


def test_padding_and_no_boxes_at_all():
    predicted, boxes, sizes, size = scenes()
    padded = np.concatenate([np.full((len(boxes), 2, 4), -1), boxes], axis=1)
    np.testing.assert_array_equal(
        box_hits(predicted, padded, sizes, size).iou,
        box_hits(predicted, boxes, sizes, size).iou,
    )
    none = box_hits(predicted, boxes[:, :0], sizes, size)
    assert not none.scored.any() and not none.hit.any() and not none.iou.any()
    assert not truth_boxes(np.full((1, 2, 4), -1), np.zeros((1, 2), int), 8).any()


def test_an_unknown_convention():
    predicted, boxes, sizes, size = scenes(2)
    with pytest.raises(InputError, match="'voc' is unknown"):
        box_hits(predicted, boxes, sizes, size, "voc")


def test_errors_of_boxes_and_classes():
    hit = np.array([True, True, True, True, False])
    top_hits = np.zeros((5, 6), bool)
    top_hits[[0, 1, 2, 4], [0, 4, 5, 0]] = True  # the third is sixth, the fourth none
    errors = localisation_errors(hit, top_hits)
    np.testing.assert_array_equal(errors.gt_known, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(errors.top1, [0, 1, 1, 1, 1])
    np.testing.assert_array_equal(errors.top5, [0, 0, 1, 1, 1])
    few = localisation_errors(hit, top_hits[:, :2])
    np.testing.assert_array_equal(few.top5, [0, 1, 1, 1, 1])
