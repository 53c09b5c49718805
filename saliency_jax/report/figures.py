"""Pictures of masks: the strip of a training run and the grids of the CASM paper.

Removed pixels show one fill everywhere: the data set's mean colour, the colour that the
masked image has in training (there it is zero after normalisation). Functions here take
and return plain numpy arrays.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Num, UInt8

from saliency_jax.errors import InputError

CELL = 144  # smallest side of a cell, in pixels; smaller images are enlarged
GAP = 4
INK = (40, 40, 40)

FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_SCALE = 0.45
LINE_HEIGHT = 18
HEADER = 24


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
    pictures = _as_uint8(images)
    rows = []
    for picture, mask in zip(pictures, masks, strict=True):
        cells = [picture, grey(mask), *masked_pair(picture, mask, mean)]
        rows.append(_row(_enlarge(cell) for cell in cells))
    return _with_header(_stack(rows), ["image", "mask", "masked-in", "masked-out"])


def masked_pair(
    image: UInt8[np.ndarray, "H W 3"],
    mask: Num[np.ndarray, "H W"] | Bool[np.ndarray, "H W"],
    mean: Sequence[float],
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W 3"]]:
    """Returns `image * mask` and `image * (1 - mask)`, the rest in the mean colour."""
    fill = 255.0 * np.asarray(mean, np.float32)
    kept = np.asarray(mask, np.float32)[..., None]
    masked_in = kept * image + (1 - kept) * fill
    masked_out = (1 - kept) * image + kept * fill
    return _round_to_uint8(masked_in), _round_to_uint8(masked_out)


def grey(mask: Num[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Returns a mask in [0, 1] as a grey picture; white is salient."""
    return np.repeat(_round_to_uint8(255.0 * mask)[..., None], 3, axis=-1)


def save_png(path: Path, picture: UInt8[np.ndarray, "H W 3"]) -> None:
    """Writes an RGB picture; raises `InputError` when the place is not writable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # imencode instead of imwrite: OpenCV only warns about a path it cannot write.
    encoded = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1]
    try:
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _as_uint8(images: Num[np.ndarray, "*B H W 3"]) -> UInt8[np.ndarray, "*B H W 3"]:
    if images.dtype == np.uint8:
        return images
    return _round_to_uint8(255.0 * images)


def _round_to_uint8(values: Num[np.ndarray, "*S"]) -> UInt8[np.ndarray, "*S"]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _scale(side: int) -> int:
    return max(1, -(-CELL // side))


def _enlarge(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "P Q 3"]:
    scale = _scale(min(picture.shape[:2]))
    if scale == 1:
        return picture
    # Nearest, so that a mask's own pixels stay visible.
    return np.repeat(np.repeat(picture, scale, axis=0), scale, axis=1)


def _row(cells) -> UInt8[np.ndarray, "P Q 3"]:
    cells = list(cells)
    gap = np.full((cells[0].shape[0], GAP, 3), 255, np.uint8)
    parts = [part for cell in cells for part in (cell, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _stack(rows: Sequence[UInt8[np.ndarray, "_ Q 3"]]) -> UInt8[np.ndarray, "P Q 3"]:
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    parts = [part for row in rows for part in (row, gap)]
    return np.concatenate(parts[:-1], axis=0)


def _write(picture: UInt8[np.ndarray, "P Q 3"], text: str, x: int, y: int) -> None:
    cv2.putText(picture, text, (x, y), FONT, FONT_SCALE, INK, 1, cv2.LINE_AA)


def _with_header(
    body: UInt8[np.ndarray, "P Q 3"], labels: Sequence[str]
) -> UInt8[np.ndarray, "_ Q 3"]:
    header = np.full((HEADER, body.shape[1], 3), 255, np.uint8)
    step = (body.shape[1] + GAP) / len(labels)
    for column, label in enumerate(labels):
        _write(header, label, int(column * step) + 2, LINE_HEIGHT - 2)
    return np.concatenate([header, body])
