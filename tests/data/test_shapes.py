"""The rendered scenes: exact annotation, stated ranges, no short cut to the class."""

import numpy as np
import pytest

from saliency_jax.data import shapes


@pytest.fixture(scope="module")
def scenes() -> list[shapes.Scene]:
    return [shapes.render(seed=3, index=i) for i in range(400)]


def _iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def test_a_scene_follows_from_seed_index_and_size_alone():
    first, again = shapes.render(1, 7, 48), shapes.render(1, 7, 48)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.object_mask, again.object_mask)
    assert first.box == again.box
    assert (shapes.render(2, 7, 48).image != first.image).any()
    assert (shapes.render(1, 17, 48).image != first.image).any()


@pytest.mark.parametrize("size", [16, 64, 97])
def test_box_is_tight_around_the_mask_and_in_the_stated_range(size):
    for index in range(40):
        scene = shapes.render(0, index, size)
        assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
        assert scene.label == index % 10
        xmin, ymin, xmax, ymax = scene.box
        inside = np.zeros((size, size), bool)
        inside[ymin:ymax, xmin:xmax] = True
        assert not (scene.object_mask & ~inside).any()
        window = scene.object_mask[ymin:ymax, xmin:xmax]
        edges = (window[0], window[-1], window[:, 0], window[:, -1])
        assert all(edge.any() for edge in edges)
        longer = max(xmax - xmin, ymax - ymin)
        assert 0.15 * size <= longer <= 0.60 * size


def test_scales_and_places_fill_their_ranges(scenes):
    longer = np.array([max(s.box[2] - s.box[0], s.box[3] - s.box[1]) for s in scenes])
    # Uniform in [9.6, 38.4] pixels: quartiles at 16.8, 24 and 31.2.
    np.testing.assert_allclose(
        np.percentile(longer, [25, 50, 75]), [17, 24, 31], atol=2
    )
    centres = np.array([[(s.box[0] + s.box[2]) / 2 for s in scenes]])
    assert centres.min() < 10 and centres.max() > 54


@pytest.mark.parametrize("size", [64, 96])
def test_trivial_boxes_fail(size):
    boxes = [shapes.render(5, i, size).box for i in range(300)]
    low, high = round(33 * size / 224), round(191 * size / 224)
    whole = np.mean([_iou(box, (0, 0, size, size)) <= 0.5 for box in boxes])
    centre = np.mean([_iou(box, (low, low, high, high)) <= 0.5 for box in boxes])
    assert whole > 0.75
    assert centre > 0.75


def test_the_mask_is_the_visible_object(scenes):
    # With the object's own texture inside and the ground outside, the mean colours
    # on the two sides of the outline differ; a wrong or covered mask would mix them.
    differences = []
    for scene in scenes[:100]:
        xmin, ymin, xmax, ymax = scene.box
        window = scene.image[ymin:ymax, xmin:xmax] / 255
        inside = scene.object_mask[ymin:ymax, xmin:xmax]
        if inside.all():
            continue
        difference = window[inside].mean(0) - window[~inside].mean(0)
        differences.append(np.linalg.norm(difference))
    assert np.percentile(differences, 5) > 0.25


def test_colour_says_nothing_about_the_class(scenes):
    colours = np.array([s.image[s.object_mask].mean(0) / 255 for s in scenes])
    labels = np.array([s.label for s in scenes])
    means = np.stack([colours[labels == k].mean(0) for k in range(10)])
    # 40 scenes a class, deviation about 0.27 a channel: standard error 0.043.
    assert np.abs(means - colours.mean(0)).max() < 4 * 0.043


def test_forms_differ_in_how_much_of_their_box_they_fill(scenes):
    def filled(name: str) -> float:
        label = shapes.CLASSES.index(name)
        parts = [
            s.object_mask.sum() / ((s.box[2] - s.box[0]) * (s.box[3] - s.box[1]))
            for s in scenes
            if s.label == label and s.box[2] - s.box[0] >= 20
        ]
        return float(np.mean(parts))

    assert filled("disc") == pytest.approx(np.pi / 4, abs=0.03)
    assert filled("ring") == pytest.approx(np.pi / 4 * (1 - 0.58**2), abs=0.03)


def test_coverage_of_a_rectangle_is_the_covered_part_of_each_pixel():
    # x from 1.25 to 3.5 and y from 2 to 3: columns covered by 3/4, 1 and 1/2.
    rectangle = np.array([[1.25, 2.0], [3.5, 2.0], [3.5, 3.0], [1.25, 3.0]])
    coverage = shapes._coverage([rectangle], size=5)
    expected = np.zeros((5, 5))
    expected[2, 1:4] = 0.75, 1.0, 0.5
    # Up to one subpixel more: OpenCV fills the outline too.
    excess = coverage - expected
    assert excess.min() > -0.01
    assert excess.max() < 1 / shapes.SUPERSAMPLING + 0.01


@pytest.fixture(scope="module")
def pairs() -> list[shapes.PairScene]:
    return [shapes.render_pair(seed=3, index=i) for i in range(600)]


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _longer_side(mask: np.ndarray) -> int:
    xmin, ymin, xmax, ymax = _box(mask)
    return max(xmax - xmin, ymax - ymin)


def test_the_scenes_of_one_object_are_what_they_were():
    # By the renderer of commit 1bda9b6. Means, for libraries may differ in a pixel.
    scenes = [shapes.render(5, i, 64) for i in range(3)]
    boxes = [(8, 28, 33, 53), (22, 12, 48, 39), (7, 25, 18, 35)]
    assert [scene.box for scene in scenes] == boxes
    np.testing.assert_allclose(
        [scene.image.mean((0, 1)) for scene in scenes],
        [[66.52, 56.01, 116.07], [114.67, 117.27, 97.87], [96.85, 80.81, 110.25]],
        atol=0.05,
    )


def test_a_pair_follows_from_seed_index_and_size_alone():
    first, again = shapes.render_pair(1, 7, 48), shapes.render_pair(1, 7, 48)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (shapes.render_pair(2, 7, 48).image != first.image).any()
    assert (shapes.render_pair(1, 17, 48).image != first.image).any()
    # Nor is it the scene of one object with another one added.
    assert (shapes.render(1, 7, 48).image != first.image).mean() > 0.9


@pytest.mark.parametrize("size", [16, 64, 97])
def test_the_objects_of_a_pair_are_apart_and_in_the_stated_range(size):
    for index in range(40):
        scene = shapes.render_pair(0, index, size)
        assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
        assert scene.label == index % 10
        assert scene.other_label in set(range(10)) - {scene.label}
        assert scene.box == _box(scene.object_mask)
        assert _iou(scene.box, _box(scene.other_mask)) == 0
        for mask in (scene.object_mask, scene.other_mask):
            assert 0.15 * size <= _longer_side(mask) <= 0.45 * size


def test_both_objects_of_a_pair_show(pairs):
    # As for one object; and no pixel is partly covered by both.
    differences = []
    for scene in pairs[:100]:
        for mask in (scene.object_mask, scene.other_mask):
            xmin, ymin, xmax, ymax = _box(mask)
            inside = mask[ymin:ymax, xmin:xmax]
            if not inside.all():
                window = scene.image[ymin:ymax, xmin:xmax] / 255
                difference = window[inside].mean(0) - window[~inside].mean(0)
                differences.append(np.linalg.norm(difference))
    assert np.percentile(differences, 5) > 0.25


def test_contours_are_apart_by_what_two_outlines_can_cover():
    square = lambda x, y: [np.array([[x, y], [x + 9, y], [x + 9, y + 9], [x, y + 9]])]
    here, right, below = square(2.3, 4.6), square(12.55, 4.6), square(2.3, 14.85)
    for there in (right, below):
        assert shapes._are_apart(here, there) and shapes._are_apart(there, here)
        covered = [shapes._coverage(each, size=32) > 0 for each in (here, there)]
        assert not (covered[0] & covered[1]).any()
    assert not shapes._are_apart(here, square(12.5, 14.8))


def test_nothing_but_the_form_tells_the_label_of_a_pair(pairs):
    def told(figure) -> np.ndarray:
        return np.array([figure(s.object_mask) - figure(s.other_mask) for s in pairs])

    brightness = [
        s.image[s.object_mask].mean() - s.image[s.other_mask].mean() for s in pairs
    ]
    for differences in (
        told(_longer_side),
        told(lambda mask: int(mask.sum())),
        told(lambda mask: _box(mask)[0]),
        told(lambda mask: _box(mask)[1]),
        # Of the distance from the centre.
        told(lambda mask: np.hypot(*(np.argwhere(mask).mean(0) - 31.5))),
        np.array(brightness),
    ):
        # Signs are a fair coin's: of 600 tosses four standard deviations are 8 %.
        signs = np.sign(differences[differences != 0])
        assert abs((signs > 0).mean() - 0.5) < 0.08
        assert abs(differences.mean()) < 4 * differences.std() / len(pairs) ** 0.5
    others = np.bincount([s.other_label for s in pairs], minlength=10)
    assert others.sum() == 600 and abs(others - 60).max() < 4 * 54**0.5
    distances = np.bincount([(s.other_label - s.label) % 10 for s in pairs])
    assert distances[0] == 0 and abs(distances[1:] - 600 / 9).max() < 4 * 60**0.5


def test_scales_of_pairs_fill_their_range(pairs):
    longer = [_longer_side(m) for s in pairs for m in (s.object_mask, s.other_mask)]
    # Uniform in [9.6, 28.8] pixels: quartiles at 14.4, 19.2 and 24.
    np.testing.assert_allclose(
        np.percentile(longer, [25, 50, 75]), [14.4, 19.2, 24], atol=1.1
    )
