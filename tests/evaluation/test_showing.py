"""Which images the pictures show, and that they are those that were scored."""

import numpy as np

from saliency_jax.evaluation import showing
from saliency_jax.metrics.localisation import LocalisationScores
from tests.painted import SIZE, paint, painted_masker, source_of

BOX = [2, 4, 10, 12]  # xmin, ymin, xmax, ymax


def scores_of(f1, scored):
    f1, scored = np.array(f1), np.array(scored)
    return LocalisationScores(scored, f1 > 0.5, f1, f1, np.zeros((len(f1), 4), int))


def test_best_and_worst_by_f1_without_those_that_have_no_box():
    chosen = showing.choose(
        scores_of([0.5, 0.0, 0.9, 0.1, 0.9], [True, False, True, True, True]), 3, 2
    )
    assert chosen["best"] == [2, 4]
    assert chosen["worst"] == [3, 0]
    assert len(set(chosen["grid"])) == 3


def test_no_extremes_without_any_box_and_no_more_than_there_are():
    chosen = showing.choose(scores_of([0.0, 0.0], [False, False]), 5, 2)
    assert chosen["best"] == chosen["worst"] == []
    assert sorted(chosen["grid"]) == [0, 1]


def test_an_image_comes_with_its_own_mask_boxes_and_label():
    records = [
        paint(BOX, predicted=1, label=3, boxes=[BOX]),
        paint([0, 0, 4, 4], predicted=2, label=5, boxes=[]),
    ]
    source = source_of(records)
    groups = showing.show(painted_masker(), source, {"worst": [1, 0], "best": []}, SIZE)
    assert groups["best"] == []
    second, first = groups["worst"]
    assert (second.label, first.label) == (5, 3)
    assert second.boxes.shape == (0, 4) and first.boxes.tolist() == [BOX]
    left, top, right, bottom = BOX
    expected = np.zeros((SIZE, SIZE))
    expected[top:bottom, left:right] = 1
    np.testing.assert_allclose(first.mask, expected, atol=1e-5)
    assert second.mask[:4, :4].min() > 0.99 and second.mask.sum() < 16.1
