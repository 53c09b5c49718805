"""Whatever comes in is read, or refused in a line."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import saliency_jax
from saliency_jax.data.builders.box_rows import read_rows
from saliency_jax.data.builders.image_memory import MOST_PIXELS
from saliency_jax.data.builders.records import PixelBox, relative_box
from saliency_jax.data.transforms import UPRIGHT, decode_pixels
from saliency_jax.errors import InputError
from saliency_jax.explain.pictures import read_picture
from saliency_jax.metrics.baselines import rectangle_masks
from saliency_jax.metrics.raw_maps import checked_maps, min_max_normalised
from saliency_jax.synthesis.variations import checked_regions
from tests.commands import start
from tests.reliability.doors import DOORS, bomb, damaged, is_refused, png_chunk

quickly = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
edges = st.integers(-5, 40) | st.integers(-(2**70), 2**70)


@pytest.mark.parametrize("name", DOORS)
def test_whole_files_are_read(name, tmp_path):
    door = DOORS[name]
    refused = [is_refused(door, content, tmp_path) for content in door.files]
    assert refused == [b"ENTITY" in content for content in door.files]


@pytest.mark.parametrize("name", DOORS)
def test_damaged_files_are_read_or_refused_in_a_line(name, tmp_path):
    @quickly
    @given(damaged(DOORS[name].files))
    def check(content):
        is_refused(DOORS[name], content, tmp_path)

    check()


def test_what_a_file_has_between_line_breaks_is_told_in_one_line(tmp_path):
    """A case that the fuzz run found."""
    assert is_refused(DOORS["CSV boxes"], b'"a/1, 2.jpgQ\n\rP', tmp_path)


@pytest.mark.parametrize(
    "row", ["a," * 10**6, f"a.png,0,0,1,{'9' * 4000},{'b' * 9**5}"]
)
def test_a_message_quotes_little_of_a_row(row, tmp_path):
    (tmp_path / "boxes.csv").write_text(row)
    with pytest.raises(InputError) as refused:
        list(read_rows(tmp_path / "boxes.csv", "ab"))
    assert len(str(refused.value)) < 500


def test_a_message_quotes_little_of_a_box():
    with pytest.raises(
        InputError, match=r"\(0, 0, 1, 9+\.\.\. lies outside"
    ) as refused:
        relative_box(PixelBox(0, 0, 1, int("9" * 4000)), 30, 20, "it")
    assert len(str(refused.value)) < 300


def test_a_chunk_longer_than_its_file_never_reaches_opencv(tmp_path, monkeypatch):
    """It would make room first: 3.5 GB for 174 bytes that the fuzz run found."""
    whole = cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    place = whole.index(b"IDAT") - 4
    too_long = whole[:place] + b"\x55" + whole[place + 1 :]
    assert not is_refused(DOORS["pictures"], whole + b"more", tmp_path)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    assert is_refused(DOORS["pictures"], too_long, tmp_path)


@pytest.mark.parametrize("side", [50_000, 2**31 - 1])
def test_an_image_bomb_is_refused(side, tmp_path):
    assert is_refused(DOORS["pictures"], bomb(side, side), tmp_path)
    assert not is_refused(DOORS["pictures"], bomb(1, 1), tmp_path)


def test_a_bomb_that_pillow_does_not_know_is_refused(tmp_path):
    """82 kB that OpenCV, left to itself, makes 3.85 GiB of: a reviewer's."""
    side, squeeze = 26_000, zlib.compressobj(9)
    rows = [squeeze.compress(bytes(1 + side // 8)) for _ in range(side)]
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        + png_chunk(b"tEXt", b"a\0b")[:-4]
        + b"away"
        + png_chunk(b"IDAT", b"".join(rows) + squeeze.flush())
        + png_chunk(b"IEND", b"")
    )
    assert _decoded(tmp_path / "bomb.png") == "None"


def _decoded(path: Path) -> str:
    """What a fresh process makes of an image; it must stay below 1 GiB."""
    program = (
        "import sys, pathlib\n"
        "from saliency_jax.data.transforms import UPRIGHT, decode_pixels\n"
        "from tests.reliability.fuzz import peak_gib\n"
        "encoded = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "print(decode_pixels(encoded, UPRIGHT))\n"
        "print(peak_gib())"
    )
    found, errors = start("-c", program, path).communicate(timeout=60)
    pixels, gib = found.split()
    assert float(gib) < 1, errors
    return pixels


def _hdr(side: int) -> bytes:
    """A grey Radiance file; its size is told after a decoy."""
    runs = [min(127, side - start) for start in range(0, side, 127)]
    row = b"\2\2" + side.to_bytes(2) + bytes(b for n in runs for b in (n + 128, 9)) * 4
    head = b"#?RADIANCE\n# -Y 1 +X 1\nFORMAT=32-bit_rle_rgbe\n\n"
    return head + b"-Y %d +X %d\n" % (side, side) + row * side


def test_an_hdr_bomb_is_refused(tmp_path):
    """10 MB of which OpenCV makes 2.44 GiB: a reviewer's."""
    (tmp_path / "bomb.hdr").write_bytes(_hdr(13_000))
    assert _decoded(tmp_path / "bomb.hdr") == "None"


def _moving(side: int) -> bytes:
    """A PNG file whose header promises an animation of so many pixels."""
    still = bomb(side, side)
    return still[:33] + png_chunk(b"acTL", bytes([0, 0, 0, 2, 0, 0, 0, 0])) + still[33:]


def _jpeg_2000(side: int) -> bytes:
    encoded = bytearray(cv2.imencode(".jp2", np.zeros((99, 99, 3), np.uint8))[1])
    size = struct.pack(">II", side, side)
    for name, place in ((b"ihdr", 4), (b"\xff\x4f\xff\x51", 8)):
        start_of_size = encoded.index(name) + place
        encoded[start_of_size : start_of_size + 8] = size
    return bytes(encoded)


@pytest.mark.parametrize("made", [_hdr, _moving, _jpeg_2000])
def test_what_takes_much_memory_for_a_pixel_has_a_limit_of_its_own(
    made, tmp_path, monkeypatch
):
    """15 or 20 bytes a pixel; at 10,000 pixels a side none reaches OpenCV."""
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    path = tmp_path / "picture"
    path.write_bytes(made(10_000))
    assert decode_pixels(path.read_bytes(), UPRIGHT) is None
    with pytest.raises(InputError, match=r"picture has more than \d\d,\d{3},\d{3} pix"):
        read_picture(path)


@pytest.mark.parametrize("suffix", [".avif", ".jp2"])
def test_nor_does_one_whose_header_does_not_say_how_many(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"picture{suffix}"
    whole = cv2.imencode(suffix, np.zeros((99, 99, 3), np.uint8))[1].tobytes()
    path.write_bytes(whole)
    assert read_picture(path).pixels.shape == (99, 99, 3)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    path.write_bytes(whole[:40])
    with pytest.raises(InputError, match="or a header that does not say how many"):
        read_picture(path)


def test_opencv_is_told_the_limit():
    text = Path(saliency_jax.__file__).read_text()
    assert f'"OPENCV_IO_MAX_IMAGE_PIXELS", "{MOST_PIXELS}"' in text


def test_a_picture_of_gigabytes_is_not_read_into_memory(tmp_path):
    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.truncate(6 * 2**30)
    with pytest.raises(InputError, match="big.png is larger than 512 MiB"):
        read_picture(path)


@quickly
@given(st.builds(PixelBox, edges, edges, edges, edges), st.booleans(), st.booleans())
def test_a_box_is_within_its_image_or_refused(box, clip, half_open):
    try:
        found = relative_box(box, 30, 20, "it", clip, half_open)
    except InputError:
        inside = 0 <= box.xmin < box.xmax <= 30 and 0 <= box.ymin < box.ymax <= 20
        assert not inside
    else:
        assert 0 <= found.xmin < found.xmax <= 1
        assert 0 <= found.ymin < found.ymax <= 1


@quickly
@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.uint8, np.int64]),
        arrays.array_shapes(max_dims=4, max_side=5),
    )
)
def test_maps_are_finite_or_refused(maps):
    try:
        with np.errstate(over="ignore"):  # of a float64 beyond float32
            found = checked_maps(maps)
    except InputError:
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.asarray(maps, np.float32)).all()
        assert maps.ndim != 3 or not finite
    else:
        assert found.dtype == np.float32 and np.isfinite(found).all()
        normalised = min_max_normalised(maps)
        assert normalised.min() >= 0 and normalised.max() <= 1


@quickly
@given(st.lists(st.tuples(edges, edges, edges, edges), min_size=1, max_size=3))
def test_a_region_is_a_part_of_its_image_or_refused(boxes):
    inside = [
        0 <= y0 < y1 <= 8 and 0 <= x0 < x1 <= 8 and (y1 - y0) * (x1 - x0) < 64
        for y0, x0, y1, x1 in boxes
    ]
    try:
        given_boxes = np.array(boxes, np.int64)
    except OverflowError:  # numpy has no such number
        return
    if all(inside):
        masks = checked_regions(given_boxes, len(boxes), 8)
        np.testing.assert_array_equal(masks, rectangle_masks(given_boxes, (8, 8)))
    else:
        with pytest.raises(InputError):
            checked_regions(given_boxes, len(boxes), 8)
