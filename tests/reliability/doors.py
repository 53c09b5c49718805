"""The readers of what comes from outside, each with files that it reads."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import safetensors.numpy
from hypothesis import strategies

from saliency_jax.data.builders import box_rows, imagenet_loc
from saliency_jax.data.builders.image_kinds import image_kinds
from saliency_jax.data.builders.records import image_size
from saliency_jax.errors import InputError
from saliency_jax.explain.pictures import read_picture
from saliency_jax.models.weights import read_weights
from saliency_jax.models.weights_metadata import read_metadata, told_by_metadata

ANNOTATION = b"""<?xml version="1.0"?>
<annotation><size><width>500</width><height>375</height><depth>3</depth></size>
<object><name>n01440764</name><bndbox><xmin>12</xmin><ymin>3</ymin><xmax>499</xmax>
<ymax>374</ymax></bndbox></object></annotation>
"""
ENTITIES = b"""<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;">]>
<annotation><size><width>&d;</width><height>1</height></size></annotation>
"""
ROWS = (
    b"path,xmin,ymin,xmax,ymax\na/1.jpg,1,2,30,40\nb/2.png,0,0,1,1\n",
    b"path,xmin,ymin,xmax,ymax,class\na/1.jpg,1,2,30,40,a\na/1.jpg,,,,,b\n",
    b'"a/1, 2.jpg",1,2,30,40\r\n\r\n',
)


class Door(NamedTuple):
    """A reader that may refuse a file by an `InputError` and by nothing else.

    Attributes:
      suffix: of the file.
      files: contents that it reads.
      read: what is fuzzed.
    """

    suffix: str
    files: tuple[bytes, ...]
    read: Callable[[Path], object]


def _pictures() -> tuple[bytes, ...]:
    pixels = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    deep = pixels.astype(np.uint16) * 256
    written = [(".jpg", pixels), (".png", pixels), (".png", deep), (".png", pixels[:1])]
    written += [(".tiff", deep), (".bmp", pixels), (".webp", pixels), (".gif", pixels)]
    written += [(".ppm", pixels), (".pgm", pixels[..., 0]), (".pbm", pixels[..., 0])]
    written += [(".pam", pixels), (".sr", pixels), (".avif", pixels)]
    written += [(".hdr", np.float32(pixels)), (".pfm", np.float32(pixels))]
    written += [(".jp2", np.tile(pixels, (3, 3, 1)))]
    usual = [cv2.imencode(kind, values)[1].tobytes() for kind, values in written]
    return (*usual, *_with_odd_headers(pixels))


def _with_odd_headers(pixels: np.ndarray) -> tuple[bytes, ...]:
    """Pictures that OpenCV reads and whose headers Pillow stumbles over, or nearly."""
    png = cv2.imencode(".png", pixels)[1].tobytes()
    chunks = (
        png_chunk(b"eXIf", b"MM\0*"),
        png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6" + bytes(6)),
        png_chunk(b"iTXt", b"exif\0\0\0\0\0words"),
        png_chunk(b"zTXt", b"exif\0\0" + zlib.compress(b"words")),
    )
    ascii_text, undefined = 2, 7
    return tuple(png[:33] + chunk + png[33:] for chunk in chunks) + tuple(
        tiff_turned(*orientation)
        for orientation in ((ascii_text, b"6\0"), (undefined, b"abc"), (3, b"\6\0"))
    )


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + checksum.to_bytes(4)


def tiff_turned(kind: int, orientation: bytes) -> bytes:
    """A grey TIFF of 8x8 pixels, with an orientation of one of TIFF's kinds."""
    short = lambda tag, value: struct.pack("<HHIHH", tag, 3, 1, value, 0)
    count = len(orientation) if kind != 3 else 1
    entries = [short(256, 8), short(257, 8), short(258, 8), short(259, 1)]
    entries += [short(262, 1), short(273, 8)]
    entries += [struct.pack("<HHI", 274, kind, count) + orientation.ljust(4, b"\0")]
    entries += [short(277, 1), short(278, 8), short(279, 64)]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + 64) + bytes(range(64)) + directory


def _weights() -> tuple[bytes, ...]:
    arrays = {"conv1.weight": np.ones((2, 3, 3, 3), np.float32)}
    arrays["bn1.running_mean"] = np.zeros(2, np.float32)
    return (
        safetensors.numpy.save(arrays),
        safetensors.numpy.save(arrays, {"mean": "0.5,0.5,0.5", "padding": "same"}),
    )


def _read_all_of_a_picture(path: Path) -> None:
    encoded = path.read_bytes()
    image_size(encoded, "it", upright=True)
    image_kinds(encoded, "it")
    read_picture(path)


def _read_all_of_weights(path: Path) -> None:
    told_by_metadata(read_metadata(path))
    read_weights(path)


DOORS = {
    "XML annotations": Door(
        ".xml", (ANNOTATION, ENTITIES), imagenet_loc._read_annotation
    ),
    "CSV boxes": Door(".csv", ROWS, lambda path: list(box_rows.read_rows(path, "ab"))),
    "pictures": Door(".img", _pictures(), _read_all_of_a_picture),
    "safetensors": Door(".safetensors", _weights(), _read_all_of_weights),
}


def damaged(files: tuple[bytes, ...]) -> strategies.SearchStrategy[bytes]:
    """Files with some bytes replaced, put in, taken out or repeated, and cut off."""
    places = strategies.floats(0, 1)
    edit = strategies.tuples(
        places, strategies.integers(0, 16), strategies.binary(max_size=12)
    )

    def edited(file: bytes, edits: list, end: float, repeats: int) -> bytes:
        for place, removed, put_in in edits:
            at = int(place * len(file))
            file = file[:at] + put_in * repeats + file[at + removed :]
        return file[: max(1, round(end * len(file)))]

    return strategies.builds(
        edited,
        strategies.sampled_from(files),
        strategies.lists(edit, max_size=6),
        strategies.just(1.0) | places,
        strategies.sampled_from((1, 1, 1, 100)),
    )


def is_refused(door: Door, content: bytes, folder: Path) -> bool:
    """Whether the door refuses a file; anything but an `InputError` passes through."""
    path = folder / f"file{door.suffix}"
    path.write_bytes(content)
    try:
        door.read(path)
    except InputError as error:
        assert len(str(error).splitlines()) == 1, "more than a line"
        return True
    return False


def bomb(width: int, height: int) -> bytes:
    """A PNG file whose header promises so many pixels."""
    encoded = bytearray(cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1])
    encoded[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    encoded[29:33] = zlib.crc32(encoded[12:29]).to_bytes(4, "big")
    return bytes(encoded)
