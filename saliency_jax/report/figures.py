"""Pictures of masks: the strip of a training run and the grids of the CASM paper.

Removed pixels show one fill everywhere: the data set's mean colour, the colour that the
masked image has in training (there it is zero after normalisation). Functions here take
and return plain numpy arrays; small images are enlarged to a readable size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, Num, UInt8

from saliency_jax.errors import InputError
from saliency_jax.inpainting import inpaint_telea

READABLE_SIDE = 144  # the least side of a cell in pixels
GAP = 4
HEADER = 24
LABEL_WIDTH = 132
TEXT_SCALE = 0.45
LINE = 18

INK = (40, 40, 40)
FILED = (40, 220, 60)
PREDICTED = (255, 50, 50)


class Caption(NamedTuple):
    """What stands above a picture.

    Attributes:
      name: perhaps several, with commas; cut where there is no room.
      number: stands behind it, whole.
    """

    name: str
    number: str


def picture_strip(
    images: Num[np.ndarray, "B H W 3"],
    masks: Float[np.ndarray, "B H W"],
    mean: Sequence[float],
) -> UInt8[np.ndarray, "P Q 3"]:
    """Draws one row per image: image, mask, masked-in, masked-out.

    Args:
      images: RGB, `uint8` or float in [0, 1].
      masks: in [0, 1], 1 = salient.
      mean: the data set's mean colour in [0, 1], the fill of removed pixels.
    """
    rows = []
    for image, mask in zip(as_uint8(images), masks, strict=True):
        large, large_mask = enlarge_smoothly(image), _enlarge(mask)
        grey = np.repeat(_round_to_uint8(255.0 * large_mask)[..., None], 3, axis=-1)
        pair = masked_pair(large, large_mask, mean)
        rows.append(join([large, grey, *pair], axis=1))
    labels = ["image", "mask", "masked-in", "masked-out"]
    return with_header(join(rows, axis=0), labels)


def localisation_grid(
    images: Num[np.ndarray, "B H W 3"],
    binary: Bool[np.ndarray, "B H W"],
    predicted: Int[np.ndarray, "B 4"],
    filed: Sequence[Int[np.ndarray, "_ 4"]],
    captions: Sequence[str],
    mean: Sequence[float],
) -> UInt8[np.ndarray, "P Q 3"]:
    """Draws one column per image, as in the CASM paper.

    From top to bottom: the image with its boxes, masked-in, masked-out, and masked-out
    with the hole inpainted, all with the binary mask.

    Args:
      images: RGB, `uint8` or float in [0, 1].
      binary: True = salient.
      predicted: `ymin, xmin, ymax, xmax`, half-open, in pixels; drawn if not empty.
      filed: of each image its ground-truth boxes, `xmin, ymin, xmax, ymax` in pixels of
        this image; parts outside it are not drawn.
      captions: what stands above each image, cut to its width.
      mean: the data set's mean colour in [0, 1], the fill of removed pixels.
    """
    columns = []
    for image, mask, box, truth in zip(
        as_uint8(images), binary, predicted, filed, strict=True
    ):
        large = enlarge_smoothly(image)
        inpainted = enlarge_smoothly(inpaint_telea(image, mask, mean))
        scale = large.shape[0] // image.shape[0]
        boxes = [(edges, FILED) for edges in truth]
        if box.any():
            boxes.append((box[[1, 0, 3, 2]], PREDICTED))
        cells = [
            draw_boxes(large, [(edges * scale, ink) for edges, ink in boxes], 2),
            *masked_pair(large, _enlarge(mask), mean),
            inpainted,
        ]
        columns.append(join(cells, axis=0))
    body = with_header(join(columns, axis=1), captions)
    return np.concatenate([_row_labels(body.shape[0]), body], axis=1)


def class_grid(
    images: Sequence[Num[np.ndarray, "H W 3"]],
    masks: Sequence[Float[np.ndarray, "C H W"]],
    captions: Sequence[Sequence[str]],
    mean: Sequence[float],
) -> UInt8[np.ndarray, "P Q 3"]:
    """Draws one row per image: the image, and what its mask for each class keeps.

    Args:
      images: RGB, `uint8` or float in [0, 1], all of one size.
      masks: of each image as many as of the others, in [0, 1], 1 = salient.
      captions: of each image what stands above its masks.
      mean: the data set's mean colour in [0, 1], the fill of removed pixels.
    """
    rows = []
    for image, of_image, names in zip(images, masks, captions, strict=True):
        large = enlarge_smoothly(as_uint8(image[None])[0])
        kept = [masked_pair(large, _enlarge(mask), mean)[0] for mask in of_image]
        row = join([large, *kept], axis=1)
        rows.append(with_header(row, ["image", *names]))
    return join(rows, axis=0)


def masked_pair(
    image: UInt8[np.ndarray, "H W 3"],
    mask: Num[np.ndarray, "H W"] | Bool[np.ndarray, "H W"],
    mean: Sequence[float],
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W 3"]]:
    """Returns the masked-in and the masked-out image, filled with the mean colour."""
    fill = 255.0 * np.asarray(mean, np.float32)
    keep = mask.astype(np.float32)[..., None]
    masked_in = keep * image + (1 - keep) * fill
    masked_out = (1 - keep) * image + keep * fill
    return _round_to_uint8(masked_in), _round_to_uint8(masked_out)


def save_png(path: Path, picture: UInt8[np.ndarray, "H W 3"]) -> None:
    """Writes an RGB picture.

    Raises:
      InputError: if the file cannot be written.
    """
    # imencode instead of imwrite, which only warns about a path it cannot write.
    encoded = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1]
    try:
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def as_uint8(images: Num[np.ndarray, "B H W 3"]) -> UInt8[np.ndarray, "B H W 3"]:
    return images if images.dtype == np.uint8 else _round_to_uint8(255.0 * images)


def _round_to_uint8(values: Num[np.ndarray, "*S"]) -> UInt8[np.ndarray, "*S"]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _scale(picture: np.ndarray) -> int:
    return -(-READABLE_SIDE // min(*picture.shape[:2], READABLE_SIDE))


def _enlarge(mask: np.ndarray) -> np.ndarray:
    """Repeats a mask's pixels, so that its grid stays visible."""
    return mask.repeat(_scale(mask), axis=0).repeat(_scale(mask), axis=1)


def enlarge_smoothly(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "P Q 3"]:
    scale = _scale(image)
    if scale == 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def join(parts: Sequence[np.ndarray], axis: int) -> UInt8[np.ndarray, "P Q 3"]:
    """Puts pictures side by side or below each other, white between them."""
    shape = list(parts[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, 255, np.uint8)
    separated = [piece for part in parts for piece in (gap, part)]
    return np.concatenate(separated[1:], axis=axis)


def _text_width(text: str) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, TEXT_SCALE, 1)[0][0]


def _write(picture: np.ndarray, text: str, x: int, y: int) -> None:
    """Writes text with the base line at y."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(picture, text, (x, y), font, TEXT_SCALE, INK, 1, cv2.LINE_AA)


def fitting(label: str | Caption, width: int) -> str:
    """As much of a label as is no wider, in pixels; of a caption's names the first."""
    name, number = label if isinstance(label, Caption) else (label, "")
    behind = f" {number}" * bool(number)
    if number and _text_width(name + behind) > width:
        name = name.split(",")[0]
    text = name + behind
    while name and _text_width(text) > width:
        name = name[:-1]
        text = f"{name}..{behind}"
    return text


def with_header(
    body: UInt8[np.ndarray, "P Q 3"], labels: Sequence[str | Caption]
) -> UInt8[np.ndarray, "_ Q 3"]:
    header = np.full((HEADER, body.shape[1], 3), 255, np.uint8)
    step = (body.shape[1] + GAP) // len(labels)
    for column, label in enumerate(labels):
        text = fitting(label, step - 2 * GAP)
        _write(header, text, column * step + 2, HEADER - 8)
    return np.concatenate([header, body])


def _row_labels(height: int) -> UInt8[np.ndarray, "P Q 3"]:
    """The column of names beside a grid, with the key to the boxes' colours."""
    labels = np.full((height, LABEL_WIDTH, 3), 255, np.uint8)
    names = (("image",), ("masked-in",), ("masked-out",), ("masked-out,", "inpainted"))
    step = (height - HEADER + GAP) / len(names)
    for row, lines in enumerate(names):
        middle = HEADER + int((row + 0.5) * step)
        for number, line in enumerate(lines):
            _write(labels, line, GAP, middle + number * LINE)
    first = HEADER + int(0.5 * step)
    for number, (name, colour) in enumerate(
        (("ground truth", FILED), ("predicted", PREDICTED)), start=1
    ):
        y = first + number * LINE + GAP
        cv2.line(labels, (GAP, y - 4), (GAP + 12, y - 4), colour, 2)
        _write(labels, name, GAP + 18, y)
    return labels


def draw_boxes(
    picture: UInt8[np.ndarray, "P Q 3"],
    boxes: Sequence[tuple[Sequence[int] | Int[np.ndarray, "4"], tuple[int, int, int]]],
    thickness: int,
) -> UInt8[np.ndarray, "P Q 3"]:
    """Draws boxes, `xmin, ymin, xmax, ymax` half-open in pixels, each in its colour."""
    drawn = picture.copy()
    for edges, colour in boxes:
        xmin, ymin, xmax, ymax = map(int, edges)
        cv2.rectangle(drawn, (xmin, ymin), (xmax - 1, ymax - 1), colour, thickness)
    return drawn
