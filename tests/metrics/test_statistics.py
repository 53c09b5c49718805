import numpy as np

from saliency_jax.metrics.statistics import mask_statistics, rectangle_statistics


def test_hand_computed_figures():
    flat = np.full((1, 4, 4), 0.25, np.float32)
    board = (np.indices((4, 4)).sum(axis=0) % 2)[None].astype(np.float32)
    ramp = np.array([[[0, 0.5, 1]] * 3], np.float32)
    # -(1/4 log2 1/4 + 3/4 log2 3/4) = 0.811278 bits
    for mask, area, entropy, variation in (
        (flat, 0.25, 0.8112781, 0.0),
        (board, 0.5, 0.0, 2.0),
        (ramp, 0.5, 1 / 3, 0.25),
    ):
        figures = mask_statistics(mask)
        np.testing.assert_allclose(figures.area, [area])
        np.testing.assert_allclose(figures.entropy, [entropy], atol=1e-6)
        np.testing.assert_allclose(figures.total_variation, [variation])


def test_rectangles_measure_as_their_masks():
    rectangles = np.array(
        [
            [0, 0, 9, 9],
            [2, 3, 5, 9],
            [0, 1, 4, 2],
            [0, 0, 0, 0],
            [2, 4, 6, 4],  # without a width, and outside the crop
            [9, 2, 9, 5],
        ]
    )
    masks = np.zeros((6, 9, 9), np.float32)
    for mask, (top, left, bottom, right) in zip(masks, rectangles, strict=True):
        mask[top:bottom, left:right] = 1
    for drawn, direct in zip(
        mask_statistics(masks), rectangle_statistics(rectangles, 9), strict=True
    ):
        np.testing.assert_allclose(drawn, direct, atol=1e-7)
