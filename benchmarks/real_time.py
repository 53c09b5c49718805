r"""Masks per second of both kinds of masker: one image at a time, and saturated.

    python -m benchmarks.real_time [--network resnet50] [--image_sizes 224,32] \
        [--rounds 5] [--calls 200] [--out real_time.json]

CASM's masker and the selective one of Dabkowski and Gal, of the published configs
(`configs/casm_imagenet.py`, `configs/black_box_imagenet.py`), 1,000 classes, in
float32. The weights are random: the time does not depend on them. The selective masker
is told the class, so no black box is asked.

* Latency, at batch 1: from a uint8 image in the host's memory to its mask there.
* Throughput: batches that are in the device's memory already, one call under way while
  the next is sent off. Batches are doubled until twice in a row that brings less than
  5 % more ("saturated": the smallest batch within 5 % of the best; "+" after it where
  --max_batch ended this).

Both maskers take turns in every round.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from configs import black_box_imagenet, casm_imagenet
from saliency_jax import Masker, saliency_fn
from saliency_jax.environment import environment
from saliency_jax.errors import InputError, run_command
from saliency_jax.models import create
from saliency_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD, Classifier
from saliency_jax.report.files import write_json
from saliency_jax.report.table import format_table

CLASSES = 1000
GAIN = 1.05
"""What a doubled batch has to bring to be worth it."""


def define_flags() -> None:
    """Defines the flags of this command."""
    networks = sorted(create.BACKBONES)
    flags.DEFINE_enum("network", "resnet50", networks, "Classifier and encoder.")
    flags.DEFINE_integer("width", 0, "Of a ResNet; 0 is its own.", 0)
    flags.DEFINE_string("stem", "", "Of a ResNet, such as small; empty is its own.")
    flags.DEFINE_list("image_sizes", ["224", "32"], "Sides of the images.")
    flags.DEFINE_integer("rounds", 5, "Of measurements.", 1)
    flags.DEFINE_integer("calls", 200, "At batch 1, in all rounds together.", 1)
    flags.DEFINE_float("seconds", 1.0, "Least time of a throughput.", 0.0)
    flags.DEFINE_integer("max_batch", 512, "The largest batch that is tried.", 1)
    flags.DEFINE_string("out", None, "A JSON file for all that was measured.")


def random_casm_masker(image_size: int, **network: Any) -> Masker:
    """CASM's masker of the published config, and its classifier.

    Args:
      image_size: side in pixels.
      **network: fields of the config's `classifier`, such as `network` and `width`.
    """
    config = casm_imagenet.get_config()
    config.classifier.update(num_classes=CLASSES, dtype="float32", **network)
    classifier = create.create_classifier(config.classifier)
    module = create.create_masker(config.masker, classifier)
    init = partial(create.init_networks, classifier, module, image_size=image_size)
    variables = jax.jit(init)(jax.random.key(0))
    return Masker(
        variables["masker"],
        Classifier(variables["classifier"], classifier),
        module,
        image_size=image_size,
    )


def random_selective_masker(image_size: int, **network: Any) -> Masker:
    """The selective masker of the published config, without a black box.

    Args:
      image_size: side in pixels.
      **network: fields of the config's `encoder`, such as `network` and `width`.
    """
    config = black_box_imagenet.get_config()
    config.encoder.update(num_classes=CLASSES, dtype="float32", **network)
    encoder = create.create_classifier(config.encoder)
    module = create.create_selective_masker(config.masker, encoder, CLASSES)
    init = partial(create.init_selective_masker, module, image_size=image_size)
    return Masker(
        jax.jit(init)(jax.random.key(0)),
        None,
        module,
        confidence=config.masker.confidence,
        encoder_mean=IMAGENET_MEAN,
        encoder_std=IMAGENET_STD,
        image_size=image_size,
    )


MASKERS: Mapping[str, Callable[..., Masker]] = {
    "CASM": random_casm_masker,
    "selective": random_selective_masker,
}


def latencies(masker: Masker, calls: int) -> list[float]:
    """Milliseconds of as many calls with one image, from host to host."""
    image, label = noise(masker, 1), np.zeros(1, np.int32)
    found = []
    for _ in range(calls):
        started = time.perf_counter()
        np.asarray(saliency_fn(masker, image, label))
        found.append(1e3 * (time.perf_counter() - started))
    return found


def throughput(masker: Masker, batch_size: int, seconds: float) -> float:
    """Masks per second, measured for at least so many seconds."""
    images = jax.device_put(noise(masker, batch_size))
    labels = jax.device_put(np.zeros(batch_size, np.int32))
    jax.block_until_ready(saliency_fn(masker, images, labels))
    batches, waiting, started = 0, None, time.perf_counter()
    while not batches or time.perf_counter() - started < seconds:
        # One call ahead and no more: the device's memory holds every result.
        waiting, done = saliency_fn(masker, images, labels), waiting
        jax.block_until_ready(done)
        batches += 1
    jax.block_until_ready(waiting)
    return batches * batch_size / (time.perf_counter() - started)


def noise(masker: Masker, batch_size: int) -> np.ndarray:
    """A batch of random images."""
    shape = (batch_size, masker.image_size, masker.image_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def growing_batches(
    rate_of: Mapping[str, Callable[[int], float]], rounds: int, max_batch: int
) -> dict[str, dict[int, list[float]]]:
    """Doubles the batch for as long as it pays.

    Args:
      rate_of: of each contestant, its rate at a batch size.
      rounds: of measurements at each size; in each, the contestants take turns.
      max_batch: the largest that is tried.

    Returns:
      By contestant and batch size, the rate of each round.
    """
    rates: dict[str, dict[int, list[float]]] = {name: {} for name in rate_of}
    growing, size = list(rate_of), 1
    while growing and size <= max_batch:
        for _ in range(rounds):
            for name in growing:
                rates[name].setdefault(size, []).append(rate_of[name](size))
        growing = [name for name in growing if pays(rates[name])]
        size *= 2
    return rates


def pays(rates: Mapping[int, Sequence[float]]) -> bool:
    """Whether one of the last two doublings was worth it: one alone may be bad luck."""
    medians = [statistics.median(rates[size]) for size in sorted(rates)]
    return len(medians) < 3 or max(medians[-2:]) > GAIN * max(medians[:-2])


def saturation(rates: Mapping[int, Sequence[float]]) -> tuple[int, float]:
    """The smallest batch whose rate is within 5 % of the best, and its rate."""
    medians = {size: statistics.median(rates[size]) for size in sorted(rates)}
    best = max(medians.values())
    return next((size, rate) for size, rate in medians.items() if GAIN * rate >= best)


def measure(image_size: int, **network: Any) -> list[dict[str, Any]]:
    """What is found of each masker at a size."""
    options = flags.FLAGS
    maskers = {name: make(image_size, **network) for name, make in MASKERS.items()}
    for masker in maskers.values():
        latencies(masker, 1)  # compiles
    of_calls: dict[str, list[float]] = {name: [] for name in maskers}
    for _ in range(options.rounds):
        for name, masker in maskers.items():
            calls = -(-options.calls // options.rounds)
            of_calls[name] += latencies(masker, calls)
    rates = growing_batches(
        {
            name: partial(throughput, masker, seconds=options.seconds)
            for name, masker in maskers.items()
        },
        options.rounds,
        options.max_batch,
    )
    found = []
    for name in maskers:
        p50, p99 = np.percentile(of_calls[name], (50, 99))
        size, rate = saturation(rates[name])
        found.append(
            {
                "masker": name,
                "image_size": image_size,
                "latency_p50_ms": float(p50),
                "latency_p99_ms": float(p99),
                "latencies": len(of_calls[name]),
                "masks_per_second_at_batch_1": statistics.median(rates[name][1]),
                "masks_per_second_saturated": rate,
                "saturated_at_batch": size,
                "still_growing": pays(rates[name]),
                "masks_per_second": rates[name],
            }
        )
    return found


def main(argv: Sequence[str]) -> None:
    """Prints the table, and writes the JSON file."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: this takes flags alone")
    options = flags.FLAGS
    if not all(text.isdecimal() and int(text) for text in options.image_sizes):
        raise InputError(
            f"--image_sizes={','.join(options.image_sizes)}: expected sides in pixels, "
            "such as 224,32"
        )
    network = {"network": options.network}
    network |= {name: options[name].value for name in ("width", "stem")}
    found = []
    for size in map(int, options.image_sizes):
        found += measure(size, **network)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {options.network}")
    print(table_of(found))
    if options.out:
        how = {**environment(), **network, "rounds": options.rounds}
        write_json(Path(options.out), {"how": how, "maskers": found})


def table_of(found: Sequence[Mapping[str, Any]]) -> str:
    """A row for each masker and size."""
    header = ["masker", "pixels", "p50, ms", "p99, ms", "masks/s at batch 1"]
    rows = [
        [
            one["masker"],
            str(one["image_size"]),
            f"{one['latency_p50_ms']:.2f}",
            f"{one['latency_p99_ms']:.2f}",
            f"{one['masks_per_second_at_batch_1']:,.1f}",
            f"{one['masks_per_second_saturated']:,.1f}",
            f"{one['saturated_at_batch']}{'+' * one['still_growing']}",
        ]
        for one in found
    ]
    return format_table([*header, "saturated, masks/s", "at batch"], rows)


if __name__ == "__main__":
    define_flags()
    run_command(main)
