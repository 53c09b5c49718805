r"""Cost against image size, batch, classes, pool, data set and devices; the exponents.

    python -m benchmarks.growth [--only image_sizes,examples] [--rounds 5] \
        [--out growth.json]

Every round takes all values of a quantity in turn, in one process; a cost is the median
over the rounds. "exponent" is that of the power law that fits all values best, by least
squares of logarithms: 0 for a cost that does not grow, 1 for one in proportion. "at the
large end" is that between the two largest values, where a constant part counts least:
the median over rounds, and the least and the most. Above 1.1 there the command says
"worse than linear".

The step is CASM's (two steps, one against the current and one against a past critic).
On a CPU the time is the processor's, of all threads, which other work beside disturbs
little; elsewhere it is the wall's. Devices are always virtual ones of a CPU.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from tqdm import tqdm

from benchmarks.growth import data, devices, step
from benchmarks.growth.curves import CLOCKS, Measured, measure
from saliency_jax.environment import environment
from saliency_jax.errors import InputError, run_command, unknown
from saliency_jax.models import create
from saliency_jax.report.files import write_json
from saliency_jax.report.table import format_table

LINEAR = 1.1
"""The most that an exponent of a linear cost is measured as."""

QUANTITIES = {
    "image_sizes": "pixels of an image",
    "batch_sizes": "images in a batch",
    "classes": "classes",
    "slots": "entries of the pool",
    "examples": "images in the data set",
    "devices": "devices",
}


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_list("only", list(QUANTITIES), "The quantities to measure.")
    flags.DEFINE_integer("rounds", 5, "Of measurements.", 1)
    flags.DEFINE_float("seconds", 0.5, "Least time of a measurement.", 0.0)
    flags.DEFINE_enum("clock", None, list(CLOCKS), "By default as described above.")
    flags.DEFINE_enum("network", "resnet10", sorted(create.BACKBONES), "Classifier.")
    flags.DEFINE_integer("image_size", 64, "Side, where it does not grow.", 1)
    flags.DEFINE_integer("batch_size", 8, "Images, where they do not grow.", 1)
    flags.DEFINE_integer("num_classes", 100, "Where they do not grow.", 2)
    flags.DEFINE_list("image_sizes", ["32", "64", "128", "256"], "Sides of the images.")
    flags.DEFINE_list(
        "batch_sizes", ["1", "2", "4", "8", "16", "32"], "Sizes of batches."
    )
    flags.DEFINE_list("classes", ["10", "100", "1000", "10000"], "Numbers of classes.")
    flags.DEFINE_list("slots", ["1", "4", "16", "64"], "Numbers of entries.")
    flags.DEFINE_list("examples", ["1000", "10000", "100000", "1000000"], "Data sets.")
    flags.DEFINE_list("devices", ["1", "2", "4", "8"], "Numbers of devices.")
    flags.DEFINE_string("out", None, "A JSON file for all that was measured.")


def main(argv: Sequence[str]) -> None:
    """Prints a table for each quantity, and writes the JSON file."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: this takes flags alone")
    options = flags.FLAGS
    for name in options.only:
        if name not in QUANTITIES:
            raise InputError(f"--only: {unknown('quantity', name, QUANTITIES)}")
    values = {name: numbers_of(name, options[name].value) for name in options.only}
    setting = step.Setting(
        options.network, options.image_size, options.batch_size, options.num_classes
    )
    clock = options.clock
    if clock is None:
        clock = "processor" if jax.default_backend() == "cpu" else "wall"
    how = {"clock": clock, "rounds": options.rounds, "seconds": options.seconds}
    found = {}
    for name in tqdm(options.only, disable=None):
        if name == "devices":
            found[name] = devices.over_devices(
                setting, values[name], options.rounds, options.seconds
            )
        else:
            curves = _CURVES[name](setting, values[name])
            found[name] = measure(curves, **how)
        tqdm.write(table_of(QUANTITIES[name], found[name]) + "\n")
    print(verdict(found))
    if options.out:
        write_json(Path(options.out), as_json(found, setting, how))


_CURVES: dict[str, Callable[..., Any]] = {
    "image_sizes": step.over_pixels,
    "batch_sizes": step.over_batch,
    "classes": step.over_classes,
    "slots": step.over_pool,
    "examples": lambda setting, numbers: data.over_examples(
        setting.batch_size, numbers
    ),
}


def numbers_of(flag: str, texts: Sequence[str]) -> list[int]:
    """The values that a flag names.

    Raises:
      InputError: they are fewer than two, or not rising positive numbers.
    """
    numbers = [int(text) if text.isdecimal() else 0 for text in texts]
    rising = all(a < b for a, b in zip([0, *numbers], numbers, strict=False))
    if len(numbers) < 2 or not rising:
        raise InputError(
            f"--{flag}={','.join(texts)}: expected at least two positive numbers, each "
            "greater than the one before"
        )
    return numbers


def table_of(quantity: str, measured: Sequence[Measured]) -> str:
    """A row for each curve: its medians and its exponents."""
    values = sorted({value for curve in measured for value in curve.values})
    rows = []
    for curve in measured:
        medians = dict(zip(curve.values, curve.medians(), strict=True))
        last = curve.last_exponents()
        rows.append(
            [
                f"{curve.what}, {curve.unit}" if curve.unit else curve.what,
                *(f"{medians[v]:,.2f}" if v in medians else "-" for v in values),
                f"{curve.exponent():.2f}",
                f"{curve.last_exponent():.2f} [{min(last):.2f}, {max(last):.2f}]",
            ]
        )
    header = [quantity, *(f"{v:,}" for v in values), "exponent", "at the large end"]
    return format_table(header, rows)


def verdict(found: dict[str, Sequence[Measured]]) -> str:
    """Which curves are worse than linear at the large end, if any."""
    ends = [
        (curve.last_exponent(), f"{curve.what} over {QUANTITIES[name]}")
        for name, measured in found.items()
        for curve in measured
    ]
    worse = [f"{what} ({end:.2f})" for end, what in ends if end > LINEAR]
    if worse:
        return f"worse than linear: {'; '.join(worse)}"
    end, what = max(ends)
    return f"nothing is worse than linear; the most is {what} ({end:.2f})"


def as_json(
    found: dict[str, Sequence[Measured]], setting: step.Setting, how: dict[str, Any]
) -> dict[str, Any]:
    """All that was measured, and what with."""
    return {
        "how": {**environment(), **how, **setting._asdict()},
        "quantities": {
            name: [
                {
                    **curve._asdict(),
                    "medians": curve.medians(),
                    "exponent": curve.exponent(),
                    "last_exponent": curve.last_exponent(),
                }
                for curve in measured
            ]
            for name, measured in found.items()
        },
    }


if __name__ == "__main__":
    define_flags()
    run_command(main)
