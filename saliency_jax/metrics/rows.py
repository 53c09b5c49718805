"""The rows of the results table: trained maskers beside the naive baselines."""

import math
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
from saliency_jax.metrics.saliency_metric import AREA_FLOOR, SaliencyMetric
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
    row: str = "casm",
) -> dict[str, Measured]:
    """Scores masks and the naive baselines on the same images.

    Args:
      masks: in [0, 1], 1 = salient.
      boxes_pixels: boxes as filed; rows of -1 are padding.
      original_size: (width, height) of the original images.
      variant: one of `localisation.VARIANTS`; a rectangle is its own box under all.
      row: the name of the masks' row.
    """
    size = masks.shape[1]
    rows = {
        row: Measured(
            casm_scores(masks, boxes_pixels, original_size, variant),
            mask_statistics(masks),
        )
    }
    for name, boxes in rectangles(boxes_pixels, original_size, size).items():
        rows[name] = Measured(
            rectangle_scores(boxes, boxes_pixels, original_size, size, variant),
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


def summarise(
    measured: Measured,
    saliency: SaliencyMetric,
    correct: Bool[np.ndarray, "B"],
    counted: Bool[np.ndarray, "B"],
) -> Row:
    """Returns the figures of a row, each with its 95 % interval.

    The keys are `le`, `om`, `f1`, `f1a`, `mask_mean`, `mask_entropy`,
    `mask_total_variation` as means over images, each with a `..._interval` beside it,
    and `mask_std`, the standard deviation over images of the mask's mean, without one.
    They are fractions. Beside them stands the saliency metric, `sm`, with its parts
    `sm_log_area` and `sm_log_probability` in nats and `sm_accuracy`, the share of crops
    whose class the classifier has right. All are of the images with a ground-truth box.
    Without any such image the figures of the masks and of the crops are there, of all.

    Args:
      measured: per image.
      saliency: per image.
      correct: whether the classifier has the image's class right; OM needs it, and the
        baselines' OM counts that of the run.
      counted: which images to count, at least one.
    """
    scores, statistics = measured
    scored = scores.scored & counted
    row: Row = {}
    if scored.any():
        hit = scores.hit[scored]
        add_share(row, "le", ~hit)
        add_share(row, "om", ~(hit & correct[scored]))
        _add_mean(row, "f1", scores.f1[scored])
        _add_mean(row, "f1a", scores.f1a[scored])
        counted = scored
    area, entropy, total_variation = (values[counted] for values in statistics)
    _add_mean(row, "mask_mean", area)
    row["mask_std"] = float(area.std())
    _add_mean(row, "mask_entropy", entropy)
    _add_mean(row, "mask_total_variation", total_variation, high=2.0)

    least = math.log(AREA_FLOOR)
    _add_mean(row, "sm", saliency.score[counted], least, math.inf)
    _add_mean(row, "sm_log_area", saliency.log_area[counted], least, 0.0)
    log_probability = saliency.log_probability[counted]
    _add_mean(row, "sm_log_probability", log_probability, -math.inf, 0.0)
    add_share(row, "sm_accuracy", saliency.correct[counted])
    return row


def add_share(row: Row, name: str, successes: Bool[np.ndarray, "B"]) -> None:
    """Adds the share of the images where something is true, and its interval."""
    count, of = int(successes.sum()), len(successes)
    row[name] = count / of
    row[f"{name}_interval"] = wilson_interval(count, of)


def _add_mean(
    row: Row,
    name: str,
    values: Float[np.ndarray, "B"],
    low: float = 0.0,
    high: float = 1.0,
) -> None:
    row[name] = float(values.mean())
    interval = mean_interval(values, low, high)
    if all(map(math.isfinite, interval)):  # else a single image without bounds
        row[f"{name}_interval"] = interval
