"""Removed pixels filled from what surrounds them; numpy and OpenCV, without JAX."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

RADIUS = 3  # in pixels, of CASM's evaluation (casme, eval.py)


def inpaint_telea(
    image: UInt8[np.ndarray, "H W 3"],
    removed: Bool[np.ndarray, "H W"],
    mean: Sequence[float],
) -> UInt8[np.ndarray, "H W 3"]:
    """Fills the removed pixels from their surroundings by Telea's method.

    Args:
      image: any order of channels.
      removed: True where to fill; other pixels stay as they are.
      mean: the colour in [0, 1] of an image that is removed as a whole. It has no
        surroundings, and OpenCV would return it untouched.
    """
    if removed.all():
        colour = np.rint(255.0 * np.asarray(mean)).astype(np.uint8)
        return np.broadcast_to(colour, image.shape)
    return cv2.inpaint(image, removed.astype(np.uint8), RADIUS, cv2.INPAINT_TELEA)
