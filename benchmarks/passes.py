"""Time of insertion and deletion in forward passes of the classifier they ask.

    python -m benchmarks.passes [--images 1] [--moves 28] [--rounds 5]

MobileNetV2 at 224 pixels with random weights. A curve of 28 moves asks 29 times, so its
own work is what it takes above 29 bare passes over as many images; the issue that asked
for it allows 20 %. Curve and passes take turns in one process, and the ratio is taken
within a round. Each is called once before, which compiles.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from saliency_jax.errors import InputError, run_command
from saliency_jax.metrics.faithfulness.insertion_deletion import (
    deletion,
    insertion,
    insertion_deletion,
)
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import create_backbone

SIZE = 224


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_integer("images", 1, "Asked about at once.", 1)
    flags.DEFINE_integer("moves", 28, "Of a curve.", 1)
    flags.DEFINE_integer("rounds", 5, "Of measurements.", 1)


def seconds_of(function: Callable[[], object]) -> float:
    """Returns how long a call takes."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def main(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: this takes flags alone")
    count, moves = values.images, values.moves
    module = create_backbone("mobilenet_v2", 1000)
    variables = jax.jit(module.init, static_argnums=2)(
        jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)), False
    )
    classifier = Classifier(variables, module)
    random = np.random.default_rng(0)
    images = random.uniform(size=(count, SIZE, SIZE, 3)).astype(np.float32)
    maps = random.uniform(size=(count, SIZE, SIZE)).astype(np.float32)
    targets = jnp.zeros(count, jnp.int32)
    forward = jax.jit(lambda model, images: model(images))

    def passes(times: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                jax.block_until_ready(forward(classifier, images))

        return run

    asked = classifier, images, maps, targets
    options = {"moves": moves, "batch_size": count}
    contestants = {
        "insertion": (lambda: insertion(*asked, **options), moves + 1),
        "deletion": (lambda: deletion(*asked, **options), moves + 1),
        "both": (lambda: insertion_deletion(*asked, **options), 2 * (moves + 1)),
    }
    print(f"{count} images of {SIZE} pixels, {moves} moves, {values.rounds} rounds")
    for name, (curve, times) in contestants.items():
        bare = passes(times)
        curve(), bare()
        ratios = [seconds_of(curve) / seconds_of(bare) for _ in range(values.rounds)]
        print(
            f"{name:10} {statistics.median(ratios):.2f} "
            f"[{min(ratios):.2f}, {max(ratios):.2f}] times {times} forward passes",
            flush=True,
        )


if __name__ == "__main__":
    define_flags()
    run_command(main)
