"""The saliency metric over a data set, from a classifier that can be worked out."""

from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from saliency_jax.data import pipeline
from saliency_jax.errors import InputError
from saliency_jax.evaluation.cropping import Boxes, judge_crops
from saliency_jax.evaluation.judges import Judge
from saliency_jax.models.classifier import Classifier
from tests.painted import SIZE, paint, source_of

BOX = [2, 4, 10, 12]  # red: columns 2 to 10 and rows 4 to 12
RECORDS = [
    paint(BOX, predicted=0, label=0, boxes=[BOX]),
    paint(BOX, predicted=0, label=1, boxes=[BOX]),
    paint([0, 0, 16, 16], predicted=51, label=2, boxes=[]),
]


class Colour(nn.Module):
    """Three classes: how red, green and blue an image is on average."""

    @nn.compact
    def __call__(self, images, train):
        gain = self.param("gain", nn.initializers.ones, ())
        return gain * images.mean(axis=(1, 2)), ()


def judge(gain=4.0, mean=3 * (0.0,), size=SIZE):
    variables = {"params": {"gain": jnp.array(gain)}}
    classifier = Classifier(variables, Colour(), mean, 3 * (1.0,))
    return Judge(Path("nowhere"), classifier, size)


def metric_of(edges, size=SIZE, batch_size=2, shown=SIZE, **options):
    """The metric of boxes at `size`, for a judge that is shown images of `shown`."""
    batches = pipeline.eval_batches(
        source_of(RECORDS), batch_size=batch_size, image_size=shown
    )
    boxes = {"mine": Boxes(np.array(edges), size)}
    metric, seconds = judge_crops(
        judge(size=shown, **options), boxes, batches, len(RECORDS), batch_size
    )
    assert seconds > 0
    return metric["mine"]


def test_by_hand():
    # exactly the box; that and as much again beside it, but for a column; all
    metric = metric_of([[4, 2, 12, 10], [4, 2, 12, 16], [0, 0, 16, 16]])
    np.testing.assert_allclose(
        metric.log_area, np.log([64 / 256, 112 / 256, 1]), rtol=1e-12
    )
    pooled = np.array([[1, 0, 0], [8 / 14, 0, 0], [1, 0, 0.2]])
    expected = special.log_softmax(4 * pooled, axis=1)[range(3), range(3)]
    np.testing.assert_allclose(metric.log_probability, expected, rtol=1e-2)
    np.testing.assert_array_equal(metric.correct, [True, False, False])
    np.testing.assert_allclose(metric.log_probability[[0, 2]], expected[[0, 2]], 1e-5)


def test_an_empty_box_shows_the_mean_colour():
    empty = [[0, 0, 0, 0]] * 3
    # 0.2, 0.4 and 0.6 are whole numbers of 255; normalised, each is 0
    metric = metric_of(empty, mean=(0.2, 0.4, 0.6))
    np.testing.assert_allclose(metric.log_area, np.log(0.05))
    np.testing.assert_allclose(metric.log_probability, np.log(1 / 3), rtol=1e-5)


def test_an_impossible_class_has_a_finite_probability():
    metric = metric_of([[4, 2, 12, 10]] * 3, gain=1e6)
    assert np.isfinite(metric.score).all()
    assert metric.log_probability[1] == pytest.approx(-1e6)


def test_boxes_of_another_size_mean_the_same_part():
    small = metric_of([[2, 1, 6, 5]] * 3, size=8)
    np.testing.assert_allclose(small.score, metric_of([[4, 2, 12, 10]] * 3).score)


def test_the_judge_is_shown_its_own_size():
    whole = [[0, 0, SIZE, SIZE]] * 3
    # how red an image is on average hardly depends on its size
    small, large = metric_of(whole, shown=8), metric_of(whole)
    np.testing.assert_allclose(small.score, large.score, rtol=0.03)
    np.testing.assert_array_equal(small.log_area, 0)


def test_does_not_depend_on_the_batch_size():
    edges = [[4, 2, 12, 10], [0, 0, 9, 16], [3, 3, 3, 3]]
    expected = metric_of(edges, batch_size=1)
    for size in (2, 3, 4):
        for got, want in zip(metric_of(edges, batch_size=size), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_diverged_classifier_is_named():
    with pytest.raises(InputError, match="judge nowhere are not finite"):
        metric_of([[0, 0, 16, 16]] * 3, gain=jnp.nan)
