"""Images per second of preparation and of the training pipeline, beside PyTorch's.

    python benchmarks/data_pipeline.py --source DIR [--cores N] [--rounds 5]

DIR has one sub-folder per class, such as ImageNet's `ILSVRC/Data/CLS-LOC/train`. Every
round measures each contestant once, in turn, on the same cores and the same files (from
memory, after the first round), and the ratios are taken within a round:

* `grain threads`, `grain processes`: `make_train_iterator` on the prepared data;
* `torch`: a DataLoader of as many worker processes over the folder itself. torchvision
  is not needed: ImageFolder's listing and the same augmentation (random resized crop of
  at least 0.08 of the area, mirrored half of the time, the same interpolation) are
  written here with OpenCV, the decoder that both use, and none of the boxes' work.

All yield batches of uint8 pixels in host memory. What they cost besides (normalisation,
the copy to a device) is not measured.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from absl import app, flags

from saliency_jax.data import transforms
from saliency_jax.data.pipeline import make_train_iterator
from saliency_jax.data.prepare import prepare
from saliency_jax.data.sources import open_source
from saliency_jax.data.workers import cores

_SOURCE = flags.DEFINE_string("source", None, "Folder of class folders.", required=True)
_CORES = flags.DEFINE_integer("cores", 0, "How many to use; 0 means all.", 0)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Of measurements.", 1)
_SECONDS = flags.DEFINE_float("seconds", 20, "Of each measurement of a pipeline.", 0.1)
_BATCH = flags.DEFINE_integer("batch_size", 64, "Images in a batch.", 1)
_SIZE = flags.DEFINE_integer("image_size", 224, "Side of the images in a batch.", 1)
_MIN_AREA = 0.08


class Folder(torch.utils.data.Dataset):
    """Files and labels as ImageFolder lists them, augmented with OpenCV."""

    def __init__(self, root: str, size: int):
        self._size = size
        classes = sorted(path for path in Path(root).iterdir() if path.is_dir())
        self._files = [
            (str(file), label)
            for label, folder in enumerate(classes)
            for file in sorted(folder.iterdir())
        ]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self._files[index]
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        image = cv2.imread(path, transforms.AS_STORED)
        height, width = image.shape[:2]
        top, left, h, w = transforms.random_window(height, width, _MIN_AREA, rng)
        shrinks = self._size**2 < h * w
        image = cv2.resize(
            cv2.cvtColor(image[top : top + h, left : left + w], cv2.COLOR_BGR2RGB),
            (self._size, self._size),
            interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        )
        if rng.random() < 0.5:
            image = cv2.flip(image, 1)
        return torch.from_numpy(image), label


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _torch_batches(size: int, num_workers: int) -> Iterator[object]:
    loader = torch.utils.data.DataLoader(
        Folder(_SOURCE.value, size),
        batch_size=_BATCH.value,
        shuffle=True,
        drop_last=True,
        num_workers=num_workers,
        persistent_workers=True,
        worker_init_fn=_one_thread,
        multiprocessing_context="forkserver",  # a fork would copy JAX's threads' locks
    )
    while True:
        yield from loader


def _grain_batches(data_dir: str, **workers: int) -> Iterator[object]:
    iterator = make_train_iterator(
        open_source("image_folder", data_dir, "train"),
        batch_size=_BATCH.value,
        image_size=_SIZE.value,
        seed=0,
        min_area=_MIN_AREA,
        **workers,
    )
    try:
        yield from iterator
    finally:
        iterator.close()


def _rate(batches: Iterator[object], warm_up: int) -> float:
    """Images per second, once the workers have started and their queues are full."""
    for _ in range(warm_up):
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < _SECONDS.value:
        next(batches)
        count += 1
    rate = count * _BATCH.value / (time.perf_counter() - start)
    batches.close()
    return rate


def _preparation_rate(data_dir: str, num_workers: int) -> float:
    start = time.perf_counter()
    prepare("image_folder", data_dir, _SOURCE.value, num_workers=num_workers)
    elapsed = time.perf_counter() - start
    return len(open_source("image_folder", data_dir, "train")) / elapsed


def main(argv: Sequence[str]) -> None:
    """Prints a table: the median rate, per core, and the ratio to PyTorch's."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    used = sorted(os.sched_getaffinity(0))[: _CORES.value or cores()]
    os.sched_setaffinity(0, used)
    number = len(used)
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare("image_folder", folder, _SOURCE.value)
        contestants: dict[str, Callable[[], Iterator[object]]] = {
            "grain threads": lambda: _grain_batches(folder, num_threads=number),
            "grain processes": lambda: _grain_batches(
                folder, num_threads=1, num_workers=number
            ),
            "torch": lambda: _torch_batches(_SIZE.value, number),
        }
        for round_ in range(_ROUNDS.value):
            with tempfile.TemporaryDirectory() as other:
                rate = _preparation_rate(other, number)
                rates.setdefault("preparation", []).append(rate)
            for name, batches in contestants.items():
                rates.setdefault(name, []).append(_rate(batches(), 4 * number))
            print({name: round(of[round_]) for name, of in rates.items()}, flush=True)
    print(f"\n{number} cores, {_BATCH.value} images of {_SIZE.value} pixels a batch")
    print("| | images/s | per core | ratio to torch, lowest to highest |")
    print("| --- | --- | --- | --- |")
    for name, of in rates.items():
        ratios = [a / b for a, b in zip(of, rates["torch"], strict=True)]
        beside = (
            f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        )
        if name == "preparation":
            beside = ""
        rate = statistics.median(of)
        print(f"| {name} | {rate:.0f} | {rate / number:.0f} | {beside} |")


if __name__ == "__main__":
    app.run(main)
