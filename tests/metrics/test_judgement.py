import math

import numpy as np
import pytest

from saliency_jax.metrics import judgement
from saliency_jax.metrics.intervals import mean_interval, wilson_interval

ANSWERS = judgement.Answers(
    np.array([True, False, True, True]),
    np.array([0.5, 2.0, 1.0, 0.25], np.float32),
    np.array([0.1, 0.9, 0.4, 0.2], np.float32),
)


def test_figures_are_of_the_images_that_count():
    counted = np.array([True, True, False, True])
    figures = judgement.summarise(ANSWERS, counted, math.log(10))
    assert figures["images"] == 3
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["accuracy_interval"] == wilson_interval(2, 3)
    assert figures["cross_entropy"] == pytest.approx(2.75 / 3)
    assert figures["entropy"] == pytest.approx(1.2 / 3)
    low, high = figures["cross_entropy_interval"]
    # Student's quantile of two degrees of freedom; the lower end is clipped
    assert low == 0
    spread = np.std([0.5, 2.0, 0.25], ddof=1) / math.sqrt(3)
    assert high == pytest.approx(2.75 / 3 + 4.30265 * spread, rel=1e-5)
    values = ANSWERS.entropy[counted].astype(float)
    assert figures["entropy_interval"] == mean_interval(values, high=math.log(10))


def test_a_single_cross_entropy_has_no_interval():
    figures = judgement.summarise(ANSWERS, np.array([0, 1, 0, 0], bool), math.log(10))
    assert figures["cross_entropy"] == 2 and "cross_entropy_interval" not in figures
    assert figures["entropy_interval"] == (0, math.log(10))


def test_parts_join_to_the_whole():
    first = np.array([True, False, False, False])
    parts = [judgement.keep(ANSWERS, first), judgement.keep(ANSWERS, ~first)]
    for got, want in zip(judgement.join(parts), ANSWERS, strict=True):
        np.testing.assert_array_equal(got, want)
