"""Images of every kind and format: what the decoder makes of them, and the report."""

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from saliency_jax.data import transforms
from saliency_jax.data.builders import image_kinds, image_memory, records
from saliency_jax.data.builders.image_kinds import SUFFIXES
from saliency_jax.data.prepare import prepare
from saliency_jax.data.sources import open_source
from saliency_jax.errors import InputError
from tests.data.unusual_pictures import exif, picture, saved, unusual_pictures
from tests.reliability.doors import png_chunk, tiff_turned


def _assert_alike(found: np.ndarray, expected: np.ndarray, tolerance: int) -> None:
    """Compares all pixels but those at the quarters' borders, which JPEG smears."""
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    inner = np.median(difference.reshape(-1, 3), axis=0)
    assert inner.max() <= tolerance and difference.mean() <= tolerance


def _prepared(folder: Path, files: dict[str, bytes], **options) -> dict[str, dict]:
    """Decoded examples by file name; a second class is there for the rule's sake."""
    files = {f"a/{name}": content for name, content in files.items()}
    files["b/plain.png"] = saved(Image.fromarray(picture()), "PNG")
    for name, content in files.items():
        path = folder / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    prepare("image_folder", str(folder / "data"), str(folder / "raw"), **options)
    source = open_source("image_folder", str(folder / "data"), "train")
    examples = [transforms.decode(source[i]) for i in range(len(source))]
    return {Path(example["file_name"]).name: example for example in examples}


def test_unusual_images_come_out_right_and_are_counted(tmp_path, capsys):
    kinds = unusual_pictures()
    files = {name: content for name, content, _ in kinds.values()}
    examples = _prepared(tmp_path, files)
    for kind, (name, content, expected) in kinds.items():
        assert image_kinds.image_kinds(content, name) == [kind]
        example = examples[name]
        assert (tmp_path / "raw/a" / name).read_bytes() == content
        _assert_alike(example["image"], expected, tolerance=4)
        size = example["image"].shape[1::-1]
        assert tuple(example["original_size"]) == size, kind
    assert image_kinds.image_kinds(saved(Image.fromarray(picture()), "PNG"), "") == []
    report = json.loads(
        (tmp_path / "data/image_folder/1.0.0/preparation.json").read_text()
    )
    assert report["kinds"] == dict.fromkeys(kinds, 1)
    printed = capsys.readouterr().out
    for kind, handling in image_kinds.HANDLING.items():
        assert f"  1 {kind}: {handling}\n" in printed


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_of_the_upright_picture(orientation, tmp_path):
    """A red object stays under its box, whichever way the camera was held."""
    upright = np.full((40, 64, 3), 30, np.uint8)
    upright[8:16, 32:48] = (220, 20, 20)
    # What Pillow turns upright is turned the other way first.
    turns = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(upright)
    turn = turns[orientation]
    stored = image if turn is None else image.transpose(turn)
    content = saved(stored, "JPEG", exif=exif(orientation), quality=95)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("a/red.jpg,32,8,48,16\n")
    example = _prepared(tmp_path, {"red.jpg": content}, boxes=str(boxes))["red.jpg"]
    _assert_alike(example["image"], upright, tolerance=4)
    box = example["boxes"][0] * [40, 64, 40, 64]
    np.testing.assert_allclose(box, [8, 32, 16, 48], atol=1e-4)
    assert example["original_size"].tolist() == [64, 40]
    # The ImageNet sets take the pixels as stored.
    width, height = records.image_size(content, "red.jpg")
    assert (width, height) == stored.size


FORMATS = sorted(SUFFIXES - {".exr", ".pxm", ".pbm", ".pgm", ".hdr", ".pic", ".pfm"})


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_that_opencv_writes_is_read(suffix, tmp_path):
    large = cv2.resize(picture(), (192, 128), interpolation=cv2.INTER_NEAREST)
    if not cv2.haveImageWriter(f"a{suffix}"):
        pytest.skip(f"this OpenCV does not write {suffix}")
    content = cv2.imencode(suffix, large[..., ::-1])[1].tobytes()
    example = _prepared(tmp_path, {f"a{suffix}": content})[f"a{suffix}"]
    # GIF has few colours.
    tolerance = 40 if suffix == ".gif" else 6
    _assert_alike(example["image"], large, tolerance)


def test_a_format_that_opencv_cannot_decode_is_skipped(tmp_path, capsys):
    floats = Image.fromarray(np.ones((8, 8), np.float32))
    good = saved(Image.fromarray(picture()), "PNG")
    files = {
        "good.png": good,
        "float.tif": saved(floats, "TIFF"),
        "cut.png": good[: len(good) // 2],
        "words.jpg": b"hello",
    }
    if cv2.imdecode(np.frombuffer(files["float.tif"], np.uint8), 1) is not None:
        del files["float.tif"]
    assert set(_prepared(tmp_path, files)) == {"good.png", "plain.png"}
    errors = capsys.readouterr().err
    for name in set(files) - {"good.png"}:
        assert f"skipped: {tmp_path / 'raw/a' / name} is not a readable image" in errors


def test_an_image_too_large_for_the_memory_is_unreadable(monkeypatch):
    large = saved(Image.new("L", (80, 80)), "PNG")
    small = saved(Image.new("L", (8, 8)), "PNG")
    for module, limit in ((Image, "MAX_IMAGE_PIXELS"), (image_memory, "MOST_PIXELS")):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, 1000)
            with pytest.raises(InputError, match="large.png has more than"):
                image_kinds.image_kinds(large, "large.png")
    assert image_kinds.image_kinds(small, "small.png") == ["greyscale"]


def _png_with(chunk: bytes) -> bytes:
    png = saved(Image.fromarray(picture()), "PNG")
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize(
    "content",
    [
        _png_with(png_chunk(b"eXIf", b"MM\0*")),
        _png_with(png_chunk(b"iTXt", b"exif\0\0\0\0\0words")),
        _png_with(png_chunk(b"zTXt", b"exif\0\0" + zlib.compress(b"words"))),
        b"DDS " + struct.pack("<4I", 124, 0x1007, 16, 16) + bytes(300),
        b"\1\0\0\0" + bytes(36) + b" EMF" + bytes(100),
    ],
)
def test_a_header_that_pillow_stumbles_over_tells_of_no_kind(content):
    assert image_kinds.image_kinds(content, "odd.png") == []


@pytest.mark.parametrize(
    ("kind", "orientation", "rotated"),
    [(2, b"6\0", False), (7, b"abc", False), (3, b"\6\0", True)],
)
def test_only_a_whole_number_is_an_orientation(kind, orientation, rotated):
    kinds = image_kinds.image_kinds(tiff_turned(kind, orientation), "odd.tiff")
    assert kinds == ["greyscale"] + ["EXIF-rotated"] * rotated


def test_lab_is_not_transparent():
    lab = Image.merge("LAB", [Image.new("L", (8, 8), 120)] * 3)
    assert image_kinds.image_kinds(saved(lab, "TIFF"), "lab.tiff") == []


def test_big_tiff_tells_its_depth_too():
    floats, option = Image.fromarray(np.ones((8, 8), np.float32)), {"big_tiff": True}
    assert image_kinds.is_deep_tiff(saved(floats, "TIFF", **option))
    plain = Image.fromarray(picture())
    assert not image_kinds.is_deep_tiff(saved(plain, "TIFF", **option))
    assert not image_kinds.is_deep_tiff(saved(plain, "PNG"))


def test_one_pixel_is_enough_to_train_on(tmp_path):
    dot = _prepared(tmp_path, {"dot.png": unusual_pictures()["1x1"][1]})["dot.png"]
    row = transforms.random_resized_crop(dot, 16, 0.08, np.random.default_rng(0))
    assert row["image"].shape == (16, 16, 3)
    assert (row["image"] == row["image"][0, 0]).all()
