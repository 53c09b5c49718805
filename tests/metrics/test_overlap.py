import numpy as np

from saliency_jax.metrics.overlap import areas, intersections, unions


def test_agrees_with_sets_of_pixels():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 5, (200, 2, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 6, low.shape)], axis=-1)
    sets = [
        [
            {(i, j) for i in range(a, c) for j in range(b, d)}
            for a, b, c, d in pair.tolist()
        ]
        for pair in boxes
    ]
    one, other = boxes[:, 0], boxes[:, 1]
    np.testing.assert_array_equal(areas(one), [len(a) for a, _ in sets])
    np.testing.assert_array_equal(
        intersections(one, other), [len(a & b) for a, b in sets]
    )
    np.testing.assert_array_equal(unions(one, other), [len(a | b) for a, b in sets])


def test_each_with_each():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 4]])
    expected = [[4, 1], [1, 6]]
    shared = intersections(boxes[:, None], boxes[None])
    np.testing.assert_array_equal(shared, expected)
