"""The results table: a row for each explainer and baseline, over some of the images."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from saliency_jax.evaluation.cropping import Boxes, judge_crops
from saliency_jax.evaluation.explainers import Explainer
from saliency_jax.evaluation.judges import Judge
from saliency_jax.evaluation.scoring import Outcome, score_masks
from saliency_jax.metrics import rows
from saliency_jax.metrics.saliency_metric import SaliencyMetric
from saliency_jax.types import Batch


class Measurements(NamedTuple):
    """What the passes over all images gave.

    Attributes:
      outcomes: of each explainer by the name of its row, the run's masker first.
      measured: of each row, the explainers first.
      crops: of each row.
      crop_seconds: what the crops took.
    """

    outcomes: Mapping[str, Outcome]
    measured: Mapping[str, rows.Measured]
    crops: Mapping[str, SaliencyMetric]
    crop_seconds: float


def measure(
    explainers: Mapping[str, Explainer],
    crop_judge: Judge,
    batches: Callable[..., Iterable[Batch]],
    count: int,
    batch_size: int,
    *,
    variant: str,
) -> Measurements:
    """Has all images explained, and shows the boxes' crops to a classifier.

    Args:
      explainers: by the names of their rows, the run's masker first; the baselines are
        measured at its image size.
      crop_judge: what answers to the crops.
      batches: called with an `image_size`, gives all images once.
      count: how many images there are.
      batch_size: of each batch.
      variant: of the rules, one of `metrics.localisation.VARIANTS`.

    Raises:
      InputError: when a mask or an answer is not finite.
    """
    outcomes, measured = {}, {}
    for row, (predict, image_size) in explainers.items():
        images = batches(image_size=image_size)
        outcomes[row] = score_masks(
            predict, images, count, batch_size, variant=variant, row=row
        )
        measured[row] = outcomes[row].measured[row]
    own, masker = next(iter(explainers.items()))
    measured |= {
        row: baseline
        for row, baseline in outcomes[own].measured.items()
        if row not in explainers
    }
    boxes = {
        row: Boxes(of_row.scores.predicted, explainers.get(row, masker).image_size)
        for row, of_row in measured.items()
    }
    images = batches(image_size=crop_judge.image_size)
    crops, seconds = judge_crops(crop_judge, boxes, images, count, batch_size)
    return Measurements(outcomes, measured, crops, seconds)


def tabulate(
    measurements: Measurements, counted: Bool[np.ndarray, "B"]
) -> dict[str, rows.Row]:
    """Returns the rows of the table; without any box there are the explainers' alone.

    Args:
      measurements: of all images.
      counted: which images to count, at least one.
    """
    outcomes = measurements.outcomes
    own = next(iter(outcomes.values()))
    table: dict[str, rows.Row] = {}
    for name, measured in measurements.measured.items():
        if name in outcomes or (measured.scores.scored & counted).any():
            right = outcomes.get(name, own).top_hits[:, 0]
            crops = measurements.crops[name]
            table[name] = rows.summarise(measured, crops, right, counted)
    for name, outcome in outcomes.items():
        hits = outcome.top_hits[counted]
        rows.add_share(table[name], "accuracy", hits[:, 0])
        rows.add_share(table[name], "top5_accuracy", hits.any(axis=1))
    return table


def groups(
    labels: np.ndarray, known: Bool[np.ndarray, "K"] | None
) -> dict[str, Bool[np.ndarray, "B"]]:
    """Returns the images of each table: "rows" has all of them.

    Where the training data lack a class there are also "seen", the images whose class
    they have, and "unseen", the others, as far as there are any.

    Args:
      labels: of the images, `[B]`.
      known: which classes the training data have; None where nobody knows.
    """
    everything = {"rows": np.ones(len(labels), bool)}
    if known is None or known.all():
        return everything
    halves = {"seen": known[labels], "unseen": ~known[labels]}
    return everything | {name: half for name, half in halves.items() if half.any()}
