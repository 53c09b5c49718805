r"""Memory and time of CASM's step with its pool on the device, in bf16, in host memory.

    python -m benchmarks.pool [--network resnet18] [--slots 30] [--rounds 5] \
        [--steps 10] [--batch_size 8] [--image_size 64]

Every round takes as many steps with each, in turn, every other one against a past
critic; the ratios are taken within a round. Images are random: only the time counts,
and that of a draw does not depend on how many entries there are to draw from.

Where the device counts its memory (a CPU does not), "in use" is what a state alone, its
pool included, takes of it.
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from absl import app, flags

from benchmarks import casm
from saliency_jax.models import create
from saliency_jax.pool import DTYPES
from saliency_jax.training import sharding
from saliency_jax.training.state import TrainState

_NETWORK = flags.DEFINE_enum(
    "network", "resnet18", sorted(create.BACKBONES), "The classifier."
)
_SLOTS = flags.DEFINE_integer("slots", 30, "Entries of the pool.", 1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Of measurements.", 1)
_STEPS = flags.DEFINE_integer("steps", 10, "Of each measurement.", 2)
_BATCH = flags.DEFINE_integer("batch_size", 8, "Images in a batch.", 1)
_SIZE = flags.DEFINE_integer("image_size", 64, "Side of the images.", 1)

_POOLS = [(dtype, memory) for memory in sharding.MEMORIES for dtype in DTYPES]


def main(argv: Sequence[str]) -> None:
    del argv
    contestants, in_use = {}, {}
    for pool in _POOLS:
        before = _bytes_in_use()
        contestants[pool] = _contestant(*pool)
        jax.block_until_ready(contestants[pool][1])
        in_use[pool] = (_bytes_in_use() - before) / 1e6
    for step, state in contestants.values():  # compiled before anything is timed
        _take(step, state, 2)
    seconds = {pool: [] for pool in _POOLS}
    for _ in range(_ROUNDS.value):
        for pool, (step, state) in contestants.items():
            started = time.perf_counter()
            _take(step, state, _STEPS.value)
            seconds[pool].append(time.perf_counter() - started)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {_NETWORK.value}")
    print("pool                  its MB  in use  steps/s  time beside the first")
    for (dtype, memory), (_, state) in contestants.items():
        pool = state[0].pool
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(pool)) / 1e6
        own = seconds[dtype, memory]
        ratios = [a / b for a, b in zip(own, seconds[_POOLS[0]], strict=True)]
        speed = _STEPS.value / statistics.median(own)
        print(
            f"{dtype:8} {memory:11} {size:7.1f} {in_use[dtype, memory]:7.1f} "
            f"{speed:8.2f}  "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def _bytes_in_use() -> int:
    """What the first device holds; 0 where it does not say."""
    return (jax.devices()[0].memory_stats() or {}).get("bytes_in_use", 0)


def _contestant(dtype: str, memory: str) -> tuple[Callable, list[TrainState]]:
    """A jitted step and a list that holds the state that it goes on from."""
    step, init, _ = casm.contestant(
        _NETWORK.value,
        _SIZE.value,
        sharding.data_mesh(),
        slots=_SLOTS.value,
        pool_dtype=dtype,
        pool_memory=memory,
    )
    return step, [init(jax.random.key(0))]


def _take(step: Callable, state: list[TrainState], count: int) -> None:
    batch = _batch(_BATCH.value, _SIZE.value)
    for index in range(count):
        state[0], metrics = step(state[0], batch, index % 2 == 0)
    jax.block_until_ready((state[0], metrics))


@functools.cache
def _batch(size: int, side: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (size, side, side, 3), np.uint8),
        "label": rng.integers(0, 100, size).astype(np.int32),
    }


if __name__ == "__main__":
    app.run(main)
