"""Rank correlation by hand."""

import numpy as np

from saliency_jax.metrics.agreement import rank_correlation


def test_by_hand():
    maps = np.array([[[1.0, 2], [3, 4]]] * 4, np.float32)
    others = np.array(
        [[[10.0, 20], [30, 90]], [[4, 3], [2, 1]], [[2, 1], [3, 4]], [[5, 5], [5, 5]]],
        np.float32,
    )
    # The third has two neighbours exchanged: 1 - 6 * (1 + 1) / (4 * 15).
    np.testing.assert_allclose(rank_correlation(maps, others), [1, -1, 0.8, 0])
