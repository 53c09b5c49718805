from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from saliency_jax.metrics import localisation

GOLDEN = Path(__file__).parent.parent / "golden" / "casm_scorer.npz"


@pytest.fixture(scope="module")
def golden():
    values = dict(np.load(GOLDEN))
    masks = values["mask56"].repeat(4, axis=1).repeat(4, axis=2)
    return masks, values


def score_one(mask, boxes, original_size, variant="author"):
    scores = localisation.casm_scores(
        mask[None].astype(np.float32),
        np.asarray(boxes, int)[None],
        np.asarray(original_size)[None],
        variant,
    )
    return {name: value[0] for name, value in scores._asdict().items()}


def box_mask(size, top, left, bottom, right):
    mask = np.zeros((size, size), np.float32)
    mask[top:bottom, left:right] = 1
    return mask


# What the published scorer answers


def test_golden_binary_masks_bit_for_bit(golden):
    masks, values = golden
    np.testing.assert_array_equal(
        localisation.binarise_quantile(masks), values["binary"]
    )


def test_golden_rectangles_bit_for_bit(golden):
    _, values = golden
    for binary, expected in zip(values["binary"], values["rectangle"], strict=True):
        top, left, bottom, right = localisation.largest_component_box(binary)
        drawn = np.zeros_like(expected)
        drawn[top:bottom, left:right] = True
        np.testing.assert_array_equal(drawn, expected)


def test_golden_boxes(golden):
    _, values = golden
    moved = localisation.boxes_after_resize_and_crop(
        values["box_xyxy"][:, None], values["image_width_height"], 224
    )
    np.testing.assert_array_equal(moved[:, 0], values["box_resized_xyxy"])
    assert (moved < 0).any() and (moved > 224).any()  # unclipped ones are among them


def test_golden_scores(golden):
    masks, values = golden
    scores = localisation.casm_scores(
        masks, values["box_xyxy"][:, None], values["image_width_height"]
    )
    np.testing.assert_array_equal(scores.hit, values["iou_over_half"])
    np.testing.assert_allclose(scores.f1, values["f1"], atol=1e-6)
    np.testing.assert_array_equal(scores.f1, scores.f1a)  # one box per image
    assert scores.scored.all()


# A twin in plain loops


def brute_force(mask, boxes, width, height, variant):
    """The scorer's rules, one pixel at a time."""
    size = len(mask)
    values = sorted(float(v) for row in mask for v in row)
    mean = sum(values) / len(values)
    threshold = values[int((len(values) - 1) * (1 - mean) + 0.5)]
    threshold = min(max(threshold, 1e-6), 1 - 1e-6)
    if variant == "follow_up":
        threshold = mean
    if variant == "real_time":
        threshold = 0.5
    kept = {(y, x) for y in range(size) for x in range(size) if mask[y][x] > threshold}

    components, left = [], set(kept)
    for start in sorted(kept):  # raster order
        if start not in left:
            continue
        left.discard(start)
        component, front = [], [start]
        while front:
            y, x = front.pop()
            component.append((y, x))
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left:
                    left.discard(near)
                    front.append(near)
        components.append(component)
    predicted = set()
    if components:
        largest = max(components, key=len)  # the first of the largest
        if variant == "real_time":
            largest = kept
        ys, xs = [y for y, _ in largest], [x for _, x in largest]
        past = 0 if variant == "follow_up" else 1
        predicted = {
            (y, x)
            for y in range(min(ys), max(ys) + past)
            for x in range(min(xs), max(xs) + past)
        }

    hits, f1s = [], []
    for box in boxes:
        ratio = size / min(width, height)
        x_cut = (width * ratio - size) / 2 if width > height else 0
        y_cut = 0 if width > height else (height * ratio - size) / 2
        cuts = (x_cut, y_cut, x_cut, y_cut)
        x0, y0, x1, y1 = (
            int(ratio * edge - cut) for edge, cut in zip(box, cuts, strict=True)
        )
        area = (x1 - x0) * (y1 - y0)
        truth = {
            (y, x)
            for y in range(max(y0, 0), min(y1, size))
            for x in range(max(x0, 0), min(x1, size))
        }
        if not truth:
            hits.append(False)
            f1s.append(0.0)
            continue
        shared = len(predicted & truth)
        union = len(predicted) + area - shared
        exactly_half = variant == "real_time" and 2 * shared == union
        hits.append(2 * shared > union or exactly_half)
        inside = sum(float(mask[y][x]) for y, x in truth)
        precision, recall = inside / (sum(values) + 1e-6), inside / area
        f1s.append(2 * precision * recall / (precision + recall + 1e-6))
    return any(hits), max(f1s), sum(f1s) / len(f1s)


@pytest.mark.parametrize("variant", localisation.VARIANTS)
def test_agrees_with_plain_loops(variant):
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        size = int(rng.integers(6, 13))
        levels = int(rng.integers(2, 9))  # few levels: many ties
        mask = rng.integers(0, levels, (size, size)) / (levels - 1)
        mask = (mask * rng.uniform(0, 0.55)).astype(np.float32)
        top, left = rng.integers(0, size // 2, 2)
        mask[top : top + size // 2, left : left + size // 2] = 1.0
        width, height = (int(side) for side in rng.integers(size, 2 * size, 2))
        boxes = []
        for _ in range(rng.integers(1, 4)):
            x0, y0 = rng.integers(0, width // 2), rng.integers(0, height // 2)
            x1 = x0 + rng.integers(width // 4, width // 2 + 2)
            y1 = y0 + rng.integers(height // 4, height // 2 + 2)
            boxes.append([int(edge) for edge in (x0, y0, x1, y1)])
        scores = score_one(mask, boxes, (width, height), variant)
        hit, f1, f1a = brute_force(mask.tolist(), boxes, width, height, variant)
        assert scores["hit"] == hit
        assert scores["f1"] == pytest.approx(f1, abs=1e-9)
        assert scores["f1a"] == pytest.approx(f1a, abs=1e-9)
        hits += hit
    assert 30 < hits < 270  # both outcomes were tried


def test_components_agree_with_scipy_on_ties():
    rng = np.random.default_rng(1)
    for _ in range(300):
        binary = rng.random((12, 17)) < rng.uniform(0.02, 0.6)
        labels, count = ndimage.label(binary)
        box = localisation.largest_component_box(binary)
        if count == 0:
            assert box is None
            continue
        sizes = np.bincount(labels.ravel())[1:]
        rows, columns = ndimage.find_objects(labels)[np.argmax(sizes)]
        assert box == (rows.start, columns.start, rows.stop, columns.stop)


# Hand-computed cases


def test_binarise_keeps_the_area_of_the_mean():
    mask = np.arange(16, dtype=np.float32).reshape(1, 4, 4) / 16
    # mean 7.5/16: k = 1 + floor(15 * 8.5/16 + 1/2) = 9, and 7 values lie above the 9th
    assert localisation.binarise_quantile(mask).sum() == 7


def test_binarise_drops_ties_and_so_empties_a_constant_mask():
    for value in (0.0, 0.3, 1.0):
        constant = np.full((1, 5, 5), value, np.float32)
        # ones: the clamped threshold 1 - 1e-6 lies below the value
        assert localisation.binarise_quantile(constant).any() == (value == 1.0)


def test_the_follow_up_keeps_what_is_above_the_mean():
    mask = np.array([[[0.0, 0.1, 0.2, 0.9]]], np.float32)  # mean 0.3
    kept = localisation.binarise(mask, "follow_up")
    np.testing.assert_array_equal(kept, [[[False, False, False, True]]])
    np.testing.assert_array_equal(
        localisation.binarise(mask), localisation.binarise_quantile(mask)
    )


def test_the_follow_up_empties_a_constant_mask():
    for value in (0.0, 0.1, 1 / 3, 0.7, 1.0):
        constant = np.full((2, 7, 9), value, np.float32)
        assert not localisation.binarise_mean(constant).any()


def test_the_follow_ups_box_lacks_the_last_row_and_column():
    masks = box_mask(16, 4, 2, 12, 10)[None]
    np.testing.assert_array_equal(localisation.predicted_boxes(masks), [[4, 2, 12, 10]])
    np.testing.assert_array_equal(
        localisation.predicted_boxes(masks, "follow_up"), [[4, 2, 11, 9]]
    )
    # five of eight rows, without the last one half: a hit and a miss; F1 sees the mask
    author = score_one(box_mask(16, 4, 2, 9, 10), [[2, 4, 10, 12]], (16, 16))
    follow_up = score_one(
        box_mask(16, 4, 2, 9, 10), [[2, 4, 10, 12]], (16, 16), "follow_up"
    )
    assert author["hit"] and not follow_up["hit"]
    assert author["f1"] == follow_up["f1"]


def test_real_time_keeps_what_is_above_one_half():
    mask = np.array([[[0.0, 0.5, 0.51, 1.0]]], np.float32)
    kept = localisation.binarise(mask, "real_time")
    np.testing.assert_array_equal(kept, [[[False, False, True, True]]])


def test_real_times_box_holds_every_kept_pixel():
    mask = box_mask(16, 4, 2, 12, 10)
    mask[1, 14] = 0.6
    boxes = localisation.predicted_boxes(mask[None], "real_time")
    np.testing.assert_array_equal(boxes, [[1, 2, 12, 15]])
    np.testing.assert_array_equal(
        localisation.predicted_boxes(mask[None]), [[4, 2, 12, 10]]
    )
    empty = localisation.predicted_boxes(np.full((1, 8, 8), 0.5), "real_time")
    np.testing.assert_array_equal(empty, [[0, 0, 0, 0]])


def test_exactly_one_half_is_a_hit_in_real_time_only():
    half, box, size = box_mask(16, 4, 2, 8, 10), [[2, 4, 10, 12]], (16, 16)
    less = box_mask(16, 4, 2, 8, 9)
    for variant in localisation.VARIANTS:
        expected = variant == "real_time"
        assert score_one(half, box, size, variant)["hit"] == expected
        assert not score_one(less, box, size, variant)["hit"]
        directly = localisation.rectangle_scores(
            np.array([[4, 2, 8, 10]]), np.array([box]), np.array([size]), 16, variant
        )
        assert directly.hit[0] == expected
    nothing = score_one(np.zeros((16, 16)), [[3, 3, 3, 3]], size, "real_time")
    assert not nothing["hit"]  # no union to have half of


def test_components_touch_at_edges_not_at_corners():
    binary = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    assert localisation.largest_component_box(binary) == (1, 1, 2, 3)
    assert localisation.largest_component_box(np.zeros((3, 3), bool)) is None


def test_perfect_box():
    scores = score_one(box_mask(16, 4, 2, 12, 10), [[2, 4, 10, 12]], (16, 16))
    assert scores["hit"]
    assert scores["f1"] == pytest.approx(1, abs=2e-6)


def test_half_of_the_box_is_exactly_half_and_a_miss():
    half = score_one(box_mask(16, 4, 2, 8, 10), [[2, 4, 10, 12]], (16, 16))
    more = score_one(box_mask(16, 4, 2, 9, 10), [[2, 4, 10, 12]], (16, 16))
    assert not half["hit"] and more["hit"]
    # precision 1, recall 1/2
    assert half["f1"] == pytest.approx(2 / 3, abs=2e-6)


def test_cropped_away_part_counts_as_missed():
    # 32 x 16 is cropped to columns 8..24; of the box's columns 0..16 half is visible.
    scores = score_one(box_mask(16, 0, 0, 16, 8), [[0, 0, 16, 16]], (32, 16))
    assert not scores["hit"]
    assert scores["f1"] == pytest.approx(2 / 3, abs=2e-6)  # recall 1/2


def test_box_outside_the_crop_scores_zero_and_counts_in_f1a():
    boxes = [[2, 4, 10, 12]]
    outside = [[0, 0, 6, 6]]  # columns 0..6 of 48 are left of the crop, 16..32
    mask = box_mask(16, 4, 0, 12, 8)
    inside = [[x0 + 14, y0, x1 + 14, y1] for x0, y0, x1, y1 in boxes]
    scores = score_one(mask, inside + outside, (48, 16))
    assert scores["hit"]
    assert scores["f1"] == pytest.approx(1, abs=2e-6)
    assert scores["f1a"] == pytest.approx(0.5, abs=2e-6)


def test_edges_truncate_towards_zero():
    moved = localisation.boxes_after_resize_and_crop(
        np.array([[1, 5, 21, 15]]), np.array([21, 15]), 10
    )
    # ratio 2/3, horizontal cut (14 - 10) / 2 = 2: -1.33, 3.33, 12, 10
    np.testing.assert_array_equal(moved, [[-1, 3, 12, 10]])


def test_constant_mask_misses():
    scores = score_one(np.full((8, 8), 0.4), [[0, 0, 8, 8]], (8, 8))
    assert scores["scored"] and not scores["hit"]


def test_image_without_boxes_is_not_scored():
    masks = np.random.default_rng(0).random((2, 8, 8)).astype(np.float32)
    sizes = np.array([[8, 8], [0, 0]])
    boxes = np.array([[[0, 0, 8, 8]], [[-1, -1, -1, -1]]])
    scores = localisation.casm_scores(masks, boxes, sizes)
    np.testing.assert_array_equal(scores.scored, [True, False])
    none = localisation.casm_scores(masks, np.zeros((2, 0, 4), int), sizes)
    assert not none.scored.any() and not none.hit.any()


# Invariances


def test_scores_do_not_depend_on_the_batch_or_on_padded_boxes(golden):
    masks, values = golden
    boxes, sizes = values["box_xyxy"][:, None], values["image_width_height"]
    together = localisation.casm_scores(masks, boxes, sizes)
    padding = np.full((24, 3, 4), -1)
    padded = localisation.casm_scores(
        masks, np.concatenate([boxes, padding], axis=1), sizes
    )
    for name in together._fields:
        alone = [
            getattr(localisation.casm_scores(masks[i], boxes[i], sizes[i]), name)[0]
            for i in (slice(j, j + 1) for j in range(24))
        ]
        np.testing.assert_array_equal(getattr(together, name), alone)
        np.testing.assert_array_equal(getattr(together, name), getattr(padded, name))


def test_rectangles_score_as_their_masks():
    rng = np.random.default_rng(2)
    count, size = 40, 24
    low = rng.integers(0, size // 2, (count, 2))
    high = low + rng.integers(2, size // 2, (count, 2))
    rectangles = np.concatenate([low, high], axis=1)
    masks = np.stack([box_mask(size, *rectangle) for rectangle in rectangles])
    first = rng.integers(0, 20, (count, 2, 2))
    boxes = np.concatenate([first, first + rng.integers(5, 20, (count, 2, 2))], axis=2)
    sizes = rng.integers(30, 40, (count, 2))
    from_masks = localisation.casm_scores(masks, boxes, sizes)
    directly = localisation.rectangle_scores(rectangles, boxes, sizes, size)
    assert 0 < directly.hit.sum() < count
    np.testing.assert_array_equal(directly.hit, from_masks.hit)
    np.testing.assert_allclose(directly.f1, from_masks.f1)
    np.testing.assert_allclose(directly.f1a, from_masks.f1a)
    np.testing.assert_array_equal(directly.predicted, rectangles)
    np.testing.assert_array_equal(from_masks.predicted, rectangles)
