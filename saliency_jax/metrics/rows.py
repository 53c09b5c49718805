"""The rows of the results table: a trained masker beside the naive baselines."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from saliency_jax.metrics.baselines import rectangles
from saliency_jax.metrics.intervals import (
    Interval,
    mean_interval,
    wilson_interval,
)
from saliency_jax.metrics.localisation import (
    LocalisationScores,
    casm_scores,
    rectangle_scores,
)
from saliency_jax.metrics.statistics import (
    MaskStatistics,
    mask_statistics,
    rectangle_statistics,
)

Row = dict[str, float | Interval]


class Measured(NamedTuple):
    """What one row of the table knows of each image of a batch."""

    scores: LocalisationScores
    statistics: MaskStatistics


def measure(
    masks: Float[np.ndarray, "B S S"],
    boxes_pixels: Int[np.ndarray, "B N 4"],
    original_size: Int[np.ndarray, "B 2"],
    variant: str = "author",
) -> dict[str, Measured]:
    """Scores masks and the naive baselines on the same images.

    Args:
      masks: in [0, 1], 1 = salient.
      boxes_pixels: boxes as filed; rows of -1 are padding.
      original_size: (width, height) of the original images.
      variant: one of `localisation.VARIANTS`, for the masks; a rectangle is its own
        box under both.
    """
    size = masks.shape[1]
    rows = {
        "casm": Measured(
            casm_scores(masks, boxes_pixels, original_size, variant),
            mask_statistics(masks),
        )
    }
    for name, boxes in rectangles(boxes_pixels, original_size, size).items():
        rows[name] = Measured(
            rectangle_scores(boxes, boxes_pixels, original_size, size),
            rectangle_statistics(boxes, size),
        )
    return rows


def join(parts: Sequence[Measured]) -> Measured:
    """Puts what was measured on several batches together, in order."""
    scores = zip(*(part.scores for part in parts), strict=True)
    statistics = zip(*(part.statistics for part in parts), strict=True)
    return Measured(
        LocalisationScores(*map(np.concatenate, scores)),
        MaskStatistics(*map(np.concatenate, statistics)),
    )


def summarise(measured: Measured, correct: Bool[np.ndarray, "B"]) -> Row:
    """Returns the figures of a row, each with its 95 % interval.

    The keys are `le`, `om`, `f1`, `f1a`, `mask_mean`, `mask_entropy`,
    `mask_total_variation` as means over images, each with a `..._interval` beside it,
    and `mask_std`, the standard deviation over images of the mask's mean, without one.
    All are fractions, and all are of the images with a ground-truth box. Without any
    such image only the figures of the masks are there, of all images.

    Args:
      measured: per image.
      correct: whether the run's own classifier has the image's class right; OM needs
        it, and the baselines' OM counts the same classifier.
    """
    scores, statistics = measured
    scored = scores.scored
    row: Row = {}
    if scored.any():
        hit = scores.hit[scored]
        for name, success in (("le", hit), ("om", hit & correct[scored])):
            misses, count = int((~success).sum()), len(success)
            row[name] = misses / count
            row[f"{name}_interval"] = wilson_interval(misses, count)
        _add_mean(row, "f1", scores.f1[scored])
        _add_mean(row, "f1a", scores.f1a[scored])
        statistics = MaskStatistics(*(values[scored] for values in statistics))
    _add_mean(row, "mask_mean", statistics.area)
    row["mask_std"] = float(statistics.area.std())
    _add_mean(row, "mask_entropy", statistics.entropy)
    _add_mean(row, "mask_total_variation", statistics.total_variation, high=2.0)
    return row


def _add_mean(
    row: Row, name: str, values: Float[np.ndarray, "B"], high: float = 1.0
) -> None:
    row[name] = float(values.mean())
    row[f"{name}_interval"] = mean_interval(values, high=high)
