import numpy as np
import pytest

from saliency_jax.metrics.intervals import (
    bootstrap_interval,
    mean_interval,
    wilson_interval,
)


def test_wilson_known_values():
    # Newcombe, Statistics in Medicine 17, 1998, table I: 81/263, 15/148, 0/20, 1/29
    for successes, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson_interval(successes, trials)
        assert found == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_stays_inside():
    low, high = wilson_interval(3, 50)
    assert wilson_interval(47, 50) == pytest.approx((1 - high, 1 - low))
    assert wilson_interval(50, 50)[1] == 1.0
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_mean_known_value():
    # mean 0.5, standard deviation 0.1, n = 4: 0.5 +- 3.182446 * 0.1 / 2
    values = 0.5 + 0.1 * np.array([1, -1, 1, -1]) * np.sqrt(3 / 4)
    assert mean_interval(values) == pytest.approx((0.3408777, 0.6591223), abs=1e-6)


def test_mean_stays_in_the_range_and_knows_nothing_from_one_image():
    assert mean_interval(np.array([0.7])) == (0.0, 1.0)
    assert mean_interval(np.array([0.0, 0.1, 0.9]))[0] == 0.0
    assert mean_interval(np.array([0.0, 2.0]), high=2.0) == (0.0, 2.0)


def test_intervals_cover_the_truth_19_times_in_20():
    rng = np.random.default_rng(0)
    shares = [wilson_interval(int(rng.binomial(200, 0.3)), 200) for _ in range(1000)]
    means = [mean_interval(rng.beta(2, 5, 200)) for _ in range(1000)]
    for intervals, truth in ((shares, 0.3), (means, 2 / 7)):
        covered = np.mean([low <= truth <= high for low, high in intervals])
        assert 0.925 < covered < 0.975


def test_the_bootstrap_agrees_with_the_other_two():
    rng = np.random.default_rng(0)
    hits = rng.random(500) < 0.3
    value, interval = bootstrap_interval(hits, lambda means: means)
    assert value == hits.mean()
    assert interval == pytest.approx(wilson_interval(int(hits.sum()), 500), abs=0.006)
    values = rng.beta(2, 5, 500)
    value, interval = bootstrap_interval(values, lambda means: means)
    assert value == pytest.approx(values.mean())
    assert interval == pytest.approx(mean_interval(values), abs=0.003)


def test_the_bootstrap_of_a_maximum_and_of_one_image():
    rng = np.random.default_rng(0)
    hits = rng.random((300, 4)) < (0.2, 0.5, 0.4, 0.1)
    best = lambda means: means.max(axis=1)
    value, (low, high) = bootstrap_interval(hits, best)
    assert value == hits.mean(axis=0).max() and low < value < high
    # Of the best of several nearly equal ones the bootstrap is above the one alone.
    equal = rng.random((300, 8)) < 0.5
    _, (low, _) = bootstrap_interval(equal, best)
    assert low > bootstrap_interval(equal[:, 0], lambda means: means)[1][0]
    alone = float(hits[0].max())
    assert bootstrap_interval(hits[:1], best) == (alone, (alone, alone))
    assert bootstrap_interval(hits, best) == bootstrap_interval(hits, best)
    assert bootstrap_interval(hits, best, seed=1) != bootstrap_interval(hits, best)
