import numpy as np
import pytest

from saliency_jax.metrics import baselines, ilsvrc, localisation


def test_center_box_scales_with_the_side():
    np.testing.assert_array_equal(
        baselines.center_box(2, 224), [[33, 33, 191, 191], [33, 33, 191, 191]]
    )
    # 33 * 64 / 224 = 9.43, 191 * 64 / 224 = 54.57
    np.testing.assert_array_equal(baselines.center_box(1, 64), [[9, 9, 55, 55]])


def test_whole_image_hits_only_boxes_of_more_than_half_the_image():
    boxes = np.array([[[0, 0, 10, 5]], [[0, 0, 10, 6]]])
    scores = localisation.rectangle_scores(
        baselines.whole_image(2, 10), boxes, np.full((2, 2), 10), 10
    )
    np.testing.assert_array_equal(scores.hit, [False, True])
    # precision 1/2, recall 1
    assert scores.f1[0] == pytest.approx(2 / 3, abs=2e-6)


def test_a_drawn_rectangle_has_its_edges_half_open():
    boxes = np.array([[1, 0, 3, 2], [0, 0, 4, 4], [0, 0, 0, 0]])
    first, whole, empty = baselines.rectangle_masks(boxes, 4).astype(int)
    np.testing.assert_array_equal(
        first, [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    )
    assert whole.all() and not empty.any()


def test_ground_truth_box_is_the_largest_visible_one():
    boxes = np.array([[[0, 0, 40, 10], [22, 0, 28, 9], [-1, -1, -1, -1]]])
    # 60 x 10 is cropped to columns 25..35, where the first is larger
    found = baselines.ground_truth_box(boxes, np.array([[60, 10]]), 10)
    np.testing.assert_array_equal(found, [[0, 0, 10, 10]])


def test_ground_truth_box_hits_unless_half_of_it_is_cropped_away():
    sizes = np.array([[20, 10], [20, 10], [20, 10]])
    boxes = np.array([[[6, 1, 14, 9]], [[0, 0, 10, 10]], [[-1, -1, -1, -1]]])
    found = baselines.ground_truth_box(boxes, sizes, 10)
    scores = localisation.rectangle_scores(found, boxes, sizes, 10)
    np.testing.assert_array_equal(scores.scored, [True, True, False])
    np.testing.assert_array_equal(scores.hit, [True, False, False])
    for side in (0, 1, 2, 7):  # the edges that hits are judged by
        boxes[0] = [6, 1, 6 + side, 1 + side]
        edges = boxes, sizes, 10, "inclusive"
        hits = ilsvrc.box_hits(baselines.ground_truth_box(*edges), *edges)
        assert hits.iou[0] == 1
    assert not baselines.ground_truth_box(np.zeros((1, 0, 4), int), sizes[:1], 10).any()
