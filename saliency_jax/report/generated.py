"""Pictures of generated images: a sheet of samples, and variations of pictures."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Num, UInt8

from saliency_jax.report.figures import (
    FILED,
    GAP,
    PREDICTED,
    as_uint8,
    enlarge_smoothly,
    join,
    with_header,
)

COLUMNS = 8


def image_sheet(images: Num[np.ndarray, "B H W 3"]) -> UInt8[np.ndarray, "P Q 3"]:
    """Draws images in rows of eight, at their own size.

    Args:
      images: RGB, `uint8` or float in [0, 1], a multiple of eight.
    """
    drawn = as_uint8(images)
    rows = [
        join(list(drawn[first : first + COLUMNS]), axis=1)
        for first in range(0, len(drawn), COLUMNS)
    ]
    return join(rows, axis=0)


def variation_grid(
    images: Num[np.ndarray, "B H W 3"],
    regions: Bool[np.ndarray, "B H W"],
    variations: Num[np.ndarray, "B R H W 3"],
    captions: Sequence[Sequence[str]],
    same: Bool[np.ndarray, "B R"],
) -> UInt8[np.ndarray, "P Q 3"]:
    """Draws one row per image: the image, the region in it, and its variations.

    A variation that is still called the same class has a green frame, another a red
    one.

    Args:
      images: RGB, `uint8` or float in [0, 1].
      regions: what is generated, outlined in the second picture.
      variations: likewise RGB.
      captions: of each row what stands above the image, the region and the variations.
      same: whether a variation is still called the same class.
    """
    rows = []
    for image, region, of_image, names, kept in zip(
        as_uint8(images), regions, variations, captions, same, strict=True
    ):
        large = enlarge_smoothly(image)
        cells = [large, _outlined(large, region)]
        for variation, is_same in zip(as_uint8(of_image), kept, strict=True):
            colour = FILED if is_same else PREDICTED
            cells.append(_framed(enlarge_smoothly(variation), colour))
        rows.append(with_header(join(cells, axis=1), list(names)))
    return join(rows, axis=0)


def _framed(
    picture: UInt8[np.ndarray, "P Q 3"], colour: tuple[int, int, int]
) -> UInt8[np.ndarray, "P Q 3"]:
    framed = picture.copy()
    edges = picture.shape[1] - 1, picture.shape[0] - 1
    return cv2.rectangle(framed, (0, 0), edges, colour, GAP)


def _outlined(
    picture: UInt8[np.ndarray, "P Q 3"], region: Bool[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "P Q 3"]:
    large = cv2.resize(
        region.astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST
    )
    contours, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(picture.copy(), contours, -1, PREDICTED, 2)
