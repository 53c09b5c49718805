"""The saliency metric: how small a crop still shows a classifier the class.

Dabkowski and Gal, "Real time image saliency for black box classifiers", arXiv
1705.07857: of an image's predicted box, with the share a of the image that it covers
and the probability p of the true class that a classifier gives to what it shows,

    s = log(max(a, 0.05)) - log p

in nats; lower is better. They published no code of it. As in the scorer of Phang, Park
and Geras (arXiv 2010.09750), the crop is cut from the image at the classifier's input
size and resized to that size, and an image without a predicted box is answered by the
mean colour alone, with the least area. Resizing is bilinear here and cubic there: a
crop is never made smaller, and bilinear values stay within those of the image.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

AREA_FLOOR = 0.05


class SaliencyMetric(NamedTuple):
    """The metric's parts for each image.

    log_area: of the box's share of the image, at least `AREA_FLOOR`, in nats.
    log_probability: of the true class in the crop, in nats.
    correct: whether the classifier has the crop's class right.
    """

    log_area: Float[np.ndarray, "B"]
    log_probability: Float[np.ndarray, "B"]
    correct: Bool[np.ndarray, "B"]

    @property
    def score(self) -> Float[np.ndarray, "B"]:
        """The metric itself, from log 0.05 upwards."""
        return self.log_area - self.log_probability


def log_areas(boxes: Int[np.ndarray, "B 4"], size: int) -> Float[np.ndarray, "B"]:
    """Returns the logarithms of the boxes' shares of the image, at least `AREA_FLOOR`.

    Args:
      boxes: `ymin, xmin, ymax, xmax`, half-open, inside the image; empty ones count
        as the least area.
      size: side in pixels of the image that they refer to.
    """
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return np.log(np.maximum(height * width / size**2, AREA_FLOOR))


def crops(
    images: UInt8[np.ndarray, "B S S 3"],
    boxes: Int[np.ndarray, "B 4"],
    size: int,
    mean: tuple[float, ...],
) -> UInt8[np.ndarray, "B S S 3"]:
    """Cuts the boxes out and enlarges them to the images' size, bilinearly.

    Args:
      images: to cut from.
      boxes: `ymin, xmin, ymax, xmax`, half-open, inside the image. Edges that fall
        between two pixels of `images` move outwards.
      size: side in pixels of the image that the boxes refer to.
      mean: the colour in [0, 1], rounded here, that stands for an empty box.
    """
    side = images.shape[1]
    is_empty = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    low, high = boxes[:, :2] * side // size, -(-boxes[:, 2:] * side // size)
    out = np.empty_like(images)
    for index, image in enumerate(images):
        if is_empty[index]:
            out[index] = np.round(255 * np.asarray(mean))
            continue
        (top, left), (bottom, right) = low[index], high[index]
        crop = image[top:bottom, left:right]
        cv2.resize(crop, (side, side), dst=out[index], interpolation=cv2.INTER_LINEAR)
    return out
