"""Areas and intersections of boxes, in whole pixels so that a tie is a tie everywhere.

Boxes have half-open edges: a box from 2 to 5 has three pixels. All boxes of a call
have their two axes in one order, whichever it is.
"""

import numpy as np
from jaxtyping import Int


def areas(boxes: Int[np.ndarray, "*B 4"]) -> Int[np.ndarray, "*B"]:
    """Returns the pixels of each box; the edges are low, low, high, high."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersections(
    boxes: Int[np.ndarray, "*#B 4"], others: Int[np.ndarray, "*#B 4"]
) -> Int[np.ndarray, "*#B"]:
    """Returns the pixels that boxes share with others, 0 where they do not meet."""
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    return np.maximum(high - low, 0).prod(axis=-1)


def unions(
    boxes: Int[np.ndarray, "*#B 4"], others: Int[np.ndarray, "*#B 4"]
) -> Int[np.ndarray, "*#B"]:
    """Returns the pixels that are in a box, in the other, or in both."""
    return areas(boxes) + areas(others) - intersections(boxes, others)
