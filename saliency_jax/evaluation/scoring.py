"""The pass that scores a run's masks: networks, then metrics in threads beside them."""

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Int
from tqdm import tqdm

from saliency_jax.errors import InputError
from saliency_jax.evaluation.timing import call_timed, timed
from saliency_jax.metrics import rows
from saliency_jax.training import sharding
from saliency_jax.training.evaluators import top_hits
from saliency_jax.types import Batch, Logits, Masks

IMAGES_PER_TASK = 8  # of the metric part: a few MB at 224 pixels, near the cores
BATCH_FIELDS = ("image", "label", "present", "boxes_pixels", "original_size")


class Outcome(NamedTuple):
    """What a pass over the images gave.

    Attributes:
      measured: of the masks' row and of the naive baselines.
      top_hits: whether the n-th highest logit is the true class.
      labels: the true classes.
      seconds: what took how long.
    """

    measured: dict[str, rows.Measured]
    top_hits: Bool[np.ndarray, "B R"]
    labels: Int[np.ndarray, "B"]
    seconds: dict[str, float]


def score_masks(
    predict: Callable[..., tuple[Masks, Logits]],
    batches: Iterable[Batch],
    count: int,
    batch_size: int,
    *,
    variant: str,
    row: str,
) -> Outcome:
    """Passes all images through the networks, and the masks through the metrics.

    Threads measure one batch while the device computes the next.

    Args:
      predict: what gives the masks; see `explainers.Explainer`.
      batches: finite, in order; padding is ignored.
      count: how many images there are.
      batch_size: of each batch.
      variant: of the rules, one of `metrics.localisation.VARIANTS`.
      row: the name of the masks' row.

    Raises:
      InputError: when a mask is not finite.
    """
    mesh = sharding.evaluation_mesh(batch_size)
    predict = jax.device_put(predict, sharding.replicated(mesh))
    jitted = jax.jit(lambda predict, *asked: predict(*asked))

    cv2.setNumThreads(1)  # the pool's threads are enough
    threads = os.cpu_count() or 1
    seconds = dict.fromkeys(("compile", "network", "wait"), 0.0)
    compiled, hits, labels, tasks = None, [], [], []
    start = time.perf_counter()
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=count, disable=None, unit="image") as bar,
    ):
        pending: list[Future] = []
        for number, batch in enumerate(batches):
            places = np.arange(number * batch_size, (number + 1) * batch_size)
            asked = jax.device_put(
                (batch["image"], batch["label"], places), sharding.by_batch(mesh)
            )
            if compiled is None:
                with timed(seconds, "compile"):
                    compiled = jitted.lower(predict, *asked).compile()
            with timed(seconds, "network"):
                masks, logits = jax.device_get(compiled(predict, *asked))

            valid = np.asarray(batch["valid"])
            batch = {
                name: np.asarray(batch[name])[valid]
                for name in BATCH_FIELDS
                if name in batch
            }
            masks, logits = masks[valid], logits[valid]
            if not np.isfinite(masks).all():
                raise InputError(
                    f"the masks of the row {row} are not finite: a training diverged "
                    "(train again with a lower learning rate), or the classifier has "
                    "no finite gradient"
                )
            with timed(seconds, "wait"):  # bounds the masks that are kept
                wait(pending)
            pending = [
                pool.submit(
                    call_timed,
                    rows.measure,
                    masks[part : part + IMAGES_PER_TASK],
                    batch["boxes_pixels"][part : part + IMAGES_PER_TASK],
                    batch["original_size"][part : part + IMAGES_PER_TASK],
                    variant,
                    row,
                )
                for part in range(0, len(masks), IMAGES_PER_TASK)
            ]
            tasks += pending
            hits.append(top_hits(logits, batch["label"], batch.get("present")))
            labels.append(batch["label"])
            bar.update(len(masks))
        parts = [task.result() for task in tasks]
    names = parts[0][0].keys()
    return Outcome(
        {name: rows.join([measured[name] for measured, _ in parts]) for name in names},
        np.concatenate(hits),
        np.concatenate(labels),
        {
            "network_seconds": seconds["network"],
            "metric_seconds": sum(busy for _, busy in parts),
            "metric_threads": threads,
            "network_waited_for_metric_seconds": seconds["wait"],
            "compile_seconds": seconds["compile"],
            "wall_seconds": time.perf_counter() - start,
        },
    )
