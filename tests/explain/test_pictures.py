"""The door for pictures, and the way from what was shown back to the picture."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from saliency_jax.data import transforms
from saliency_jax.errors import InputError
from saliency_jax.explain.pictures import (
    Window,
    box_in_picture,
    enlarged,
    find_pictures,
    read_picture,
    shown,
)
from tests.data.unusual_pictures import picture, unusual_pictures


@pytest.mark.parametrize("kind", unusual_pictures())
def test_unusual_pictures_are_read_and_told_of(kind, tmp_path):
    name, content, expected = unusual_pictures()[kind]
    path = tmp_path / name
    path.write_bytes(content)
    found = read_picture(path)
    assert found.pixels.shape == expected.shape and found.pixels.dtype == np.uint8
    difference = np.abs(found.pixels.astype(int) - expected)
    assert np.median(difference) <= 4
    assert [note.split(":")[0] for note in found.notes] == [kind]


def header_of_a_huge_png():
    """A PNG that claims 50,000 x 50,000 pixels in a few bytes."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    size = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"\0" * 99)


def line_of_pixels():
    return cv2.imencode(".png", np.zeros((1, 500, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "one.png is empty: expected a picture"),
        (b"hello", "one.png is damaged or no picture that OpenCV reads"),
        (header_of_a_huge_png(), "one.png has more than 111,848,106 pixels"),
        (line_of_pixels(), "one.png has 500x1 pixels: expected a picture less than"),
    ],
)
def test_what_is_no_picture_is_refused(content, message, tmp_path):
    path = tmp_path / "one.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_picture(path)


def test_files_and_folders_are_found(tmp_path):
    for name in ("b.jpg", "a.PNG", "inner/c.webp", "notes.txt", "inner/d.json"):
        path = tmp_path / "all" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "all" / "no_suffix").write_bytes(b"")
    named = tmp_path / "all" / "no_suffix"
    named_and_found = [named, tmp_path / "all", tmp_path / "all" / "b.jpg"]
    found = find_pictures(named_and_found, tmp_path / "out")
    names = [str(path.relative_to(tmp_path / "all")) for path in found]
    assert names == ["no_suffix", "a.PNG", "b.jpg", "inner/c.webp"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no picture in the folder .*empty"):
        find_pictures([tmp_path / "empty"], "out")
    with pytest.raises(InputError, match="none.jpg does not exist"):
        find_pictures([tmp_path / "none.jpg"], "out")


def test_results_are_no_pictures_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, result = Path("own", "dog.png"), Path("own", "explained", "dog", "sheet.png")
    for file in (own, result):
        file.parent.mkdir(parents=True)
        file.touch()
    out = tmp_path / "own" / "explained"  # the same place by another name
    assert find_pictures(["own"], out) == [own]
    assert find_pictures(["own", result], out) == [own, result]
    assert find_pictures(["own"], ".") == find_pictures(["own"], "other")
    assert find_pictures(["own"], "other") == [own, result]
    # of an earlier call, which wrote elsewhere; but whoever names its folder means it
    (own.parent / "explained" / "explanations.json").write_text("{}")
    assert find_pictures(["own"], "other") == [own]
    assert find_pictures(["own/explained"], "other") == [result]
    (own.parent / "explanations.json").write_text("{}")
    assert find_pictures(["own"], "other") == [own]
    with pytest.raises(InputError, match="--out=own is a folder of pictures"):
        find_pictures([tmp_path / "own"], "own")


def test_a_folder_is_no_picture_whatever_its_name(tmp_path):
    inner = tmp_path / "folder.png" / "dog.jpg"
    inner.parent.mkdir()
    inner.touch()
    assert find_pictures([tmp_path], "out") == [inner]


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_depths_that_are_not_handled_are_told(shape, tmp_path):
    path = tmp_path / "deep.tiff"
    cv2.imwrite(str(path), np.ones(shape, np.float32))
    with pytest.raises(InputError, match="deep.tiff has more than 16 bits a channel"):
        read_picture(path)
    path.write_bytes(cv2.imencode(".tiff", picture())[1].tobytes()[:60])
    with pytest.raises(InputError, match="deep.tiff is damaged or no picture"):
        read_picture(path)


def test_the_centre_is_that_of_evaluation_and_its_window_holds_it():
    pixels = np.random.default_rng(0).integers(0, 256, (70, 105, 3), np.uint8)
    square, window = shown(pixels, 32, "centre")
    example = {
        "image": pixels,
        "boxes": np.zeros((0, 4), np.float32),
        "boxes_valid": np.zeros(0, bool),
    }
    expected = transforms.resize_and_centre_crop(example, 37, 32)["image"]
    np.testing.assert_array_equal(square, expected)
    assert window == (4, 22, 61, 61)  # 70 * 32 / 37 pixels, in the middle
    whole, window = shown(pixels, 32, "whole")
    assert whole.shape == (32, 32, 3) and window == (0, 0, 70, 105)


def test_a_box_of_the_square_lies_around_the_same_pixels_of_the_picture():
    """The red quarter of a picture, found in what is shown of it."""
    pixels = np.kron(picture(), np.ones((3, 3, 1), np.uint8))  # 96 x 144
    for view in ("whole", "centre"):
        square, window = shown(pixels, 32, view)
        red = (square[..., 0] > 150) & (square[..., 1] < 80)
        rows, columns = np.nonzero(red)
        edges = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        ymin, xmin, ymax, xmax = box_in_picture(np.array(edges), 32, window)
        assert ymin == window.top and xmin == window.left
        assert abs(ymax - 48) <= 3 and abs(xmax - 72) <= 5
        inside = enlarged(red.astype(np.float32), window)
        assert inside.shape == (window.height, window.width)
        truth = pixels[
            window.top : window.top + window.height,
            window.left : window.left + window.width,
        ]
        is_red = (truth[..., 0] == 200) & (truth[..., 1] == 20)
        assert np.mean((inside > 0.5) == is_red) > 0.95


def test_the_edges_of_a_box_go_outwards():
    window = Window(10, 20, 100, 50)
    assert box_in_picture(np.array([1, 1, 2, 2]), 32, window) == [13, 21, 17, 24]
    assert box_in_picture(np.array([0, 0, 32, 32]), 32, window) == [10, 20, 110, 70]
