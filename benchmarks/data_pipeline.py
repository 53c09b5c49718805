"""Images per second of preparation and of the training pipeline, beside PyTorch's.

    python -m benchmarks.data_pipeline --source DIR [--cores N] [--rounds 5]

DIR has one sub-folder per class, such as ImageNet's `ILSVRC/Data/CLS-LOC/train`. Every
round measures each contestant once, in turn, on the same cores and the same files (from
memory, after the first round), and the ratios are taken within a round:

* `grain threads`, `grain processes`: `make_train_iterator` on the prepared data;
* `torch, Pillow`: a DataLoader of as many worker processes over the folder itself.
  torchvision is not needed: ImageFolder's listing and loader and the same augmentation
  (random resized crop of at least 0.08 of the area, mirrored half of the time) are
  written here with Pillow's calls that torchvision makes;
* `torch, OpenCV`: the same with our decoder and interpolation. No torch contestant does
  the boxes' work.

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
from PIL import Image

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
_LOADERS = ("Pillow", "OpenCV")


def crop_with_pillow(path: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """What torchvision's default loader, crop and flip do; its resize is bilinear."""
    with open(path, "rb") as file:
        image = Image.open(file).convert("RGB")
    width, height = image.size
    top, left, h, w = transforms.random_window(height, width, _MIN_AREA, rng)
    image = image.crop((left, top, left + w, top + h))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(image)


def crop_with_opencv(path: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """The same with OpenCV, as our transforms do it."""
    image = cv2.imread(path, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    height, width = image.shape[:2]
    top, left, h, w = transforms.random_window(height, width, _MIN_AREA, rng)
    image = cv2.resize(
        image[top : top + h, left : left + w],
        (size, size),
        interpolation=cv2.INTER_AREA if size**2 < h * w else cv2.INTER_LINEAR,
    )
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


class Folder(torch.utils.data.Dataset):
    """Files and labels as ImageFolder lists them, augmented by one of the above."""

    def __init__(self, root: str, size: int, random_crop: Callable[..., np.ndarray]):
        self._size, self._random_crop = size, random_crop
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
        image = self._random_crop(path, self._size, rng)
        return torch.from_numpy(image), label


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _torch_batches(
    random_crop: Callable[..., np.ndarray], num_workers: int
) -> Iterator[object]:
    loader = torch.utils.data.DataLoader(
        Folder(_SOURCE.value, _SIZE.value, random_crop),
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
            "torch, Pillow": lambda: _torch_batches(crop_with_pillow, number),
            "torch, OpenCV": lambda: _torch_batches(crop_with_opencv, number),
        }
        for round_ in range(_ROUNDS.value):
            with tempfile.TemporaryDirectory() as other:
                rate = _preparation_rate(other, number)
                rates.setdefault("preparation", []).append(rate)
            for name, batches in contestants.items():
                rates.setdefault(name, []).append(_rate(batches(), 4 * number))
            print({name: round(of[round_]) for name, of in rates.items()}, flush=True)
    print(f"\n{number} cores, {_BATCH.value} images of {_SIZE.value} pixels a batch")
    print("| | images/s | per core | beside torch, Pillow | beside torch, OpenCV |")
    print("| --- | --- | --- | --- | --- |")
    for name, of in rates.items():
        rate = statistics.median(of)
        beside = ["", ""]
        if name != "preparation":
            beside = [_ratios(of, rates[f"torch, {kind}"]) for kind in _LOADERS]
        print(f"| {name} | {rate:.0f} | {rate / number:.0f} | {' | '.join(beside)} |")


def _ratios(rates: Sequence[float], others: Sequence[float]) -> str:
    """Median, lowest and highest, each ratio taken within a round."""
    ratios = [a / b for a, b in zip(rates, others, strict=True)]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


if __name__ == "__main__":
    app.run(main)
