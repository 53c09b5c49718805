"""Pictures of the kinds that people have and programs forget."""

import io

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 32
ORIENTATION = 0x0112


def picture() -> np.ndarray:
    """Red, green, blue and grey quarters, RGB."""
    quarters = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    quarters[:16, :24], quarters[:16, 24:] = (200, 20, 20), (20, 200, 20)
    quarters[16:, :24] = (20, 20, 200)
    return quarters


def saved(image: Image.Image, suffix: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[ORIENTATION] = orientation
    return made


def unusual_pictures() -> dict[str, tuple[str, bytes, np.ndarray]]:
    """File name, bytes and the picture that is to come out, by kind."""
    quarters = picture()
    image = Image.fromarray(quarters)
    grey = np.asarray(image.convert("L"))
    deep = quarters.astype(np.uint16) * 257
    transparent = np.dstack([quarters, np.full((HEIGHT, WIDTH), 90, np.uint8)])
    inverse = Image.fromarray(255 - quarters)
    lossless = {"save_all": True, "append_images": [inverse]}
    return {
        "greyscale": (
            "grey.png",
            saved(image.convert("L"), "PNG"),
            np.dstack([grey] * 3),
        ),
        "CMYK": ("cmyk.jpg", saved(image.convert("CMYK"), "JPEG"), quarters),
        "transparent": (
            "alpha.png",
            saved(Image.fromarray(transparent), "PNG"),
            quarters,
        ),
        # Orientation 6: the stored picture is to be turned clockwise by a quarter.
        "EXIF-rotated": (
            "turned.jpg",
            saved(image, "JPEG", exif=exif(6), quality=95),
            np.rot90(quarters, -1),
        ),
        "16-bit": (
            "deep.png",
            cv2.imencode(".png", deep[..., ::-1])[1].tobytes(),
            quarters,
        ),
        "animated": ("moving.png", saved(image, "PNG", **lossless), quarters),
        "1x1": (
            "dot.png",
            saved(image.crop((0, 0, 1, 1)), "PNG"),
            quarters[:1, :1],
        ),
    }
