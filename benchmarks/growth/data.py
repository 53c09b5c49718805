"""The training pipeline over data sets of growing numbers of images.

The images are one, in memory; the order, the hold-out, the augmentation, the batches
and the way back to a place in an epoch are the pipeline's own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import grain
import numpy as np

from benchmarks.growth.curves import Curve
from saliency_jax.data.pipeline import make_train_iterator
from saliency_jax.data.sources import Source, split_holdout
from saliency_jax.types import Batch

SIDE = 32
CLASSES = 10
HOLDOUT = 16
THREADS = 2


@dataclasses.dataclass(frozen=True)
class OneImage:
    """Records of a data set that shows the same image again and again."""

    number: int
    encoded: bytes

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": self.encoded,
            "label": np.array([index % CLASSES]),
            "file_name": b"%d" % index,
            "boxes": np.array([0.25, 0.25, 0.75, 0.75], np.float32),
            "boxes_pixels": np.array([8, 8, 23, 23]),
        }


def synthetic_source(number: int) -> Source:
    """A data set of so many images, which costs no more than one."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    _, encoded = cv2.imencode(".jpg", noise)
    return Source(
        name="synthetic",
        split="train",
        class_names=tuple(map(str, range(CLASSES))),
        max_boxes=1,
        num_with_boxes=number,
        has_object_masks=False,
        records=OneImage(number, encoded.tobytes()),
    )


def open_iterator(source: Source, batch_size: int) -> grain.DatasetIterator[Batch]:
    """As a run opens it, its hold-out included."""
    training, _ = split_holdout(source, HOLDOUT, seed=0)
    return make_train_iterator(
        training,
        batch_size=batch_size,
        image_size=SIDE,
        seed=0,
        num_threads=THREADS,
    )


def at_batch(state: dict[str, Any], number: int) -> dict[str, Any]:
    """An iterator's state as it is when so many batches have been read.

    Reading half of a million images to get there would take minutes.
    """
    return state | {"next_index": number}


def over_examples(batch_size: int, numbers: Sequence[int]) -> list[Curve]:
    """Over the images of the data set."""
    sources = {number: synthetic_source(number) for number in numbers}

    def first_batch(number: int) -> Callable[[], None]:
        def take() -> None:
            iterator = open_iterator(sources[number], batch_size)
            next(iterator)
            iterator.close()

        return take

    def resumed(number: int) -> Callable[[], None]:
        def take() -> None:
            iterator = open_iterator(sources[number], batch_size)
            half = number // (2 * batch_size)
            iterator.set_state(at_batch(iterator.get_state(), half))
            next(iterator)
            iterator.close()

        return take

    def later_batch(number: int) -> Callable[[], Batch]:
        iterator = open_iterator(sources[number], batch_size)
        return lambda: next(iterator)

    return [
        Curve("hold out, open, first batch", {n: first_batch(n) for n in numbers}),
        Curve("a later batch", {n: later_batch(n) for n in numbers}),
        Curve("the same, in mid-epoch", {n: resumed(n) for n in numbers}),
    ]
