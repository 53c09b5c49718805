"""The taught boxes: what is linear is learnt, and no image teaches its own box."""

import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.evaluation.comparison.box_regressor import (
    PENALTIES,
    cross_fitted,
    fit_ridge,
    supervised,
)
from saliency_jax.evaluation.comparison.passes import Setting


def test_what_it_is_measured_by_again():
    """What it learnt from: as many images, and boxes by the same convention."""
    setting = Setting(None, 16, None, 6, 2, 1, 0, {})
    origins = [
        supervised(setting._replace(count=count), convention).origin
        for count in (6, 14)
        for convention in ("inclusive", "casm")
    ]
    assert len(set(origins)) == 4


def test_a_linear_law_is_learnt_from_the_other_half():
    random = np.random.default_rng(0)
    features = random.normal(size=(200, 30)).astype(np.float32)
    law = random.normal(size=(30, 4))
    boxes = np.rint(10 * features @ law + 50).astype(int)
    predicted = cross_fitted(features, boxes, np.ones(200, bool))
    assert np.abs(predicted - boxes).mean() < 1


def test_boxes_without_a_law_are_not_remembered():
    random = np.random.default_rng(0)
    features = random.normal(size=(100, 300)).astype(np.float32)
    boxes = random.integers(0, 100, (100, 4))
    predicted = cross_fitted(features, boxes, np.ones(100, bool))
    # More features than images could remember every box; the mean is the best guess.
    error = np.square(predicted - boxes).mean()
    assert error > 0.9 * boxes.var(axis=0).mean()


def test_images_without_a_box_teach_nothing():
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 5)).astype(np.float32)
    boxes = np.rint(features @ random.normal(size=(5, 4))).astype(int)
    boxed = np.arange(60) % 3 != 0
    changed = np.where(boxed[:, None], boxes, 1000)
    np.testing.assert_array_equal(
        cross_fitted(features, boxes, boxed), cross_fitted(features, changed, boxed)
    )
    with pytest.raises(InputError, match="3 images have one: evaluate at least four"):
        cross_fitted(features, boxes, np.arange(60) < 3)


def test_the_penalty_is_the_one_that_leaving_each_image_out_prefers():
    random = np.random.default_rng(1)
    features = random.normal(size=(12, 40))
    targets = features[:, :4] + random.normal(size=(12, 4))

    def fitted(chosen, penalty):
        x = features[chosen] - features[chosen].mean(axis=0)
        y = targets[chosen] - targets[chosen].mean(axis=0)
        weights = np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
        return (
            x.T @ weights,
            features[chosen].mean(axis=0),
            targets[chosen].mean(axis=0),
        )

    def left_out(penalty):
        errors = []
        for left in range(12):
            slope, centre, mean = fitted(np.delete(np.arange(12), left), penalty)
            errors.append((features[left] - centre) @ slope + mean - targets[left])
        return np.square(errors).mean()

    centred = features - features.mean(axis=0)
    penalties = PENALTIES * np.square(centred).sum() / 12
    best = min(penalties, key=left_out)
    slope, centre, mean = fitted(np.arange(12), best)
    found = fit_ridge(features, targets)
    np.testing.assert_allclose(
        found(features), (features - centre) @ slope + mean, atol=1e-8
    )
    assert best not in (penalties[0], penalties[-1])
