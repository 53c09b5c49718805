"""What a classifier makes of some images: accuracy, cross-entropy, entropy."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from saliency_jax.metrics.intervals import Interval, mean_interval, wilson_interval

Figures = dict[str, float | int | Interval]


class Answers(NamedTuple):
    """A classifier's answers to the images of a batch.

    correct: whether the highest logit is the true class; of a sigmoid, whether the true
      class's own probability is above one half.
    cross_entropy: minus the logarithm of the true class's probability, in nats.
    entropy: in nats; of a softmax in [0, ln K], the sum of K sigmoids' in [0, K ln 2].
    """

    correct: Bool[Array | np.ndarray, "B"]
    cross_entropy: Float[Array | np.ndarray, "B"]
    entropy: Float[Array | np.ndarray, "B"]


def join(parts: Sequence[Answers]) -> Answers:
    """Puts the answers to several batches together, in order."""
    return Answers(*map(np.concatenate, zip(*parts, strict=True)))


def keep(answers: Answers, kept: Bool[np.ndarray, "B"]) -> Answers:
    """The answers to the images where `kept` is True."""
    return Answers(*(values[kept] for values in answers))


def summarise(
    answers: Answers, counted: Bool[np.ndarray, "B"], most_entropy: float
) -> Figures:
    """Returns `images`, `accuracy`, `cross_entropy` and `entropy` of some images.

    The accuracy is a fraction, the others are means in nats; each has its 95 % interval
    beside it, `..._interval`. The cross-entropy has no upper bound, so that of a single
    image has no interval.

    Args:
      answers: per image, to at least one image that is counted.
      counted: which images to count.
      most_entropy: that an answer can have, in nats.
    """
    correct, cross_entropy, entropy = keep(answers, counted)
    hits, count = int(correct.sum()), len(correct)
    figures: Figures = {
        "images": count,
        "accuracy": hits / count,
        "accuracy_interval": wilson_interval(hits, count),
    }
    for name, values, high in (
        ("cross_entropy", cross_entropy, math.inf),
        ("entropy", entropy, most_entropy),
    ):
        values = values.astype(np.float64)
        interval = mean_interval(values, high=high)
        figures[name] = float(values.mean())
        if math.isfinite(interval[1]):
            figures[f"{name}_interval"] = interval
    return figures
