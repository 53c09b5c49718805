"""Time of layers in training as XLA has them on a CPU, and as ours are there.

    python -m benchmarks.cpu_gradients [--rounds 9] [--batch_size 8]

Of a ResNet-50 at 224 pixels: of its stem the gradient of the first convolution's kernel
and that of its max-pooling (`models.cpu_gradients`); of its four stages a 3x3
convolution with both of its gradients (`models.winograd`). Every round takes each once,
in turn; the ratio is taken within a round.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Array

from saliency_jax.errors import InputError, run_command
from saliency_jax.models import cpu_gradients, winograd
from saliency_jax.models.cpu_gradients import Pads

_ROUNDS = flags.DEFINE_integer("rounds", 9, "Of measurements.", 1)
_BATCH = flags.DEFINE_integer("batch_size", 8, "Images in a batch.", 1)

_PAD_1: Pads = ((1, 1), (1, 1))
_PAD_3: Pads = ((3, 3), (3, 3))


def _pooling(x: Array, gradient: Array) -> Array:
    pool = partial(cpu_gradients.plain_max_pool_3x3, pads=_PAD_1)
    return jax.vjp(pool, x)[1](gradient)[0]


def _kernel(x: Array, gradient: Array) -> Array:
    kernel = jax.ShapeDtypeStruct((7, 7, 3, gradient.shape[-1]), x.dtype)
    return cpu_gradients.plain_gradient_of_kernel(x, gradient, kernel, 2, _PAD_3)


def _step(
    convolve: Callable[..., Array], kernel: Array, x: Array, gradient: Array
) -> Array:
    result, back = jax.vjp(convolve, x, kernel)
    return jnp.concatenate([each.ravel() for each in (result, *back(gradient))])


def main(argv: Sequence[str]) -> None:
    """Prints the median ratios."""
    if len(argv) > 1:
        raise InputError(f"unexpected arguments {argv[1:]}: this takes flags")
    rng = np.random.default_rng(0)
    maps = lambda side, channels: jnp.asarray(
        rng.standard_normal((_BATCH.value, side, side, channels), np.float32)
    )
    pool = partial(cpu_gradients.max_pool_3x3_gradient, pads=_PAD_1)
    kernel = partial(cpu_gradients.kernel_gradient, size=(7, 7), stride=2, pads=_PAD_3)
    layers = {
        "3x3 max-pooling": (_pooling, pool, jax.nn.relu(maps(112, 64)), maps(56, 64)),
        "7x7 kernel": (_kernel, kernel, maps(224, 3), maps(112, 64)),
    }
    plain = partial(cpu_gradients.convolution, stride=1, pads=_PAD_1)
    for side, channels in ((56, 64), (28, 128), (14, 256), (7, 512)):
        weights = rng.standard_normal((3, 3, channels, channels), np.float32)
        layers[f"3x3 convolution, {side}x{side}x{channels}"] = (
            partial(_step, plain, weights),
            partial(_step, winograd.trained_3x3, weights),
            maps(side, channels),
            maps(side, channels),
        )
    for name, (plain, ours, *arguments) in layers.items():
        ratios, forms = [], [jax.jit(plain), jax.jit(ours)]
        expected, found = (np.asarray(form(*arguments)) for form in forms)
        apart = np.abs(found - expected).max() / np.abs(expected).max()
        for _ in range(_ROUNDS.value):
            seconds = []
            for form in forms:
                start = time.perf_counter()
                jax.block_until_ready(form(*arguments))
                seconds.append(time.perf_counter() - start)
            ratios.append(seconds[0] / seconds[1])
        print(
            f"{name}: {statistics.median(ratios):.1f} times faster "
            f"[{min(ratios):.1f}, {max(ratios):.1f}], largest difference {apart:.0e}"
        )


if __name__ == "__main__":
    run_command(main)
