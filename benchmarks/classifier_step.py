r"""Time of a classifier's training step, beside PyTorch's of the same network.

    python -m benchmarks.classifier_step [--network mobilenet_v1] [--rounds 5] \
        [--steps 4] [--batch_size 64] [--image_size 128]

Every round takes as many steps with each, in turn, in one process; the ratio is taken
within a round. A step is the loss on random images, its gradients and Adam's update.
PyTorch runs as it is advised to on a CPU, channels last, not compiled. Set
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 for both or for neither.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags

from benchmarks.adam import ADAM
from saliency_jax.models import create
from saliency_jax.training.classifier_step import make_classifier_step
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.state import TrainState, create_net
from tests.models import torch_backbones

_NETWORK = flags.DEFINE_enum(
    "network", "mobilenet_v1", sorted(torch_backbones.NETWORKS), "The classifier."
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Of measurements.", 1)
_STEPS = flags.DEFINE_integer("steps", 4, "Of each measurement.", 1)
_BATCH = flags.DEFINE_integer("batch_size", 64, "Images in a batch.", 1)
_SIZE = flags.DEFINE_integer("image_size", 128, "Side of the images.", 1)

_CLASSES = 100


def ours(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """Takes one step a call, and returns when it has been taken."""
    classifier = create.create_backbone(_NETWORK.value, _CLASSES)
    optimiser = create_optimiser(ADAM, 1)
    step = make_classifier_step(
        classifier, optimiser, mean=(0.5,) * 3, std=(0.5,) * 3, label_smoothing=0.0
    )
    networks = create.init_networks(classifier, None, jax.random.key(0), _SIZE.value)
    net = create_net(networks["classifier"], optimiser)
    state = [TrainState(jnp.zeros((), jnp.int32), net)]
    batch = {"image": jnp.asarray(images), "label": jnp.asarray(labels)}
    jitted = jax.jit(step, donate_argnums=0)

    def take() -> None:
        state[0], _ = jax.block_until_ready(jitted(state[0], batch))

    return take


def theirs(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """The same with PyTorch."""
    module = torch_backbones.NETWORKS[_NETWORK.value](_CLASSES).train()
    module = module.to(memory_format=torch.channels_last)
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    targets = torch.from_numpy(labels).long()
    optimiser = torch.optim.Adam(module.parameters(), 1e-4)

    def take() -> None:
        optimiser.zero_grad()
        logits, _ = module(inputs)
        torch.nn.functional.cross_entropy(logits, targets).backward()
        optimiser.step()

    return take


def main(argv: Sequence[str]) -> None:
    """Prints the median rates and ratio."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    rng = np.random.default_rng(0)
    shape = (_BATCH.value, _SIZE.value, _SIZE.value, 3)
    images = rng.integers(0, 256, shape, np.uint8)
    labels = rng.integers(0, _CLASSES, _BATCH.value).astype(np.int32)
    contestants = {
        "saliency_jax": ours(images, labels),
        "torch": theirs(images, labels),
    }
    for take in contestants.values():
        take()
        take()
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(_ROUNDS.value):
        for name, take in contestants.items():
            start = time.perf_counter()
            for _ in range(_STEPS.value):
                take()
            seconds = time.perf_counter() - start
            rates[name].append(_STEPS.value * _BATCH.value / seconds)
    ratios = [a / b for a, b in zip(*rates.values(), strict=True)]
    print(f"{_NETWORK.value}, {_SIZE.value} pixels, {_BATCH.value} images a batch")
    for name, of in rates.items():
        print(f"{name}: {statistics.median(of):.1f} images/s")
    print(
        f"ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
    )


if __name__ == "__main__":
    app.run(main)
