"""95 % intervals: Wilson's for shares, Student's t for means, else the bootstrap.

A share (LE, OM, accuracy) counts images, so its law is binomial. Wilson's interval
holds its level near 0 and 1 and with few images, where the normal one does not.

A mean of per-image figures (F1, area) has no such law. Over the thousands of images of
an evaluation the mean is normal to a good approximation whatever the figures' own law,
and Student's quantile widens the interval as it should with few images. A bootstrap
would say the same to the printed digit at a thousand times the cost and with a seed.

The intervals speak of new images from the same source and of this one trained network:
what training with another seed would give is not in them. Rows of one table share
their images, so the interval of a difference of two rows is narrower than these two
suggest.

The bootstrap serves a comparison of many rows, whose figures are more than shares and
means: a maximum over thresholds, a precision of pixels, a mean over classes.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped
from scipy import special

NORMAL_QUANTILE = 1.959963984540054  # of 0.975

RESAMPLES_AT_ONCE = 100  # bounds the memory of sums with many thresholds or classes

Interval = tuple[float, float]


def wilson_interval(successes: int, trials: int) -> Interval:
    """Returns the 95 % interval of a share.

    From E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", J. Am. Stat. Assoc. 22, 1927. Without trials it is (0, 1).
    """
    if trials == 0:
        return 0.0, 1.0
    square = NORMAL_QUANTILE**2
    share = successes / trials
    centre = (share + square / (2 * trials)) / (1 + square / trials)
    spread = math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    half = NORMAL_QUANTILE * spread / (1 + square / trials)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


def mean_interval(
    values: Float[np.ndarray, "B"], low: float = 0.0, high: float = 1.0
) -> Interval:
    """Returns the 95 % interval of a mean, within the figures' own range.

    Args:
      values: one figure per image.
      low: the least value that a figure can have.
      high: the greatest; the interval of a single image is the whole range.
    """
    count = len(values)
    if count < 2:
        return low, high
    error = values.std(ddof=1) / math.sqrt(count)
    half = float(special.stdtrit(count - 1, 0.975) * error)
    mean = float(values.mean())
    return max(low, mean - half), min(high, mean + half)


def bootstrap_interval(
    values: Shaped[np.ndarray, "B ..."],
    statistic: Callable[[Float[np.ndarray, "R ..."]], Float[np.ndarray, "R"]],
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, Interval]:
    """Returns a figure and its 95 % interval, by the percentiles of a bootstrap.

    Images are drawn with replacement, the same draws for every row of as many images
    (Efron and Tibshirani, An introduction to the bootstrap, 1993, section 13.3).

    Args:
      values: numbers or truths of each image, at least one image.
      statistic: from means over images, of any number of resamples at once, to the
        figure of each. What means cannot tell, such as a median, is no such figure.
      resamples: R.
      seed: of the draws.

    Returns:
      The figure of the images themselves, and the interval, which is that figure alone
      where there is one image.
    """
    count = len(values)
    flat = values.reshape(count, -1).astype(np.float64)
    shape = values.shape[1:]
    value = float(statistic(flat.mean(axis=0).reshape(1, *shape))[0])
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        some = min(RESAMPLES_AT_ONCE, resamples - start)
        # How often each image is drawn: one matrix product serves all resamples.
        times = generator.multinomial(count, np.full(count, 1 / count), size=some)
        means = (times / count) @ flat
        drawn.append(statistic(means.reshape(some, *shape)))
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
    return value, (float(low), float(high))
