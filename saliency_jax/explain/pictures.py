"""The door for pictures: files and folders of any kind that OpenCV reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from saliency_jax.data import transforms
from saliency_jax.data.builders.image_kinds import (
    HANDLING,
    SUFFIXES,
    image_kinds,
    is_deep_tiff,
)
from saliency_jax.data.builders.image_memory import read_image_file
from saliency_jax.data.builders.recipe import UnreadableImage
from saliency_jax.data.example import Example
from saliency_jax.errors import InputError

View = Literal["whole", "centre"]

RESULTS = "explanations.json"
MOST_STRETCHED = 100  # times as long as wide


class Picture(NamedTuple):
    """A picture that was read.

    Attributes:
      path: of its file.
      pixels: upright, RGB.
      notes: what was done about it, such as "CMYK: converted to RGB".
    """

    path: Path
    pixels: UInt8[np.ndarray, "H W 3"]
    notes: list[str]


class Window(NamedTuple):
    """The part of a picture that a classifier is shown, in the picture's pixels."""

    top: int
    left: int
    height: int
    width: int


def find_pictures(paths: Sequence[str | Path], out: str | Path) -> list[Path]:
    """The files that are named, and all pictures in folders and the folders in them.

    Args:
      paths: files and folders.
      out: folder of the results, which are nobody's own pictures: what lies there is
        not taken from a folder around it, nor what an earlier call has written to
        another folder in it.

    Raises:
      InputError: one is not there, is the folder of the results, or has no picture.
    """
    found = []
    results = Path(out).resolve()
    for path in map(Path, paths):
        if path.is_dir():
            folder = path.resolve()
            if folder == results:
                raise InputError(
                    f"--out={out} is a folder of pictures to explain: name another one "
                    f"for the results, such as {path / 'explained'}"
                )
            inner = [file.relative_to(path) for file in path.rglob("*")]
            made = {file.parent for file in inner if file.name == RESULTS}
            if results.is_relative_to(folder):
                made.add(results.relative_to(folder))
            made.discard(Path())  # whoever names results as pictures means them
            inside = sorted(
                path / file
                for file in inner
                if file.suffix.lower() in SUFFIXES
                and made.isdisjoint(file.parents)
                and not (path / file).is_dir()
            )
            if not inside:
                raise InputError(
                    f"no picture in the folder {path}: expected files that end in "
                    f"{', '.join(sorted(SUFFIXES))}"
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(
                f"{path} does not exist: name pictures, or folders of them"
            )
    return list(dict.fromkeys(found))


def read_picture(path: Path) -> Picture:
    """Reads a picture, whatever its depth, colours and orientation.

    Raises:
      InputError: it is none, is too large for the memory, or is a line.
    """
    if path.exists() and not path.is_file():  # reading a pipe would never end
        raise InputError(f"{path} is no file: expected a picture")
    try:
        encoded = read_image_file(path)
    except UnreadableImage as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"cannot read image {path}: {error.strerror}") from error
    if not encoded:
        raise InputError(f"{path} is empty: expected a picture")
    example = _example(path, encoded)
    try:
        kinds = image_kinds(encoded, str(path))
        pixels = transforms.decode(example)["image"]
    except UnreadableImage as error:
        raise InputError(str(error)) from error
    except InputError as error:
        if is_deep_tiff(encoded):
            raise InputError(
                f"{path} has more than 16 bits a channel, which OpenCV does not make "
                "a picture of: save it with 8 or 16"
            ) from error
        raise InputError(
            f"{path} is damaged or no picture that OpenCV reads: remove it, or save it "
            "as PNG or JPEG"
        ) from error
    height, width = pixels.shape[:2]
    if max(height, width) > MOST_STRETCHED * min(height, width):
        raise InputError(
            f"{path} has {width}x{height} pixels: expected a picture less than "
            f"{MOST_STRETCHED} times as long as wide; cut it"
        )
    return Picture(path, pixels, [f"{kind}: {HANDLING[kind]}" for kind in kinds])


def shown(
    pixels: UInt8[np.ndarray, "H W 3"], size: int, view: View
) -> tuple[UInt8[np.ndarray, "size size 3"], Window]:
    """What a classifier is shown of a picture, and where it lies.

    Args:
      pixels: of the picture.
      size: side in pixels of the classifier's images.
      view: "whole": all of it, pressed into a square; "centre": in its own proportions
        the middle square, of 7/8 of the shorter side, as in evaluation.
    """
    height, width = pixels.shape[:2]
    example = _example(Path(), b"") | {"image": pixels}
    if view == "whole":
        whole = Window(0, 0, height, width)
        return transforms.resize(example, size, size)["image"], whole
    cut = transforms.resize_and_centre_crop(example, round(size * 8 / 7), size)
    side = max(1, round(min(height, width) * size / round(size * 8 / 7)))
    window = Window((height - side) // 2, (width - side) // 2, side, side)
    return cut["image"], window


def _example(path: Path, encoded: bytes) -> Example:
    return {
        "image": encoded,
        "file_name": str(path),
        "upright": True,
        "boxes": np.zeros((0, 4), np.float32),
        "boxes_valid": np.zeros(0, bool),
    }


def enlarged(
    values: Float[np.ndarray, "S S"], window: Window
) -> Float[np.ndarray, "H W"]:
    """Values of what was shown, one for each pixel of the window."""
    size = (window.width, window.height)
    return cv2.resize(values, size, interpolation=cv2.INTER_LINEAR)


def box_in_picture(box: Int[np.ndarray, "4"], size: int, window: Window) -> list[int]:
    """A box of what was shown in the picture's pixels; the edges go outwards.

    Args:
      box: `ymin, xmin, ymax, xmax`, half-open, in pixels of what was shown.
      size: its side.
      window: where it lies.
    """
    ymin, xmin, ymax, xmax = box
    return [
        window.top + int(ymin) * window.height // size,
        window.left + int(xmin) * window.width // size,
        window.top - (-int(ymax) * window.height // size),
        window.left - (-int(xmax) * window.width // size),
    ]
