"""Transforms: a painted rectangle and its box stay together, whatever is done."""

import cv2
import numpy as np
import pytest

from saliency_jax.data import transforms
from saliency_jax.data.builders import records
from saliency_jax.errors import InputError


def _example(height: int, width: int, *boxes: tuple[float, float, float, float]):
    """A black image in which the boxes (relative) are painted white."""
    image = np.zeros((height, width, 3), np.uint8)
    for ymin, xmin, ymax, xmax in boxes:
        rows = slice(round(ymin * height), round(ymax * height))
        image[rows, round(xmin * width) : round(xmax * width)] = 255
    return {
        "image": image,
        "object_mask": image[..., 0] > 0,
        "label": 3,
        "file_name": "painted",
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "boxes_valid": np.ones(len(boxes), bool),
        "boxes_pixels": np.zeros((len(boxes), 4), np.int32),
        "original_size": np.array([width, height], np.int32),
    }


def _check_painted(example, tolerance: float = 1.01) -> None:
    """The white pixels, and the mask, fill the one box to `tolerance` pixels."""
    height, width = example["image"].shape[:2]
    box = example["boxes"][0] * [height, width, height, width]
    for painted in (example["image"][..., 0] >= 128, example["object_mask"]):
        assert painted.any() == example["boxes_valid"][0] or not (
            (box[2:] - box[:2] > 1).all()
        )
        if painted.any():
            rows, columns = painted.any(1).nonzero()[0], painted.any(0).nonzero()[0]
            found = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
            np.testing.assert_allclose(box, found, atol=tolerance)


def test_random_resized_crop_and_flip_move_box_and_mask_with_the_pixels():
    rng = np.random.default_rng(0)
    valid = 0
    for _ in range(200):
        example = _example(60, 90, (0.25, 0.4, 0.55, 0.7))
        moved = transforms.random_resized_crop(example, 48, 0.08, rng)
        moved = transforms.random_flip(moved, rng)
        assert moved["image"].shape == (48, 48, 3)
        # A pixel of the original is up to 48 / (0.3 * 60) pixels wide in the result.
        _check_painted(moved, tolerance=2.0)
        valid += moved["boxes_valid"][0]
    assert 100 < valid < 200  # some windows miss the box altogether


@pytest.mark.parametrize("shape", [(50, 50), (40, 80), (90, 33)])
def test_eval_transform_moves_box_and_mask_with_the_pixels(shape):
    example = _example(*shape, (0.3, 0.3, 0.7, 0.6))
    _check_painted(transforms.resize_and_centre_crop(example, 64, 56))
    _check_painted(transforms.resize(example, 56, 56))


def test_the_mask_of_another_object_moves_along():
    rng = np.random.default_rng(0)
    example = _example(60, 90, (0.25, 0.4, 0.55, 0.7))
    other = ~example["object_mask"]
    moved = example | {"other_mask": other}
    for _ in range(20):
        step = transforms.random_resized_crop(moved, 48, 0.08, rng)
        step = transforms.random_flip(step, rng)
        # Both are set where they cover exactly half of a pixel.
        agree = step["other_mask"] != step["object_mask"]
        assert step["other_mask"].shape == (48, 48) and agree.mean() > 0.95
    erased = transforms.random_erasing(moved, 1.0, rng)
    hole = other & ~erased["other_mask"]
    assert hole.any() and not erased["object_mask"][hole].any()
    assert (erased["image"][hole] > 0).any(1).mean() > 0.9
    assert erased["other_mask"].sum() + hole.sum() == other.sum()
    centred = transforms.resize_and_centre_crop(moved, 48, 40)
    assert (centred["other_mask"] != centred["object_mask"]).mean() > 0.95


def test_crop_by_hand():
    example = _example(10, 20, (0.2, 0.25, 0.6, 0.5), (0.0, 0.0, 0.1, 0.1))
    cropped = transforms.crop(example, top=4, left=4, height=5, width=8)
    # Rows 2..6 and columns 5..10 of the first box become rows -2..2, columns 1..6.
    np.testing.assert_allclose(cropped["boxes"][0], [0, 1 / 8, 2 / 5, 6 / 8], atol=1e-6)
    np.testing.assert_array_equal(cropped["boxes_valid"], [True, False])
    assert cropped["image"].shape == (5, 8, 3)
    assert (cropped["image"][:2, 1:6] == 255).all()
    assert cropped["image"].sum() == 2 * 5 * 3 * 255
    np.testing.assert_array_equal(cropped["boxes_pixels"], example["boxes_pixels"])
    assert example["image"].shape == (10, 20, 3)  # the argument is left alone


def test_resize_and_centre_crop_rounds_as_torchvision():
    # 500x333 -> shorter side 256: int(256 * 500 / 333) = 384; crop from
    # round((384 - 224) / 2) = 80 and round((256 - 224) / 2) = 16.
    ramp = np.arange(500, dtype=np.float32)[None, :, None] * np.ones((333, 1, 3))
    example = _example(333, 500) | {"image": (ramp / 2).astype(np.uint8)}
    cropped = transforms.resize_and_centre_crop(example, 256, 224)
    assert cropped["image"].shape == (224, 224, 3)
    # Column 0 shows original columns around (80 + 0.5) * 500 / 384 - 0.5 = 104.3.
    assert cropped["image"][0, 0, 0] == pytest.approx(104.3 / 2, abs=1)
    assert cropped["image"][0, -1, 0] == pytest.approx((303.5 * 500 / 384) / 2, abs=1)


def test_flip_twice_is_the_identity():
    example = _example(9, 14, (0.1, 0.2, 0.5, 0.9))
    once = transforms.flip(example)
    np.testing.assert_allclose(once["boxes"][0], [0.1, 0.1, 0.5, 0.8], atol=1e-6)
    twice = transforms.flip(once)
    for key in ("image", "object_mask", "boxes"):
        np.testing.assert_allclose(twice[key], example[key], atol=1e-6)


def test_random_window_is_torchvisions():
    rng = np.random.default_rng(1)
    windows = [transforms.random_window(120, 100, 0.2, rng) for _ in range(4000)]
    top, left, height, width = np.array(windows).T
    assert (top >= 0).all() and (top + height <= 120).all()
    assert (left >= 0).all() and (left + width <= 100).all()
    area, ratio = height * width / 12_000, width / height
    assert area.min() > 0.19 and area.max() <= 1.0
    assert ratio.min() > 0.73 and ratio.max() < 1.37
    assert np.log(ratio).std() == pytest.approx(np.log(16 / 9) / 12**0.5, rel=0.1)
    # Small windows always fit, so there the area is uniform.
    small = area[area < 0.6]
    assert small.mean() == pytest.approx(0.4, abs=0.02)
    # Places are uniform: the slack is split evenly on average.
    assert (top / np.maximum(1, 120 - height)).mean() == pytest.approx(0.5, abs=0.03)


def test_window_that_never_fits_is_centred_with_the_nearest_ratio():
    rng = np.random.default_rng(0)
    # 10 x 100: no window of area >= 0.9 * 1000 has a ratio of at most 4/3.
    assert transforms.random_window(10, 100, 0.9, rng) == (0, 43, 10, 13)
    assert transforms.random_window(100, 10, 0.9, rng) == (43, 0, 13, 10)


def test_erasing_takes_pixels_and_mask_alike():
    rng = np.random.default_rng(0)
    example = _example(64, 64, (0.0, 0.0, 1.0, 1.0))
    parts = []
    for _ in range(300):
        erased = transforms.random_erasing(example, 1.0, rng)
        hole = ~erased["object_mask"]
        parts.append(hole.mean())
        assert (erased["image"][~hole] == 255).all()
        assert (erased["image"][hole] != 255).mean() > 0.9
    assert 0.0 < min(parts) and max(parts) <= 0.42
    assert np.mean(parts) == pytest.approx(0.2, abs=0.03)
    assert (example["image"] == 255).all()
    assert transforms.random_erasing(example, 0.0, rng) is example


def test_resize_averages_when_shrinking_and_thresholds_masks_at_one_half():
    example = _example(4, 4)
    example["image"][:2, :2] = np.array([[0, 80], [80, 240]], np.uint8)[..., None]
    example["object_mask"] = np.zeros((4, 4), bool)
    example["object_mask"][0, :2] = True  # half of the first block
    example["object_mask"][3, 3] = True  # a quarter of the last
    small = transforms.resize(example, 2, 2)
    assert small["image"][0, 0].tolist() == [100, 100, 100]
    np.testing.assert_array_equal(small["object_mask"], [[True, False], [False, False]])


def test_decode_gives_rgb_also_of_greyscale():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    grey = np.full((8, 6), 77, np.uint8)
    for pixels, expected in ((red, [255, 0, 0]), (grey, [77, 77, 77])):
        encoded = cv2.imencode(".png", pixels)[1].tobytes()
        decoded = transforms.decode({"image": encoded, "file_name": "a.png"})
        assert decoded["image"].shape == pixels.shape[:2] + (3,)
        assert decoded["image"][0, 0].tolist() == expected
        assert decoded["original_size"].tolist() == [pixels.shape[1], 8]


def test_an_exif_orientation_turns_neither_the_image_nor_its_size():
    # The left half is white, which the box names; turned by 90 degrees, as the EXIF
    # orientation 6 asks for, it would be the upper half of an image 16 pixels wide.
    example = _example(16, 32, (0, 0, 1, 0.5))
    plain = cv2.imencode(".jpg", example["image"])[1].tobytes()
    tag = b"MM\x00*\x00\x00\x00\x08" + bytes.fromhex("0001 0112 0003 00000001 00060000")
    exif = b"Exif\x00\x00" + tag + bytes(4)
    length = (len(exif) + 2).to_bytes(2, "big")
    turned = plain[:2] + b"\xff\xe1" + length + exif + plain[2:]
    as_viewers_show_it = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert as_viewers_show_it.shape == (32, 16, 3)
    mask = cv2.imencode(".png", example["object_mask"] * np.uint8(255))[1].tobytes()
    encoded = example | {"image": turned, "object_mask": mask}
    _check_painted(transforms.decode(encoded))
    assert transforms.decode(encoded)["image"].shape == (16, 32, 3)
    assert records.image_size(turned, "a.JPEG") == (32, 16)


def test_decode_of_something_else_names_the_file():
    with pytest.raises(InputError, match="n01_7.JPEG is not a readable image"):
        transforms.decode({"image": b"no image", "file_name": "n01_7.JPEG"})


def test_padding_marks_what_it_adds_and_loses_nothing():
    example = _example(8, 8, (0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1))
    padded = transforms.pad_boxes(example, 4)
    assert padded["boxes_valid"].tolist() == [True, True, False, False]
    np.testing.assert_array_equal(padded["boxes"][:2], example["boxes"])
    assert (padded["boxes_pixels"][2:] == -1).all()
    with pytest.raises(ValueError, match="2 boxes do not fit into 1 rows"):
        transforms.pad_boxes(example, 1)
