"""How few pixels carry a map: its Gini index and its entropy, both of absolute values.

Sparseness: Chalasani et al., Concise explanations of neural networks using adversarial
training (arXiv 1810.06583). Complexity: Bhatt, Weller and Moura, Evaluating and
aggregating feature-based model explanations (arXiv 2005.00631).
"""

import numpy as np
import scipy.special
from jaxtyping import Float, Num


def sparseness(maps: Num[np.ndarray, "B H W"]) -> Float[np.ndarray, "B"]:
    """Returns the Gini index of the absolute values of each map.

    In [0, 1 - 1 / (H W)]: 0 where all are equal, also where all are zero; the most
    where one pixel has all. Higher is more concentrated, and better by this metric.
    """
    values = np.sort(np.abs(_rows(maps)), axis=1)
    count = values.shape[1]
    weights = 2 * np.arange(1, count + 1) - count - 1
    totals = values.sum(axis=1)
    return values @ weights / (count * np.where(totals > 0, totals, 1))


def complexity(maps: Num[np.ndarray, "B H W"]) -> Float[np.ndarray, "B"]:
    """Returns the entropy of the pixels' shares of each map, in nats.

    A pixel's share is its absolute value's part of the sum. In [0, ln(H W)]: 0 where
    one pixel has all; the most where all are equal, also where all are zero. Lower is
    better by this metric.
    """
    values = np.abs(_rows(maps))
    values[values.sum(axis=1) == 0] = 1
    shares = values / values.sum(axis=1, keepdims=True)
    return scipy.special.entr(shares).sum(axis=1)


def _rows(maps: Num[np.ndarray, "B H W"]) -> Float[np.ndarray, "B L"]:
    return np.asarray(maps, np.float64).reshape(len(maps), -1)
