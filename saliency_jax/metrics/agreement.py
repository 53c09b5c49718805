"""How much two maps of one image say the same."""

import numpy as np
import scipy.stats
from jaxtyping import Float


def rank_correlation(
    maps: Float[np.ndarray, "B H W"], others: Float[np.ndarray, "B H W"]
) -> Float[np.ndarray, "B"]:
    """Spearman's rank correlation of each map with another of the same image.

    In [-1, 1]; 0 where a map is constant, which has no order.
    """
    correlations = []
    for one, other in zip(maps, others, strict=True):
        if np.ptp(one) == 0 or np.ptp(other) == 0:
            correlations.append(0.0)
        else:
            correlations.append(scipy.stats.spearmanr(one, other, axis=None).statistic)
    return np.asarray(correlations, np.float64)
