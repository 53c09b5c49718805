"""How large an image may be, so that a process that decodes it stays below 2 GiB.

The process itself takes 0.2 GiB, the file as it is 0.5, and its decoding 1.25.
"""

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from saliency_jax.data.builders.recipe import UnreadableImage

PNG = b"\x89PNG\r\n\x1a\n"

_MOST_FILE_BYTES = 512 * 2**20
_MOST_DECODED_BYTES = 1280 * 2**20
# What OpenCV 5 was measured to take for a pixel at most, not counting the file, where
# that is much: for AVIF of 10 bits with transparency, JPEG 2000 of 16 bits with it,
# floats of a Radiance HDR file, the canvases of an animated PNG; 12 for all others.
# (24 for PFM, of which the limit of the file, 12 bytes a pixel, lets in few enough.)
_AVIF, _JPEG_2000, _HDR, _ANIMATED_PNG, _OTHER = 40, 20, 15, 15, 12

# `saliency_jax` tells OpenCV this number.
MOST_PIXELS = _MOST_DECODED_BYTES // _OTHER

_HDR_START = b"#?"
_JPEG_2000_STARTS = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
# As OpenCV's `sscanf` reads it.
_HDR_SIZE = re.compile(rb"-Y\s*+\+?+(\d++)\s*+\+X\s*+\+?+(\d++)")


def read_image_file(path: Path) -> bytes:
    """Returns what a file holds, unless that is too much for any image.

    Raises:
      UnreadableImage: it is too large.
      OSError: it cannot be read.
    """
    if path.stat().st_size > _MOST_FILE_BYTES:
        raise UnreadableImage(
            f"{path} is larger than {_MOST_FILE_BYTES // 2**20} MiB: save it "
            "compressed, make it smaller or remove it"
        )
    return path.read_bytes()


def most_pixels(encoded: bytes) -> int:
    """Returns how many pixels an image of this kind may have."""
    if _is_avif(encoded):
        return _MOST_DECODED_BYTES // _AVIF
    if encoded.startswith(_JPEG_2000_STARTS):
        return _MOST_DECODED_BYTES // _JPEG_2000
    if encoded.startswith(_HDR_START):
        return _MOST_DECODED_BYTES // _HDR
    if encoded.startswith(PNG) and any(k == b"acTL" for k, _ in png_chunks(encoded)):
        return _MOST_DECODED_BYTES // _ANIMATED_PNG
    return MOST_PIXELS


def has_too_many_pixels(encoded: bytes) -> bool:
    """Whether an image of a kind that takes much memory has, or may have, too many.

    It may where nothing here can read its header. Of other kinds none has: OpenCV
    counts for itself. (The headers of all images would cost the input pipeline time.)
    """
    most = most_pixels(encoded)
    if most == MOST_PIXELS:
        return False
    pixels = _pixels(encoded)
    return pixels is None or pixels > most


def png_chunks(encoded: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields the kind of each chunk of a PNG file, and the place where it ends."""
    place = len(PNG)
    while place < len(encoded):
        length, kind = encoded[place : place + 4], encoded[place + 4 : place + 8]
        place += 12 + int.from_bytes(length, "big")
        yield kind, place
        if kind == b"IEND":  # what comes behind it is nobody's
            break


def _is_avif(encoded: bytes) -> bool:
    return encoded[4:8] == b"ftyp"


def _pixels(encoded: bytes) -> int | None:
    """How many pixels a header tells of; None where Pillow cannot read it."""
    if encoded.startswith(PNG):
        width, height = encoded[16:20], encoded[20:24]
        return int.from_bytes(width, "big") * int.from_bytes(height, "big")
    if encoded.startswith(_HDR_START):
        sizes = (match.groups() for match in _HDR_SIZE.finditer(encoded))
        # Ten digits are too many already, and `int` refuses thousands.
        number = lambda digits: int(digits.lstrip(b"0")[:10] or b"0")
        return max(
            (number(height) * number(width) for height, width in sizes), default=0
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded)) as header:
                return header.width * header.height
    except Exception:  # a bomb, or anything: Pillow met what it is not made for
        return None
