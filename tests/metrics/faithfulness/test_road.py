"""ROAD: what is filled in solves the paper's equations; both orders, and a twin."""

import jax
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.faithfulness.road import impute, road
from tests.metrics.faithfulness import linear_classifier as linear


def weight(place, other):
    """Of a neighbour in the mean around a place."""
    distance = sum(abs(a - b) for a, b in zip(place, other, strict=True))
    far = max(abs(a - b) for a, b in zip(place, other, strict=True)) > 1
    return 0 if far else {0: 0, 1: 1 / 6, 2: 1 / 12}[distance]


def dense_impute(image, removed):
    """One equation for each pixel, with all weights written out."""
    places = list(np.ndindex(removed.shape))
    weights = np.array([[weight(p, q) for q in places] for p in places])
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.eye(len(places)) - removed.ravel()[:, None] * weights
    known = np.where(removed[..., None], 0, image).reshape(len(places), -1)
    return np.linalg.solve(matrix, known).reshape(image.shape)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_the_papers_equations(share):
    random = np.random.default_rng(0)
    image = random.uniform(size=(6, 7, 3))
    removed = np.zeros(42, bool)
    removed[random.permutation(42)[: max(1, int(share * 42))]] = True
    removed = removed.reshape(6, 7)
    filled = impute(image, removed)
    np.testing.assert_allclose(filled, dense_impute(image, removed), atol=1e-12)


def test_slopes_stay():
    """A plane is the mean of its surroundings everywhere but at the border."""
    rows, columns = np.mgrid[:12, :10]
    image = np.stack([0.05 * rows + 0.02 * columns, np.full((12, 10), 0.3)], axis=-1)
    removed = np.zeros((12, 10), bool)
    removed[3:9, 2:8] = True
    np.testing.assert_allclose(impute(image, removed), image, atol=1e-12)
    corner = np.zeros((12, 10), bool)
    corner[:3, :3] = True
    filled = impute(image, corner)
    assert abs(filled - image)[..., 0].max() > 0.01
    np.testing.assert_allclose(filled[..., 1], image[..., 1], atol=1e-12)


def test_twin():
    key = jax.random.key(2)
    shares = (0.25, 0.5)
    arguments = linear.classifier(), linear.IMAGES, linear.MAPS, linear.TARGETS
    found = road(*arguments, key=key, shares=shares)
    rows = np.arange(3), linear.TARGETS
    before = linear.probabilities(linear.IMAGES)[rows]
    order = np.argsort(-linear.MAPS.reshape(3, -1), axis=1, kind="stable")
    changes = np.zeros((2, 3, 2))
    for sample in range(4):
        best, number = sample < 2, sample % 2
        noise = 0.01 * jax.random.normal(
            jax.random.fold_in(key, sample), linear.IMAGES.shape[1:]
        )
        edited = linear.IMAGES.copy()
        count = (10, 21)[number]  # of 42, to the even number of 10.5
        for i in range(3):
            removed = np.zeros(42, bool)
            removed[order[i, :count] if best else order[i, -count:]] = True
            removed = removed.reshape(linear.SIZE)
            edited[i] = dense_impute(edited[i], removed) + removed[..., None] * noise
        after = linear.probabilities(edited)[rows]
        changes[0 if best else 1, :, number] = after - before
    np.testing.assert_allclose(found.most_relevant_first, changes[0], atol=1e-5)
    np.testing.assert_allclose(found.least_relevant_first, changes[1], atol=1e-5)
    combined = (changes[1] - changes[0]).mean(axis=1) / 2
    np.testing.assert_allclose(found.combined, combined, atol=1e-5)


def test_order():
    perfect = linear.contributions()
    of_perfect, of_constant, of_worst = (
        np.asarray(
            road(
                linear.classifier(),
                linear.IMAGES,
                factor * perfect,
                linear.TARGETS,
                shares=(0.25, 0.5),
            ).combined
        )
        for factor in (1, 0, -1)
    )
    assert (of_perfect > np.maximum(0, of_constant)).all()
    assert (of_worst < np.minimum(0, of_constant)).all()


def test_errors():
    call = lambda **options: road(
        linear.classifier(), linear.IMAGES, linear.MAPS, **options
    )
    with pytest.raises(InputError, match="share 0.0: expected above 0 and below 1"):
        call(shares=(0.0,))
    with pytest.raises(InputError, match="shares is 0: it must be at least 1"):
        call(shares=())
