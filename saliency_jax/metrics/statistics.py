"""What the masks themselves look like: area, crispness, smoothness. Per image."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class MaskStatistics(NamedTuple):
    """Figures of each mask of a batch.

    area: the mean value, the share of the image that is kept, in [0, 1].
    entropy: mean binary entropy of a pixel in bits, in [0, 1]; 0 for a binary mask. The
      published scorer prints only the half `-m log2 m` of it, so its figure is another.
    total_variation: mean squared difference of horizontal neighbours plus that of
      vertical neighbours, in [0, 2], as the published scorer has it.
    """

    area: Float[np.ndarray, "B"]
    entropy: Float[np.ndarray, "B"]
    total_variation: Float[np.ndarray, "B"]


def mask_statistics(masks: Float[np.ndarray, "B H W"]) -> MaskStatistics:
    """Measures soft masks in [0, 1]."""
    tiny = np.finfo(np.float32).tiny  # 0 log 0 is 0
    bits = masks * np.log(np.maximum(masks, tiny))
    bits += (1 - masks) * np.log(np.maximum(1 - masks, tiny))
    horizontal = np.square(np.diff(masks, axis=2)).mean(axis=(1, 2), dtype=np.float64)
    vertical = np.square(np.diff(masks, axis=1)).mean(axis=(1, 2), dtype=np.float64)
    return MaskStatistics(
        area=masks.mean(axis=(1, 2), dtype=np.float64),
        entropy=-bits.mean(axis=(1, 2), dtype=np.float64) / np.log(2),
        total_variation=horizontal + vertical,
    )


def rectangle_statistics(
    rectangles: Int[np.ndarray, "B 4"], size: int
) -> MaskStatistics:
    """Measures the binary masks of rectangles without drawing them.

    Args:
      rectangles: `ymin, xmin, ymax, xmax`, half-open, inside the crop.
      size: side of the crop in pixels.
    """
    top, left, bottom, right = rectangles.T
    height, width = bottom - top, right - left
    edges = width * ((top > 0).astype(int) + (bottom < size))
    edges = edges + height * ((left > 0).astype(int) + (right < size))
    edges = edges * ((height > 0) & (width > 0))  # an empty one has none
    return MaskStatistics(
        area=height * width / size**2,
        entropy=np.zeros(len(rectangles)),
        total_variation=edges / (size * (size - 1)),
    )
