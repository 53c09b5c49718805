r"""Time of metrics that ask the classifier again, beside Quantus's.

    python -m venv /tmp/quantus
    /tmp/quantus/bin/pip install -r requirements-cpu.txt \
        -r benchmarks/requirements-quantus.txt
    /tmp/quantus/bin/python -m benchmarks.faithfulness [--images 16] \
        [--image_size 64] [--rounds 7]

Both judge the same maps of the same images by a narrow ResNet-10 of the same weights,
on a CPU, with as many edited images. They take turns in one process, and the ratio is
taken within a round; above 1 where we are faster. Each answers once before, which
compiles.
Where other work is on the machine, PyTorch's threads wait for each other, up to ten
times as long as they work: then `taskset -c 0 env OMP_NUM_THREADS=1` before it all.

Quantus asks other questions than its papers and we do, so that only two rows have
figures to compare, and only nearly (docs/definitions.md):

* `pixel_flipping`: our deletion, 24 moves. Quantus takes the three channels of a pixel
  for features of their own; the row's difference is the greatest of two curves.
* `max_sensitivity`: of the gradient, 10 draws; the difference is that of the means over
  the images, which draw different noise, relative to ours.
* `infidelity`: squares. Quantus's are of one side, cover the image without gaps and
  stay, so that the last images are nearly black; ours are drawn one by one.
"""

import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from saliency_jax.attribution.gradients.plain import gradient
from saliency_jax.errors import InputError, run_command
from saliency_jax.metrics.faithfulness.infidelity import infidelity
from saliency_jax.metrics.faithfulness.insertion_deletion import deletion
from saliency_jax.metrics.faithfulness.max_sensitivity import max_sensitivity
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import create_backbone
from tests.models import reproducible

_IMAGES = flags.DEFINE_integer("images", 16, "Judged by a call.", 1)
_SIZE = flags.DEFINE_integer("image_size", 64, "Their side.", 32)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Of measurements.", 1)

CLASSES, WIDTH = 10, 16
STAGES = (1, 1, 1, 1)
MEAN, STD = 0.5, 0.25
MOVES, DRAWS, RADIUS = 24, 10, 0.02  # Quantus moves no number but a divisor of H W
SQUARES_ACROSS = 8


class Question(NamedTuple):
    """What both are asked: images in [0, 1], a class of each, and maps."""

    images: np.ndarray
    targets: np.ndarray
    maps: np.ndarray


Answer = Callable[[Question], np.ndarray]
"""Curves `[B, N]` or figures `[B]`."""


def ours() -> dict[str, Answer]:
    """Our metrics by the names of the rows."""
    network = create_backbone("resnet10", CLASSES, width=WIDTH)
    variables = reproducible.variables(network, jnp.zeros((1, 32, 32, 3)))
    classifier = Classifier(variables, network, 3 * (MEAN,), 3 * (STD,))
    explain = lambda images, targets: gradient(
        classifier, images, targets, reduction=None
    )
    return {
        "pixel_flipping": lambda asked: np.asarray(
            deletion(
                classifier, asked.images, asked.maps, asked.targets, moves=MOVES
            ).scores
        )[:, 1:],
        "max_sensitivity": lambda asked: np.asarray(
            max_sensitivity(
                explain, asked.images, asked.targets, radius=RADIUS, draws=DRAWS
            ).maximum
        ),
        "infidelity": lambda asked: np.asarray(
            infidelity(
                classifier,
                asked.images,
                asked.maps,
                asked.targets,
                samples=SQUARES_ACROSS**2,
            ).infidelity
        ),
    }


def theirs(size: int) -> dict[str, Answer]:
    """Quantus's metrics by the names of the rows.

    Args:
      size: of the images.

    Raises:
      InputError: it is not installed.
    """
    try:
        import quantus
        import torch
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed: pip install -r "
            "benchmarks/requirements-quantus.txt"
        ) from error
    from tests.models import torch_resnet

    network = torch_resnet.TorchResNet(STAGES, False, CLASSES, WIDTH)
    arrays = reproducible.state_dict(torch_resnet.shapes_of(network))
    module = torch_resnet.Logits(torch_resnet.load(network, arrays)).eval()

    def explain(model, inputs, targets, **_):
        inputs = torch.as_tensor(inputs).float().requires_grad_()
        scores = model(inputs)[torch.arange(len(inputs)), torch.as_tensor(targets)]
        return torch.autograd.grad(scores.sum(), inputs)[0].numpy()

    plain = {"normalise": False, "disable_warnings": True}
    metrics = {
        "pixel_flipping": quantus.PixelFlipping(
            features_in_step=3 * size * size // MOVES,
            perturb_baseline=0.0,
            **plain,
        ),
        "max_sensitivity": quantus.MaxSensitivity(
            nr_samples=DRAWS, lower_bound=RADIUS / STD, **plain
        ),
        "infidelity": quantus.Infidelity(
            perturb_patch_sizes=[size // SQUARES_ACROSS],
            n_perturb_samples=1,
            perturb_baseline=0.0,
            **plain,
        ),
    }

    def answer(name: str, asked: Question) -> np.ndarray:
        inputs = ((asked.images - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
        maps = asked.maps[:, None]
        if name == "max_sensitivity":
            maps = explain(module, inputs, asked.targets)
        scores = metrics[name](
            model=module,
            x_batch=np.ascontiguousarray(inputs),
            y_batch=asked.targets,
            a_batch=maps,
            explain_func=explain,
            channel_first=True,
            softmax=name == "pixel_flipping",
            device="cpu",
            batch_size=len(inputs),
        )
        return np.asarray(scores)

    return {name: lambda asked, name=name: answer(name, asked) for name in metrics}


def question(random: np.random.Generator, count: int, size: int) -> Question:
    """A new one: coarse random images and maps."""
    coarse = random.uniform(size=(count, 8, 8, 3)).astype(np.float32)
    images = np.asarray(jax.image.resize(coarse, (count, size, size, 3), "linear"))
    maps = random.normal(size=(count, size, size)).astype(np.float32)
    return Question(images, random.integers(0, CLASSES, count), maps)


def difference(name: str, found: np.ndarray, other: np.ndarray) -> float:
    """How far the answers are from each other; NaN where the questions differ."""
    return {
        "pixel_flipping": lambda: np.abs(found - other).max(),
        "max_sensitivity": lambda: abs(other.mean() / found.mean() - 1),
        "infidelity": lambda: np.nan,
    }[name]()


def seconds_of(answer: Answer, asked: Question) -> float:
    """How long one answer takes."""
    start = time.perf_counter()
    answer(asked)
    return time.perf_counter() - start


def main(argv: Sequence[str]) -> None:
    """Prints the table, row by row."""
    if len(argv) > 1:
        raise InputError(f"unexpected arguments {argv[1:]}: this takes flags")
    jax.config.update("jax_platforms", "cpu")
    warnings.filterwarnings("ignore", module="quantus")
    count, size = _IMAGES.value, _SIZE.value
    both = ours(), theirs(size)
    random = np.random.default_rng(0)
    print(
        f"ResNet-10 of width {WIDTH}, {count} images of {size} pixels, "
        f"{_ROUNDS.value} rounds, {len(os.sched_getaffinity(0))} cores\n"
        f"{'row':18}{'ours, s':>9}{'Quantus':>9}{'ratio':>7} {'[from, to]':14}"
        f"{'difference':>10}"
    )
    for name in both[0]:
        asked = question(random, count, size)
        apart = difference(name, *(metrics[name](asked) for metrics in both))
        rounds = []
        for _ in range(_ROUNDS.value):
            asked = question(random, count, size)
            rounds.append([seconds_of(metrics[name], asked) for metrics in both])
        medians = [statistics.median(seconds) for seconds in zip(*rounds, strict=True)]
        ratios = [other / own for own, other in rounds]
        print(
            f"{name:18}{medians[0]:9.3f}{medians[1]:9.3f}"
            f"{statistics.median(ratios):7.2f} "
            f"{f'[{min(ratios):.2f}, {max(ratios):.2f}]':14}{apart:10.4f}",
            flush=True,
        )


if __name__ == "__main__":
    run_command(main)
