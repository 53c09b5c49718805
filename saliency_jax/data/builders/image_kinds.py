"""What the name and the header of an image file say that a user may want to know."""

import io
import warnings

from PIL import Image, UnidentifiedImageError

from saliency_jax.data.builders.recipe import UnreadableImage

# What OpenCV reads (OpenEXR where it was built with it).
SUFFIXES = frozenset(
    ".avif .bmp .dib .exr .gif .hdr .jp2 .jpe .jpeg .jpg .pam .pbm .pfm .pgm .pic .png "
    ".pnm .ppm .pxm .ras .sr .tif .tiff .webp".split()
)

# What the decoder makes of each kind, `transforms.decode` for an image folder.
HANDLING = {
    "greyscale": "three equal channels",
    "CMYK": "converted to RGB",
    "transparent": "transparency dropped",
    "EXIF-rotated": "turned upright",
    "16-bit": "reduced to 8 bits",
    "animated": "first frame only",
    "1x1": "kept",
}

_TIFF_ORIENTATION = _EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_MOST_PIXELS = 178_956_970  # where Pillow, too, suspects an attack: 0.5 GB decoded


def image_kinds(encoded: bytes, where: str) -> list[str]:
    """Returns which of the unusual kinds in `HANDLING` an image is.

    Only the header is read. Formats that Pillow does not know have no kinds, nor has
    what is no image; that is for the decoder to say.

    Args:
      encoded: the bytes of the file.
      where: the file, for the message.

    Raises:
      UnreadableImage: if it has too many pixels for the memory of a worker process.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = Image.open(io.BytesIO(encoded))
    except Image.DecompressionBombError:
        raise UnreadableImage(
            f"{where} has more than {_MOST_PIXELS:,} pixels: make it smaller or "
            "remove it"
        ) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return []
    with header:
        checks = {
            "greyscale": header.mode in ("1", "L", "LA", "F") or header.mode[0] == "I",
            "CMYK": header.mode == "CMYK",
            "transparent": "A" in header.mode or "transparency" in header.info,
            "EXIF-rotated": _orientation(header) > 1,
            "16-bit": _has_16_bits(header, encoded),
            "animated": getattr(header, "is_animated", False),
            "1x1": header.size == (1, 1),
        }
    return [kind for kind, holds in checks.items() if holds]


def _orientation(header: Image.Image) -> int:
    if header.format == "TIFF":
        return header.tag_v2.get(_TIFF_ORIENTATION, 1)
    exif = Image.Exif()
    # Not header.getexif(), which decodes a whole PNG file that has none.
    try:
        exif.load(header.info.get("exif", b""))
        orientation = exif.get(_EXIF_ORIENTATION, 1)
    except (SyntaxError, OSError, ValueError, KeyError):
        return 1
    return orientation if isinstance(orientation, int) else 1


def _has_16_bits(header: Image.Image, encoded: bytes) -> bool:
    if header.format == "PNG":
        return encoded[24] == 16  # the bit depth of the IHDR chunk
    if header.format == "TIFF":
        return max(header.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,))) > 8
    return header.mode.startswith("I")
