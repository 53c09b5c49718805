"""MaxBoxAcc beside what wsolevaluation answers, and beside plain loops.

`tests/golden/box_accuracy.npz` holds its answers to made-up maps. The maps are kept as
the 8 bits that its first step truncates them to, for a tenth of the bytes.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from saliency_jax.errors import InputError
from saliency_jax.metrics.box_accuracy import (
    LEVELS,
    THRESHOLDS,
    best_shares,
    boxes_after_stretch,
    contour_boxes,
    contour_hits,
    inclusive_iou,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "box_accuracy.npz"


@pytest.fixture(scope="module")
def golden():
    values = dict(np.load(GOLDEN))
    for name in ("boxes_xyxy", "image_width_height"):
        values[name] = values[name].astype(int)
    return values


@pytest.fixture(scope="module")
def golden_hits(golden):
    return contour_hits(
        as_maps(golden["maps_8bit"]),
        golden["boxes_xyxy"],
        golden["image_width_height"],
        thresholds=golden["thresholds"],
        frame="stretch",
    )


def as_maps(pixels):
    """Maps in [0, 1] that truncate to these 8 bits."""
    return ((pixels + np.float32(0.5)) / np.float32(255)).clip(0, 1)


def largest_box(pixels, step):
    boxes, areas = contour_boxes(pixels, step)
    return boxes[areas.argmax()].tolist()


# What wsolevaluation answers


def test_golden_boxes(golden):
    filed = golden["boxes_xyxy"] != -1
    moved = boxes_after_stretch(
        golden["boxes_xyxy"], golden["image_width_height"], (224, 224)
    )
    np.testing.assert_array_equal(moved[filed], golden["boxes_resized_xyxy"][filed])


def test_golden_contours(golden):
    for pixels, expected in zip(
        golden["maps_8bit"][:8], golden["largest_contour_box_xyxy"], strict=False
    ):
        for threshold, box in zip(golden["thresholds"], expected, strict=True):
            step = int(threshold * int(pixels.max()))
            assert largest_box(pixels, step) == box.tolist()


def test_golden_accuracies(golden, golden_hits):
    for name, hits in (("largest", golden_hits.largest), ("all", golden_hits.every)):
        for level, overlap in enumerate((30, 50, 70)):
            np.testing.assert_allclose(
                100 * hits[:, :, level].mean(axis=0),
                golden[f"accuracy_{name}_iou{overlap}"],
            )
    assert golden_hits.scored.all()
    first, second = (
        best_shares(hits.mean(axis=0)[None])[0]
        for hits in (golden_hits.largest, golden_hits.every)
    )
    assert 100 * first[1] == pytest.approx(golden["max_box_acc"])
    assert 100 * second.mean() == pytest.approx(golden["max_box_acc_v2"])


def test_published_cases_of_boxes():
    one, other = np.array([[1, 2, 5, 6]]), np.array([[3, 1, 4, 5]])
    assert inclusive_iou(one, other)[0] == 8 / 27
    zeros = np.zeros((1, 4), int)
    assert inclusive_iou(zeros, zeros)[0] == 1
    moved = boxes_after_stretch(
        np.array([[1, 2, 4, 3]]), np.array([10, 20]), size=(35, 10)
    )
    assert moved[0].tolist() == [3, 1, 14, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.zeros((3, 3)), [[0, 0, 0, 0]] * 5),
        (
            [
                [0, 0, 0, 0, 0],
                [0, 0.4, 0.4, 0.4, 0.6],
                [0, 0.4, 1, 0.8, 0.6],
                [0, 0.4, 0.4, 0.4, 0.6],
            ],
            [[1, 1, 4, 3], [1, 1, 4, 3], [2, 1, 4, 3], [2, 2, 4, 3], [2, 2, 3, 3]],
        ),
        (
            [
                [0.4, 0, 0.2, 0.2, 0.2],
                [0.4, 0.4, 0, 0.4, 0],
                [0, 0, 0, 0.4, 0],
                [1, 0.6, 0.8, 0.2, 0.2],
            ],
            [[0, 0, 4, 3], [0, 0, 2, 2], [0, 3, 3, 3], [2, 3, 3, 3], [0, 3, 1, 3]],
        ),
    ],
)
def test_published_cases_of_contours(values, expected):
    pixels = (255 * np.asarray(values)).astype(np.uint8)
    for threshold, box in zip(np.arange(0, 1, 0.2), expected, strict=True):
        assert largest_box(pixels, int(threshold * int(pixels.max()))) == box


# A twin without OpenCV


def plain_candidates(kept):
    """The boxes and areas of all contours, from labelled components and their holes.

    The contour of an 8-connected component runs through its outer pixels' centres, and
    that of a 4-connected hole through the pixels around it. An area is counted in cells
    of four centres: 1 where the filled component has all four, 1/2 where it has three.
    """
    height, width = kept.shape
    around = np.pad(kept, 1)
    background, _ = ndimage.label(~around)
    components, count = ndimage.label(around, np.ones((3, 3)))
    boxes, areas = [], []
    for label in range(1, count + 1):
        one = components == label
        outside, _ = ndimage.label(~one)
        filled = outside != outside[0, 0]
        cells = sum(
            filled[i : i + height + 1, j : j + width + 1].astype(int)
            for i in (0, 1)
            for j in (0, 1)
        )
        boxes.append(plain_box(one, height, width))
        areas.append((cells == 4).sum() + (cells == 3).sum() / 2)
    for label in set(background.ravel().tolist()) - {0, background[0, 0]}:
        hole = ndimage.binary_dilation(background == label)
        boxes.append(plain_box(hole, height, width))
        areas.append(0)  # never larger than the component around it
    return (boxes, areas) if boxes else ([(0, 0, 0, 0)], [0])


def plain_box(region, height, width):
    ys, xs = np.nonzero(region)
    x0, y0, x1, y1 = xs.min() - 1, ys.min() - 1, xs.max(), ys.max()
    return int(x0), int(y0), min(int(x1), width - 1), min(int(y1), height - 1)


def plain_iou(one, other):
    pixels = [
        {(y, x) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)}
        for x0, y0, x1, y1 in (one, other)
    ]
    return len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1])


def test_agrees_with_plain_loops():
    rng = np.random.default_rng(0)
    count, size, thresholds = 24, 12, np.arange(0, 1, 0.125)
    maps = rng.random((count, size, size), np.float32) ** 2
    low = rng.integers(0, 12, (count, 3, 2))
    filed = np.concatenate([low, low + rng.integers(8, 12, low.shape)], axis=-1)
    filed[1::2, 1:] = -1
    sizes = rng.integers(20, 30, (count, 2))
    for values, (x0, y0, x1, y1) in zip(maps[::2], filed[::2, 0] // 2, strict=True):
        values[y0 : y1 + 1, x0 : x1 + 1] += rng.uniform(0, 1)
    maps = (maps / 2).clip(0, 1)
    hits = contour_hits(maps, filed, sizes, thresholds=thresholds, frame="stretch")
    assert hits.scored.all()
    contours = 0
    for index, values in enumerate(maps):
        truth = []
        for box in filed[index].tolist():
            if box[0] != -1:
                scale = (size / sizes[index]).tolist() * 2
                truth.append([int(e * s) for e, s in zip(box, scale, strict=True)])
        pixels = [[int(v * np.float32(255)) for v in row] for row in values]
        peak = max(map(max, pixels))
        for column, threshold in enumerate(thresholds):
            kept = np.array(pixels) > int(threshold * peak)
            boxes, areas = plain_candidates(kept)
            contours += len(boxes)
            found, _ = contour_boxes(np.array(pixels, np.uint8), int(threshold * peak))
            assert sorted(map(tuple, found.tolist())) == sorted(boxes)
            ious = [max(plain_iou(box, other) for other in truth) for box in boxes]
            tied = [iou for iou, a in zip(ious, areas, strict=True) if a == max(areas)]
            for level, enough in enumerate(LEVELS):
                assert hits.every[index, column, level] == (max(ious) >= enough)
                # Which of several with one area comes first is OpenCV's affair.
                outcomes = {iou >= enough for iou in tied}
                assert hits.largest[index, column, level] in outcomes
    assert contours > 1000
    assert 0.05 < hits.every.mean() < 0.95 and 0.02 < hits.largest.mean() < 0.9


# Closed forms and invariances


def box_maps(size=20):
    """Maps that are 1 in a box of each image, and the boxes as filed."""
    boxes = np.array([[2, 3, 11, 12], [5, 1, 18, 9], [0, 0, 9, 19]])
    maps = np.zeros((3, size, size), np.float32)
    for values, (x0, y0, x1, y1) in zip(maps, boxes, strict=True):
        values[y0 : y1 + 1, x0 : x1 + 1] = 1
    return maps, boxes[:, None], np.full((3, 2), size)


def test_a_map_that_is_the_box():
    maps, boxes, sizes = box_maps()
    hits = contour_hits(maps, boxes, sizes)
    assert hits.largest[:, 0].all()
    np.testing.assert_array_equal(best_shares(hits.largest.mean(axis=0)[None]), 1)
    np.testing.assert_array_equal(hits.largest, hits.every)
    empty = contour_hits(0 * maps, boxes, sizes)
    assert not empty.every.any() and empty.scored.all()


def test_every_contour_is_a_candidate_in_the_second_version():
    maps, boxes, sizes = box_maps()
    maps[0] = 0
    maps[0, 14:, 0:] = 1  # larger than the box's own
    maps[0, 3:13, 2:12] = 1
    hits = contour_hits(maps, boxes, sizes)
    assert not hits.largest[0].any() and hits.every[0].all()


def test_the_crop_and_the_stretch():
    # Of 40 x 20 the crop has the columns 10 to 30.
    maps, boxes, _ = box_maps()
    shape = np.full((3, 2), [40, 20])
    few = {"thresholds": THRESHOLDS[::25]}
    in_crop = contour_hits(maps, boxes + [10, 0, 10, 0], shape, **few)
    square = contour_hits(maps, boxes, np.full((3, 2), 20), **few)
    np.testing.assert_array_equal(in_crop.largest, square.largest)
    stretched = contour_hits(maps, boxes * [2, 1, 2, 1], shape, frame="stretch", **few)
    np.testing.assert_array_equal(stretched.largest, square.largest)
    assert square.largest.any()


def test_a_stream_of_parts_adds_up(golden, golden_hits):
    maps = as_maps(golden["maps_8bit"][:4])
    boxes, sizes = golden["boxes_xyxy"][:4], golden["image_width_height"][:4]
    padded = np.concatenate([np.full((4, 1, 4), -1), boxes], axis=1)
    coarse = golden["thresholds"][::10]
    for index in range(4):
        alone = contour_hits(
            maps[index : index + 1],
            padded[index : index + 1],
            sizes[index : index + 1],
            thresholds=coarse,
            frame="stretch",
        )
        np.testing.assert_array_equal(alone.every[0], golden_hits.every[index, ::10])
        np.testing.assert_array_equal(
            alone.largest[0], golden_hits.largest[index, ::10]
        )


def test_images_without_boxes_do_not_count():
    maps, boxes, sizes = box_maps()
    boxes[1] = -1
    hits = contour_hits(maps, boxes, sizes, thresholds=THRESHOLDS[:3])
    np.testing.assert_array_equal(hits.scored, [True, False, True])
    assert hits.every[hits.scored].any(axis=1).all()
    assert not hits.every[1].any()


def test_bad_input():
    maps, boxes, sizes = box_maps()
    with pytest.raises(InputError, match="expected \\[0, 1\\]"):
        contour_hits(maps - 0.5, boxes, sizes)
    with pytest.raises(InputError, match="frame 'pad' is unknown"):
        contour_hits(maps, boxes, sizes, frame="pad")
    with pytest.raises(InputError, match="20 x 18: a crop"):
        contour_hits(maps[:, :, :18], boxes, sizes)
