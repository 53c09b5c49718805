"""Pure image transforms in numpy and OpenCV; boxes and pixel masks move along.

Worker threads and processes run these: no JAX here. A transform takes a decoded
`Example` (see `example`) and returns a new one; what is random takes an `rng`.
"""

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Num

from saliency_jax.data.builders.image_memory import (
    PNG,
    has_too_many_pixels,
    png_chunks,
)
from saliency_jax.data.example import MASKS, Example
from saliency_jax.errors import InputError

cv2.setNumThreads(1)  # grain's threads already keep the cores busy

# ImageNet's boxes are filed for the stored pixels, whatever the EXIF orientation says;
# those of an image folder for the picture that a viewer shows, turned accordingly.
# (OpenCV turns TIFF files by either flag, AVIF files by none.)
AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
UPRIGHT = cv2.IMREAD_COLOR

_JPEG = b"\xff\xd8"


def decode_pixels(encoded: bytes, flags: int) -> np.ndarray | None:
    """Decodes an image by OpenCV; None where the bytes are none.

    Nor are those of a PNG file with a chunk that is longer than the rest of the file.
    OpenCV makes room for a chunk before it reads it: 3.5 GB for one of 174 bytes, which
    the fuzz run found. Nor those of an image that would take too much memory
    (`image_memory`).

    Args:
      encoded: the bytes of the file.
      flags: of `cv2.imdecode`.
    """
    if encoded.startswith(PNG) and any(
        end > len(encoded) for _, end in png_chunks(encoded)
    ):
        return None
    if has_too_many_pixels(encoded):
        return None
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:  # a format left out of this OpenCV, or too many pixels
        return None


def decode(example: Example) -> Example:
    """Decodes `image` to RGB `uint8 [H, W, 3]` and the masks to `bool [H, W]`.

    Greyscale and CMYK images become RGB, 16 bits become 8, transparency is dropped,
    and of an animation the first frame remains. An EXIF orientation is obeyed where
    the source says `upright`, and ignored elsewhere.

    Raises:
      InputError: if the bytes are not an image.
    """
    flags = UPRIGHT if example.get("upright", False) else AS_STORED
    # OpenCV's JPEG decoder can write RGB itself; some others ignore the flag (PAM's).
    writes_rgb = example["image"].startswith(_JPEG)
    if writes_rgb:
        flags ^= cv2.IMREAD_COLOR | cv2.IMREAD_COLOR_RGB
    image = decode_pixels(example["image"], flags)
    if image is None:
        raise InputError(
            f"{example['file_name']} is not a readable image (corrupt): remove it from "
            "the source and prepare the data set again"
        )
    if not writes_rgb:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    decoded = example | {"image": image}
    decoded.pop("upright", None)
    if "original_size" not in example:
        decoded["original_size"] = np.array(image.shape[1::-1], np.int32)
    try:
        return decoded | _changed_masks(example, _decoded_mask)
    except InputError as error:
        raise InputError(f"{example['file_name']}: {error}") from None


def _decoded_mask(encoded: bytes) -> Bool[np.ndarray, "H W"]:
    pixels = decode_pixels(encoded, cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise InputError(
            "its object mask is not a readable image: prepare the data set again"
        )
    return pixels >= 128


def _changed_masks(
    example: Example, change: Callable[[Any], Bool[np.ndarray, "H W"]]
) -> Example:
    """Returns those masks that the example has, each changed."""
    return {name: change(example[name]) for name in MASKS if name in example}


def crop(example: Example, top: int, left: int, height: int, width: int) -> Example:
    """Cuts a window out of the image; boxes become relative to it and are cut too.

    A box that the window leaves out keeps its row, with `boxes_valid` False.
    """
    old_height, old_width = example["image"].shape[:2]
    window = (slice(top, top + height), slice(left, left + width))
    size = np.array([old_height, old_width] * 2, np.float32)
    offset = np.array([top, left] * 2, np.float32)
    new_size = np.array([height, width] * 2, np.float32)
    boxes = np.clip((example["boxes"] * size - offset) / new_size, 0.0, 1.0)
    visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    cropped = example | {
        "image": example["image"][window],
        "boxes": boxes,
        "boxes_valid": example["boxes_valid"] & visible,
    }
    return cropped | _changed_masks(example, lambda mask: mask[window])


def resize(example: Example, height: int, width: int) -> Example:
    """Resizes to exactly `height` x `width`; relative boxes stay as they are.

    Pixels are averaged over areas when shrinking and interpolated linearly when
    enlarging; a mask's pixel is set where the object covers at least half of it.
    """
    resized = example | {"image": _resize(example["image"], height, width)}
    return resized | _changed_masks(
        example, lambda mask: _resize(mask.astype(np.float32), height, width) >= 0.5
    )


def _resize(
    pixels: Num[np.ndarray, "h w *channels"], height: int, width: int
) -> Num[np.ndarray, "H W *channels"]:
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=method)


def resize_and_centre_crop(example: Example, resize_to: int, size: int) -> Example:
    """Resizes the shorter side to `resize_to`, then cuts the middle `size` x `size`.

    Rounds as torchvision's `Resize` and `CenterCrop` do.

    Args:
      example: decoded, of any shape.
      resize_to: new length of the shorter side, in pixels; at least `size`.
      size: side of the result, in pixels.
    """
    height, width = example["image"].shape[:2]
    shorter = min(height, width)
    new_height, new_width = (resize_to * side // shorter for side in (height, width))
    resized = resize(example, new_height, new_width)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    return crop(resized, top, left, size, size)


def random_resized_crop(
    example: Example, size: int, min_area: float, rng: np.random.Generator
) -> Example:
    """Cuts a random window and resizes it to `size` x `size`.

    Args:
      example: decoded, of any shape.
      size: side of the result, in pixels.
      min_area: see `random_window`.
      rng: draws the window.
    """
    height, width = example["image"].shape[:2]
    window = random_window(height, width, min_area, rng)
    return resize(crop(example, *window), size, size)


def random_window(
    height: int, width: int, min_area: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draws a window as torchvision's `RandomResizedCrop` does.

    Its area is uniform in [`min_area`, 1] of the image's, its aspect ratio log-uniform
    in [3/4, 4/3]; after ten windows that do not fit, the largest centred one of an
    allowed ratio is taken.

    Args:
      height: of the image, in pixels.
      width: of the image, in pixels.
      min_area: smallest part of the image's area, in (0, 1].
      rng: draws the window.

    Returns:
      The window's top, left, height and width, in pixels.
    """
    low, high = 3 / 4, 4 / 3
    for _ in range(10):
        area = rng.uniform(min_area, 1.0) * height * width
        ratio = math.exp(rng.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return (
                int(rng.integers(height - h + 1)),
                int(rng.integers(width - w + 1)),
                h,
                w,
            )
    w = min(width, round(height * high))
    h = min(height, round(width / low))
    return (height - h) // 2, (width - w) // 2, h, w


def flip(example: Example) -> Example:
    """Mirrors left and right."""
    boxes = example["boxes"]
    mirrored = np.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]], 1)
    # OpenCV copies; numpy's view would be copied later, ten times slower.
    flipped = example | {"image": cv2.flip(example["image"], 1), "boxes": mirrored}
    return flipped | _changed_masks(example, lambda mask: mask[:, ::-1])


def random_flip(example: Example, rng: np.random.Generator) -> Example:
    """Mirrors left and right in half of the cases."""
    return flip(example) if rng.random() < 0.5 else example


def random_erasing(
    example: Example, probability: float, rng: np.random.Generator
) -> Example:
    """Fills a random rectangle of the image with noise (Zhong et al., 1708.04896).

    The rectangle's area is uniform in [0.02, 0.4] of the image's, its aspect ratio
    log-uniform in [0.3, 1/0.3] as in the paper's table 1. Masks lose what is erased;
    boxes stay.

    Args:
      example: decoded.
      probability: of erasing at all, in [0, 1].
      rng: draws the rectangle and the noise.
    """
    if rng.random() >= probability:
        return example
    height, width = example["image"].shape[:2]
    area = rng.uniform(0.02, 0.4) * height * width
    ratio = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
    h = min(height, max(1, round(math.sqrt(area * ratio))))
    w = min(width, max(1, round(math.sqrt(area / ratio))))
    top, left = rng.integers(0, (height - h + 1, width - w + 1))
    window = (slice(top, top + h), slice(left, left + w))
    image = example["image"].copy()
    image[window] = rng.integers(0, 256, (h, w, 3), np.uint8)
    visible = np.ones((height, width), bool)
    visible[window] = False
    erased = example | {"image": image}
    return erased | _changed_masks(example, lambda mask: mask & visible)


def pad_boxes(example: Example, count: int) -> Example:
    """Pads the boxes to `count` rows, so that examples can be stacked.

    Raises:
      ValueError: if the example has more boxes, because none may be lost silently.
    """
    given = len(example["boxes"])
    if given > count:
        raise ValueError(f"{given} boxes do not fit into {count} rows")
    boxes = np.zeros((count, 4), np.float32)
    valid = np.zeros(count, bool)
    pixels = np.full((count, 4), -1, np.int32)
    boxes[:given] = example["boxes"]
    valid[:given] = example["boxes_valid"]
    pixels[:given] = example["boxes_pixels"]
    return example | {"boxes": boxes, "boxes_valid": valid, "boxes_pixels": pixels}


def train_example(
    example: Example,
    rng: np.random.Generator,
    *,
    image_size: int,
    min_area: float,
    flip: bool,
    erasing_probability: float,
    max_boxes: int,
    num_classes: int,
) -> Example:
    """Turns an undecoded example of a source into an augmented row of a batch."""
    example = random_resized_crop(decode(example), image_size, min_area, rng)
    if flip:
        example = random_flip(example, rng)
    if erasing_probability:
        example = random_erasing(example, erasing_probability, rng)
    return _row(pad_boxes(example, max_boxes), num_classes)


def eval_example(
    example: Example,
    *,
    image_size: int,
    resize_to: int,
    max_boxes: int,
    num_classes: int,
) -> Example:
    """Turns an undecoded example of a source into a row of a batch, by rule."""
    example = resize_and_centre_crop(decode(example), resize_to, image_size)
    return _row(pad_boxes(example, max_boxes), num_classes)


def _row(example: Example, num_classes: int) -> Example:
    row = example | {"label": np.int32(example["label"]), "valid": np.True_}
    if "other_labels" in row:
        row["present"] = np.zeros(num_classes, bool)
        row["present"][[example["label"], *row.pop("other_labels")]] = True
    del row["file_name"]
    return row
