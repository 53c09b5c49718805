r"""Seconds and memory of localisation, and the same beside CASM's procedure.

    python -m benchmarks.metrics [--masks 10000] [--size 224] [--threads 2] \
        [--rounds 5] [--round_masks 100]

First the stream: masks are made in batches, and threads find each one's connected
components and box and score it against its filed box, as `evaluate.py` does. Making the
masks is counted in the seconds. Then the box rules, each with its whole grid of alphas.
Last the published scorer's procedure, one image after the other with NumPy and SciPy:
both answer the same masks in turn, with one thread each and with all of them here, and
the ratio is taken within a round.
"""

import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import cv2
import numpy as np
from absl import flags
from scipy import ndimage

from saliency_jax.errors import InputError, run_command
from saliency_jax.metrics.localisation import EPSILON, casm_scores
from saliency_jax.metrics.map_boxes import ALPHAS, RULES, grid_boxes

_MASKS = flags.DEFINE_integer("masks", 10000, "How many are streamed.", 1)
_SIZE = flags.DEFINE_integer("size", 224, "Side of the masks.", 8)
_THREADS = flags.DEFINE_integer("threads", 2, "That score.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Beside CASM's procedure.", 1)
_ROUND_MASKS = flags.DEFINE_integer("round_masks", 100, "Of each round.", 1)

_BATCH = 64
_PART = 8  # masks for one thread at a time

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Masks [B, S, S], boxes as filed [B, 1, 4] and sizes of images [B, 2]."""


def batches(count: int, size: int) -> Iterator[Batch]:
    """Makes soft blobs with rough edges, brighter in the box that goes with each."""
    rng = np.random.default_rng(0)
    for start in range(0, count, _BATCH):
        count_here = min(_BATCH, count - start)
        masks = np.empty((count_here, size, size), np.float32)
        low = rng.integers(0, size // 2, (count_here, 1, 2))
        high = low + rng.integers(size // 4, size // 2, low.shape)
        boxes = np.concatenate([low, high], axis=-1)
        for mask, (left, top, right, bottom) in zip(masks, boxes[:, 0], strict=True):
            coarse = rng.normal(size=(7, 7)).astype(np.float32)
            fine = 0.5 * rng.normal(size=(size // 4, size // 4)).astype(np.float32)
            logits = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
            logits += cv2.resize(fine, (size, size), interpolation=cv2.INTER_LINEAR)
            logits[top:bottom, left:right] += 2
            np.reciprocal(1 + np.exp(2 - 4 * logits), out=mask)
        sizes = np.full((len(masks), 2), size)
        yield masks, boxes, sizes


def plain_scores(mask: np.ndarray, box: np.ndarray) -> tuple[bool, float]:
    """Hit and F1 of one mask and one box inside its image, as CASM's scorer has them.

    Only arrays of the image's size: the rectangles are drawn and compared.
    """
    ordered = np.sort(mask, axis=None)
    k = 1 + int((mask.size - 1) * (1 - mask.mean(dtype=np.float64)) + 0.5)
    threshold = np.clip(ordered[k - 1], EPSILON, 1 - EPSILON)
    labels, count = ndimage.label(mask > threshold)
    predicted, truth = np.zeros((2, *mask.shape), bool)
    if count:
        component = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
        rows = np.flatnonzero(component.any(axis=1))
        columns = np.flatnonzero(component.any(axis=0))
        predicted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    truth[box[1] : box[3], box[0] : box[2]] = True
    overlap = (predicted & truth).sum() / (predicted | truth).sum()
    inside = (mask * truth).sum(dtype=np.float64)
    precision = inside / (mask.sum(dtype=np.float64) + EPSILON)
    recall = inside / truth.sum()
    f1 = 2 * precision * recall / (precision + recall + EPSILON)
    return bool(overlap > 0.5), float(f1)


def stream(count: int, size: int, threads: int) -> tuple[float, float, int]:
    """Scores masks as they are made.

    Returns:
      The seconds, those of all processors together, and how many masks hit.
    """
    tasks: list[Future] = []
    pending: list[Future] = []
    start, busy = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches(count, size):
            wait(pending)  # bounds the masks that are kept
            pending = [
                pool.submit(_hits, *(x[part : part + _PART] for x in batch))
                for part in range(0, len(batch[0]), _PART)
            ]
            tasks += pending
        hits = sum(task.result() for task in tasks)
    return time.perf_counter() - start, time.process_time() - busy, hits


def _hits(*batch: np.ndarray) -> int:
    return int(casm_scores(*batch).hit.sum())


def _ours(batch: Batch, pool: ThreadPoolExecutor | None) -> None:
    parts = [
        tuple(x[part : part + _PART] for x in batch)
        for part in range(0, len(batch[0]), _PART)
    ]
    work = lambda part: casm_scores(*part)
    list(map(work, parts) if pool is None else pool.map(work, parts))


def _check(batch: Batch) -> None:
    """Both say the same, or a ratio of their times says nothing."""
    scores = casm_scores(*batch)
    hits, f1 = zip(
        *(plain_scores(m, b[0]) for m, b in zip(*batch[:2], strict=True)), strict=True
    )
    if (scores.hit != hits).any() or not np.allclose(scores.f1, f1, atol=1e-6):
        raise InputError("the two scorers disagree: see the tests of localisation")


def _compare(size: int, threads: int) -> None:
    batch = next(batches(_BATCH, size))
    while len(batch[0]) < _ROUND_MASKS.value:
        batch = tuple(np.concatenate([x, x]) for x in batch)
    batch = tuple(x[: _ROUND_MASKS.value] for x in batch)
    _check(batch)
    ratios: dict[str, list[float]] = {"one thread": [], f"{threads} threads": []}
    plain = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_ROUNDS.value):
            start = time.perf_counter()
            for mask, boxes in zip(*batch[:2], strict=True):
                plain_scores(mask, boxes[0])
            plain.append(time.perf_counter() - start)
            for of, used in zip(ratios.values(), (None, pool), strict=True):
                start = time.perf_counter()
                _ours(batch, used)
                of.append(plain[-1] / (time.perf_counter() - start))
    each = 1000 * statistics.median(plain) / len(batch[0])
    print(f"CASM's procedure: {each:.2f} ms a mask, one image after the other")
    for name, of in ratios.items():
        print(
            f"  times faster here, {name}: {statistics.median(of):.2f} "
            f"[{min(of):.2f}, {max(of):.2f}]"
        )


def main(argv: Sequence[str]) -> None:
    """Prints the figures."""
    if len(argv) > 1:
        raise InputError(f"unexpected arguments {argv[1:]}: this takes flags")
    cv2.setNumThreads(1)  # the pool's threads are enough
    count, size, threads = _MASKS.value, _SIZE.value, _THREADS.value
    seconds, busy, hits = stream(count, size, threads)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"{count} masks of {size} x {size}, {threads} threads: {seconds:.1f} s, "
        f"{busy:.1f} s of processors, peak {peak:.0f} MiB, {hits} hits"
    )
    masks = next(batches(_BATCH, size))[0]
    for rule in RULES:
        start = time.perf_counter()
        grid_boxes(masks, rule)
        each = 1000 * (time.perf_counter() - start) / len(masks)
        print(f"box rule {rule}: {len(ALPHAS[rule])} boxes a map, {each:.2f} ms a map")
    _compare(size, threads)


if __name__ == "__main__":
    run_command(main)
