"""The pass that shows the crops of predicted boxes to a classifier."""

import functools
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, UInt8
from tqdm import tqdm

from saliency_jax.evaluation.judges import Judge
from saliency_jax.evaluation.judging import Picture, ask
from saliency_jax.metrics import judgement
from saliency_jax.metrics.saliency_metric import SaliencyMetric, crops, log_areas
from saliency_jax.training import sharding
from saliency_jax.types import Batch


class Boxes(NamedTuple):
    """A box for each image of a data set.

    Attributes:
      edges: `ymin, xmin, ymax, xmax`, half-open.
      size: side in pixels of the images that they refer to.
    """

    edges: Int[np.ndarray, "n 4"]
    size: int


def judge_crops(
    judge: Judge,
    boxes: Mapping[str, Boxes],
    batches: Iterable[Batch],
    count: int,
    batch_size: int,
) -> tuple[dict[str, SaliencyMetric], float]:
    """Shows the crops of all rows to one classifier.

    Args:
      judge: the classifier.
      boxes: of each row, of all images.
      batches: finite, in order, at the judge's image size; padding is ignored.
      count: how many images there are.
      batch_size: of each batch.

    Returns:
      The saliency metric of each row, and the seconds that all took.

    Raises:
      InputError: when the judge's answers are not finite.
    """
    mesh = sharding.evaluation_mesh(batch_size)
    place = functools.partial(jax.device_put, device=sharding.by_batch(mesh))
    classifier = jax.device_put(judge.classifier, sharding.replicated(mesh))
    judges = {judge.path.name: judge._replace(classifier=classifier)}
    parts, seen = [], 0
    start = time.perf_counter()

    def pictures(
        images: UInt8[np.ndarray, "B S S 3"], valid: int
    ) -> Iterator[tuple[Picture, UInt8[Array, "B S S 3"]]]:
        # One by one: the device answers to a row while the next one is cut out.
        for row, (edges, size) in boxes.items():
            padded = np.zeros((len(images), 4), edges.dtype)
            padded[:valid] = edges[seen : seen + valid]
            yield (row, "crop"), place(crops(images, padded, size, classifier.mean))

    with tqdm(total=count, disable=None, unit="image") as bar:
        for batch in batches:
            valid = int(batch["valid"].sum())
            shown = pictures(batch["image"], valid)
            parts.append(ask(judges, shown, place(batch["label"]), batch["valid"]))
            seen += valid
            bar.update(valid)
    metric = {}
    for row, (edges, size) in boxes.items():
        answers = judgement.join(
            [answers for part in parts for answers in part[row, "crop"].values()]
        )
        metric[row] = SaliencyMetric(
            log_areas(edges, size),
            -answers.cross_entropy.astype(np.float64),
            answers.correct,
        )
    return metric, time.perf_counter() - start
