"""What the name and the header of an image file say that a user may want to know."""

import io
import warnings

from PIL import Image, TiffImagePlugin

from saliency_jax.data.builders.image_memory import has_too_many_pixels, most_pixels
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


def image_kinds(encoded: bytes, where: str) -> list[str]:
    """Returns which of the unusual kinds in `HANDLING` an image is.

    Only the header is read. Formats that Pillow does not know have no kinds, nor has
    what is no image, or one whose header Pillow stumbles over; whether it can be read
    is for the decoder to say.

    Args:
      encoded: the bytes of the file.
      where: the file, for the message.

    Raises:
      UnreadableImage: if it has, or may have, too many pixels for the memory of a
        worker process.
    """
    most = most_pixels(encoded)
    too_many = UnreadableImage(
        f"{where} has more than {most:,} pixels, or a header that does not say how "
        "many: make it smaller, save it anew or remove it"
    )
    if has_too_many_pixels(encoded):
        raise too_many
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded)) as header:
                pixels, kinds = header.width * header.height, _kinds(header, encoded)
    except Image.DecompressionBombError:
        raise too_many from None
    except Exception:  # Pillow may raise anything for a header it is not made for
        return []
    if pixels > most:
        raise too_many
    return kinds


def is_deep_tiff(encoded: bytes) -> bool:
    """Whether a TIFF file has more than 16 bits a channel, as those of floats have."""
    header = encoded[: 16 if encoded[2:3] == b"+" else 8]  # BigTIFF, TIFF
    file = io.BytesIO(encoded)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(tags.next)
            tags.load(file)  # not Image.open, which knows no RGB floats
            return max(tags[_TIFF_BITS_PER_SAMPLE]) > 16
    except Exception:  # no TIFF file, or a damaged one
        return False


def _kinds(header: Image.Image, encoded: bytes) -> list[str]:
    checks = {
        "greyscale": header.mode in ("1", "L", "LA", "F") or header.mode[0] == "I",
        "CMYK": header.mode == "CMYK",
        "transparent": header.mode.endswith("A") or "transparency" in header.info,
        "EXIF-rotated": _orientation(header) > 1,
        "16-bit": _has_16_bits(header, encoded),
        "animated": getattr(header, "is_animated", False),
        "1x1": header.size == (1, 1),
    }
    return [kind for kind, holds in checks.items() if holds]


def _orientation(header: Image.Image) -> int:
    """The EXIF orientation; 1, upright, where it is none that Pillow can read."""
    try:
        if header.format == "TIFF":
            orientation = header.tag_v2.get(_TIFF_ORIENTATION, 1)
        else:
            exif = Image.Exif()
            # Not header.getexif(), which decodes a whole PNG file that has none.
            exif.load(header.info.get("exif", b""))
            orientation = exif.get(_EXIF_ORIENTATION, 1)
    except Exception:  # a text chunk of a PNG file may be called `exif`, for one
        return 1
    return orientation if isinstance(orientation, int) else 1


def _has_16_bits(header: Image.Image, encoded: bytes) -> bool:
    if header.format == "PNG":
        return encoded[24] == 16  # the bit depth of the IHDR chunk
    if header.format == "TIFF":
        return max(header.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,))) > 8
    return header.mode.startswith("I")
