"""From a source to batches: grain for training, an ordered pass for evaluation."""

import functools
import re
import weakref
from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np

from saliency_jax.data import transforms
from saliency_jax.data.random_labels import with_random_labels
from saliency_jax.data.sources import Source
from saliency_jax.errors import InputError
from saliency_jax.types import Batch


def make_train_iterator(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    seed: int,
    min_area: float = 0.08,
    flip: bool = True,
    erasing_probability: float = 0.0,
    random_labels: bool = False,
    num_threads: int = 4,
    num_workers: int = 0,
    sharding: jax.sharding.Sharding | None = None,
) -> grain.DatasetIterator[Batch]:
    """Returns an endless iterator over shuffled, augmented batches.

    Each process reads its own part of every global batch, whose images and order are
    the same for any number of processes; the order is a new one each epoch. The
    iterator's `get_state()` and `set_state()` resume it exactly, provided that the
    number of workers is the same; call `close()` when done.

    Args:
      source: where the examples come from.
      batch_size: of the global batch, over all processes.
      image_size: side of the images in a batch, in pixels.
      seed: of the order and of the augmentation.
      min_area: smallest part of an image that a random crop shows, in (0, 1].
      flip: whether to mirror half of the images.
      erasing_probability: how often to erase a random rectangle, in [0, 1].
      random_labels: whether each image's label is one drawn from `seed`, the same in
        every epoch; see `random_labels.with_random_labels`.
      num_threads: threads that read, decode and augment (per worker, if any); at
        least 1.
      num_workers: worker processes; 0 means that threads of this one do it all. Needs
        parsed absl flags.
      sharding: where to place the batches (prefetched); None yields numpy arrays.

    Raises:
      InputError: if an option is out of its range, the source cannot fill one batch,
        the batch does not divide among the processes, or labels are to be random where
        images may have several.
    """
    if not 0 < min_area <= 1:
        raise InputError(
            f"config.data.min_area must be in (0, 1], not {min_area}: it is the "
            "smallest part of an image that a crop shows"
        )
    if not 0 <= erasing_probability <= 1:
        raise InputError(
            "config.data.erasing_probability must be in [0, 1], not "
            f"{erasing_probability}: 0 erases nothing"
        )
    if num_threads < 1:
        raise InputError(
            f"config.data.num_threads must be at least 1, not {num_threads}: choose "
            "about the number of cores"
        )
    if num_workers < 0:
        raise InputError(
            f"config.data.num_workers must be at least 0, not {num_workers}: 0 reads "
            "in threads of this process"
        )
    processes = jax.process_count()
    if batch_size % processes:
        raise InputError(
            f"batch_size {batch_size} does not divide among {processes} processes: "
            f"choose a multiple of {processes}"
        )
    if len(source) < batch_size:
        raise InputError(
            f"{source.name} {source.split} has {len(source)} images, fewer than one "
            f"batch of {batch_size}: lower batch_size or prepare more data"
        )
    if random_labels:
        source = with_random_labels(source, seed)
    prepare = functools.partial(
        transforms.train_example,
        image_size=image_size,
        min_area=min_area,
        flip=flip,
        erasing_probability=erasing_probability,
        max_boxes=max(1, source.max_boxes),
        num_classes=source.num_classes,
    )
    parts = (
        grain.MapDataset.source(source)
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(prepare)
        .batch(batch_size // processes, drop_remainder=True)
    )
    own_parts = parts[jax.process_index() :: processes]
    batches = own_parts.to_iter_dataset(_read_options(num_threads))
    if num_workers:
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers)
        )
    if sharding is not None:
        # A worker's arrays lie in shared memory, which must be given back before the
        # end; JAX on a CPU borrows arrays, and keeps them for as long as it likes.
        own = np.array if num_workers else np.asarray
        place = lambda values: jax.make_array_from_process_local_data(
            sharding, own(values)
        )
        host = grain.experimental.ThreadPrefetchIterDataset(
            batches, prefetch_buffer_size=2
        )
        batches = grain.experimental.ThreadPrefetchIterDataset(
            host.map(lambda batch: jax.tree.map(place, batch)), prefetch_buffer_size=2
        )
    return _TrainIterator(iter(batches))


class _TrainIterator(grain.DatasetIterator[Batch]):
    """Passes through, and closes itself before the interpreter takes modules apart.

    Grain's own iterators print exceptions from their finalisers otherwise.
    """

    def __init__(self, iterator: grain.DatasetIterator[Batch]):
        super().__init__(iterator)
        owned = [iterator]
        self._owned = owned
        self._parents = ()
        self._finalise = weakref.finalize(self, _close_owned, owned)

    def __next__(self) -> Batch:
        try:
            return next(self._iterator)
        except RuntimeError as error:  # grain has no class for it
            if "process was terminated" not in str(error):
                raise
            code = re.search(r"exit code (-?\d+)", str(error))
            raise InputError(
                "a process that reads data ended"
                + (f" with code {code[1]}" if code else "")
                + ", perhaps killed for want of memory: lower "
                "--config.data.num_workers; the same command goes on from the last "
                "checkpoint"
            ) from error

    def get_state(self) -> dict[str, Any]:
        return self._iterator.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._iterator.set_state(state)

    def start_prefetch(self) -> None:
        self._iterator.start_prefetch()

    def close(self) -> None:
        self._finalise()

    @property
    def _iterator(self) -> grain.DatasetIterator[Batch]:
        if not self._owned:
            raise ValueError("the iterator is closed")
        return self._owned[0]


def _close_owned(owned: list[grain.DatasetIterator]) -> None:
    # Dropping the only reference runs the finaliser of grain's iterator now.
    while owned:
        owned.pop().close()


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    resize: int | None = None,
    num_threads: int = 4,
    limit: int | None = None,
    shared: bool = False,
) -> Iterator[Batch]:
    """Yields the examples of a source in order, each once, as numpy batches.

    The last batch is filled up with copies of its last example, marked by `valid`
    False.

    Args:
      source: where the examples come from.
      batch_size: of every batch, the last one included.
      image_size: side of the images in a batch, in pixels.
      resize: length of the shorter side before the centre crop; `image_size` if None.
      num_threads: threads that read and decode.
      limit: how many examples to yield at most; None means all.
      shared: whether each process of several yields a share of the examples, that may
        be empty, and not all of them.

    Raises:
      InputError: if `resize` is smaller than `image_size`.
    """
    if not len(source):
        return
    resize_to = image_size if resize is None else resize
    if resize_to < image_size:
        raise InputError(
            f"resize {resize_to} is smaller than image_size {image_size}: the crop "
            "would not fit; raise resize"
        )
    prepare = functools.partial(
        transforms.eval_example,
        image_size=image_size,
        resize_to=resize_to,
        max_boxes=max(1, source.max_boxes),
        num_classes=source.num_classes,
    )
    examples = grain.MapDataset.source(source)
    if limit is not None:
        examples = examples[:limit]
    if shared:
        examples = examples[jax.process_index() :: jax.process_count()]
        if not len(examples):
            return
    iterator = iter(
        examples.map(prepare)
        .batch(batch_size)
        .to_iter_dataset(_read_options(num_threads))
    )
    try:
        for batch in iterator:
            yield _fill_up(batch, batch_size)
    finally:
        iterator.close()


def _read_options(num_threads: int) -> grain.ReadOptions:
    # An element is a whole batch here, so a buffer of a few is plenty.
    return grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=max(2, num_threads)
    )


def _fill_up(batch: Batch, batch_size: int) -> Batch:
    missing = batch_size - len(batch["valid"])
    if not missing:
        return batch
    filled = {
        key: np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
        for key, values in batch.items()
    }
    filled["valid"][-missing:] = False
    return filled
