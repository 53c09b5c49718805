"""Figures of held-out images during training, and their formatting."""

from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Int, Shaped

from saliency_jax.metrics.localisation import casm_scores
from saliency_jax.training.labels import present_classes
from saliency_jax.training.processes import gathered
from saliency_jax.types import Batch, Logits, Masks

LOCALISATION = ("le", "om", "f1", "accuracy", "mask_mean")


def classification(
    classify: Callable[[Shaped[np.ndarray, "B H W 3"]], Logits],
    batches: Iterable[Batch],
    several_labels: bool = False,
) -> dict[str, float]:
    """Top-1 and top-5 accuracy, as fractions, of the images of all processes.

    Args:
      classify: images to logits.
      batches: finite; of several processes each has its share. Padding is ignored.
      several_labels: whether any class that is in the image is right.
    """
    top1, top5, count = 0, 0, 0
    for batch in batches:
        valid = np.asarray(batch["valid"])
        logits = np.asarray(classify(batch["image"]))
        if several_labels:
            present = np.asarray(present_classes(batch, logits.shape[-1]))
            hits = np.take_along_axis(present, _highest(logits), axis=1)
        else:
            hits = top_hits(logits, np.asarray(batch["label"]))
        top1 += int(hits[valid, 0].sum())
        top5 += int(hits[valid].any(axis=1).sum())
        count += int(valid.sum())
    top1, top5, count = gathered(np.array([[top1, top5, count]])).sum(axis=0)
    return {"accuracy": float(top1 / count), "top5_accuracy": float(top5 / count)}


def top_hits(
    logits: Shaped[np.ndarray, "B K"],
    labels: Shaped[np.ndarray, "B"],
    present: Bool[np.ndarray, "B K"] | None = None,
) -> Shaped[np.ndarray, "B R"]:
    """Whether the n-th highest logit is the true class, for the first R = min(5, K).

    Args:
      logits: of a classifier.
      labels: the true classes.
      present: all classes that are in each image. Those that are not the label's come
        last, for a picture of two objects does not make either of them wrong.
    """
    if present is not None:
        others = present & (np.arange(logits.shape[1]) != labels[:, None])
        logits = np.where(others, -np.inf, logits)
    return _highest(logits) == labels[:, None]


def _highest(logits: Shaped[np.ndarray, "B K"]) -> Int[np.ndarray, "B R"]:
    return np.argsort(-logits, axis=1, kind="stable")[:, :5]


def localisation(
    predict: Callable[
        [Shaped[np.ndarray, "B H W 3"], Shaped[np.ndarray, "B"]], tuple[Masks, Logits]
    ],
    batches: Iterable[Batch],
) -> dict[str, float]:
    """CASM's localisation figures and the classifier's accuracy, as fractions.

    They are of the images of all processes.

    Args:
      predict: images and their classes to masks and logits.
      batches: finite, with boxes; of several processes each has its share. Padding is
        ignored.
    """
    nothing = np.zeros(0)
    totals = {name: [nothing] for name in LOCALISATION}
    for batch in batches:
        valid = np.asarray(batch["valid"])
        masks, logits = jax.device_get(predict(batch["image"], batch["label"]))
        labels, present = np.asarray(batch["label"]), batch.get("present")
        correct = top_hits(logits, labels, present)[:, 0]
        scores = casm_scores(
            masks, np.asarray(batch["boxes_pixels"]), np.asarray(batch["original_size"])
        )
        counts = valid & scores.scored
        found = (
            ~scores.hit[counts],
            ~(scores.hit & correct)[counts],
            scores.f1[counts],
            correct[valid],
            masks[valid].mean(axis=(1, 2)),
        )
        for name, values in zip(LOCALISATION, found, strict=True):
            totals[name].append(values)
    return {
        name: float(np.mean(gathered(np.concatenate(values))))
        for name, values in totals.items()
    }


def selection_score(scores: dict[str, float]) -> float:
    """What `best` maximises: a low localisation error, or a high accuracy."""
    return -scores["le"] if "le" in scores else scores["accuracy"]


def mean_of(metrics: Sequence[dict[str, ArrayLike]]) -> dict[str, float]:
    """The mean of every metric over some steps."""
    return {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]}


def one_line(values: dict[str, float]) -> str:
    """`name 0.123, name 4.56`: figures for a person."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
