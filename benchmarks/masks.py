r"""Masks per second of finished runs, side by side.

    python -m benchmarks.masks RUN [RUN ...] [--batch_sizes 1,64] [--rounds 7]

Every round masks a batch with each run, in turn, in one process; the ratio to the first
run is taken within a round. Each run sees random images of its own size. A black-box
masker is given labels, so that its black box is not asked.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import flags

from saliency_jax import load_masker, saliency_fn
from saliency_jax.errors import InputError, run_command
from saliency_jax.run_config import read_run_config

_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1", "64"], "Images in a batch.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Of measurements.", 1)
_SECONDS = flags.DEFINE_float("seconds", 1.0, "Least time of a measurement.", 0.0)


def contestant(workdir: str, batch_size: int) -> Callable[[], None]:
    """Masks one batch a call, and returns when it has been masked."""
    config = read_run_config(workdir)
    masker = load_masker(workdir)
    size = config["data"]["image_size"]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, size, size, 3), np.uint8)
    labels = np.zeros(batch_size, np.int32)
    images = jax.device_put(images)

    def take() -> None:
        jax.block_until_ready(saliency_fn(masker, images, labels))

    return take


def main(argv: Sequence[str]) -> None:
    """Prints the median rates and the ratios to the first run."""
    runs = argv[1:]
    if not runs:
        raise InputError("name at least one run of train.py that has a masker")
    for batch_size in map(int, _BATCH_SIZES.value):
        takes = [contestant(run, batch_size) for run in runs]
        repeats = []
        for take in takes:
            take()
            start = time.perf_counter()
            take()
            once = time.perf_counter() - start
            repeats.append(max(1, round(_SECONDS.value / once)))
        rates: list[list[float]] = [[] for _ in runs]
        for _ in range(_ROUNDS.value):
            for take, repeat, of_run in zip(takes, repeats, rates, strict=True):
                start = time.perf_counter()
                for _ in range(repeat):
                    take()
                seconds = time.perf_counter() - start
                of_run.append(repeat * batch_size / seconds)
        for run, of_run in zip(runs, rates, strict=True):
            ratios = [a / b for a, b in zip(of_run, rates[0], strict=True)]
            print(
                f"batch {batch_size}, {run}: {statistics.median(of_run):.1f} masks/s, "
                f"{statistics.median(ratios):.2f} of the first "
                f"[{min(ratios):.2f}, {max(ratios):.2f}]"
            )


if __name__ == "__main__":
    run_command(main)
