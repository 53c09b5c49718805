r"""Time of training and of masks, beside PyTorch's of the same networks and weights.

    make bench        # on a CPU
    make bench-gpu    # on a GPU
    python -m benchmarks.versus_torch [--device gpu] [--only casm,masks] [--rounds 5] \
        [--steps 4] [--network resnet50] [--image_size 224] [--out table.json]

Rows: `forward`, a classifier's logits; `classifier`, its training step; `casm`, CASM's
step by the author's rules, every other one against a past classifier; `masks`, at each
of `--mask_batch_sizes`. All on one device, of images that lie there as uint8. Ours is
what `train.py` and `saliency_fn` do, in float32 on a CPU and in bfloat16 on a GPU.

PyTorch is `eager`: float32, as it is without any setting (but on a GPU cuDNN looks for
its fastest convolutions). And it is at its best: the fastest, by its median, of
channels last with fused optimisers, and of that compiled by `torch.compile` (for logits
and masks with weights as constants, on a GPU by CUDA graphs); on a GPU both with
autocast to bfloat16. Before a row is timed, all have to give what ours gives in
float32: the logits, the masks, the losses, CASM's of two steps.

Every round takes so many steps with each, in turn, in one process, after two that are
not counted. A ratio is PyTorch's time over ours within a round, above 1 where we are
faster: the median, and the least and the most. A step of training does not wait for the
one before; a mask is waited for.
On a CPU set GLIBC_TUNABLES=glibc.malloc.hugetlb=1, as `make` does.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import torch
from absl import flags

from benchmarks.versus_torch import theirs
from benchmarks.versus_torch.problem import Problem
from benchmarks.versus_torch.rows import DEVICES, ROWS, measure
from saliency_jax.environment import environment
from saliency_jax.errors import InputError, run_command, unknown
from saliency_jax.models.resnet import DEPTHS
from saliency_jax.report.table import format_table

HEADER = ("row", "images", "ours, ms", "eager", "best", "beside eager", "beside best")


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_enum("device", None, sorted(DEVICES), "Default: what JAX sees.")
    flags.DEFINE_list("only", list(ROWS), "Rows.")
    flags.DEFINE_integer("rounds", 5, "Of measurements.", 1)
    flags.DEFINE_integer("steps", 4, "Of a measurement, at least.", 1)
    flags.DEFINE_float("seconds", 0.5, "Of a measurement, at least.", 0.0)
    flags.DEFINE_enum("network", "resnet50", sorted(DEPTHS), "The classifier.")
    flags.DEFINE_integer("image_size", 224, "Side of the images.", 32)
    flags.DEFINE_integer("batch_size", None, "Of rows but masks; else by device.", 1)
    flags.DEFINE_list("mask_batch_sizes", None, "Of masks; else by device.")
    flags.DEFINE_bool("compile", True, "Whether PyTorch's best may be compiled.")
    flags.DEFINE_string("out", None, "A JSON file for the numbers.")


def choose_device(asked: str | None) -> str:
    """Where both libraries compute, one of `DEVICES`.

    Raises:
      InputError: they do not have it.
    """
    if asked == "cpu":
        jax.config.update("jax_platforms", "cpu")
    # PyTorch needs some of a GPU's memory, too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    seen = jax.default_backend()
    if seen not in DEVICES or asked not in (None, seen):
        raise InputError(
            f"JAX computes on a {seen} here, and this is for {asked or 'cpu or gpu'}: "
            "for a GPU install requirements.txt, for a CPU pass --device=cpu"
        )
    if seen == "gpu" and not torch.cuda.is_available():
        raise InputError(
            f"JAX sees a GPU, torch {torch.__version__} does not: install a build of "
            "it for CUDA, or pass --device=cpu"
        )
    # One setting of the process, so of `eager` as well.
    torch.backends.cudnn.benchmark = True
    return seen


def batch_sizes(row: str, device: str) -> tuple[int, ...]:
    """Those that a row is measured at.

    Raises:
      InputError: those that are asked for are no numbers of images.
    """
    asked, usual = flags.FLAGS.mask_batch_sizes, DEVICES[device].batch_sizes[row]
    if row != "masks":
        return (flags.FLAGS.batch_size,) if flags.FLAGS.batch_size else usual
    if asked is None:
        return usual
    if not all(size.isdecimal() and int(size) for size in asked):
        raise InputError(
            f"--mask_batch_sizes={','.join(asked)}: expected numbers such as 1,8"
        )
    return tuple(map(int, asked))


def line_of(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    best, ours = row["best"], row["median"][row["ours"]]
    cells = [row["row"], str(row["batch_size"]), f"{1e3 * ours:.2f}"]
    cells.append(f"{1e3 * row['median'][row['eager']]:.2f}")
    cells.append(f"{1e3 * row['median'][best]:.2f} ({best})")
    for name in ("beside_eager", "beside_best"):
        middle, least, most = row[name]
        cells.append(f"{middle:.2f} [{least:.2f}, {most:.2f}]")
    return cells


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise InputError(f"unexpected arguments {argv[1:]}: this takes flags")
    for name in values.only:
        if name not in ROWS:
            raise InputError(unknown("row", name, ROWS))
    if values.steps % 2 and "casm" in values.only:
        raise InputError(
            f"--steps={values.steps} is odd, and every other step of CASM is against a "
            "past classifier: give an even number"
        )
    device = choose_device(values.device)
    asked = [(row, size) for row in values.only for size in batch_sizes(row, device)]
    with_compiled = values.compile
    if with_compiled and (reason := theirs.cannot_compile(DEVICES[device].torch)):
        with_compiled = False
        print(f"torch.compile is left out, it does not work here: {reason}")
    told = environment()
    told["packages"]["torch"] = torch.__version__
    told |= {"threads": torch.get_num_threads(), "compiled": with_compiled}
    rows = []
    for name, size in asked:
        problem = Problem(values.network, values.image_size, size)
        print(f"{name}, batches of {size} ...", file=sys.stderr)
        rows.append(
            measure(
                name,
                problem,
                DEVICES[device],
                with_compiled=with_compiled,
                rounds=values.rounds,
                steps=values.steps,
                least=values.seconds,
            )
        )
        if values.out:  # what is measured is kept, whatever comes
            Path(values.out).parent.mkdir(parents=True, exist_ok=True)
            content = {"environment": told, "rows": rows}
            Path(values.out).write_text(json.dumps(content, indent=1) + "\n")
    print(
        f"{values.network}, {values.image_size} pixels, {told['device_kind']}, "
        f"{told['threads']} threads, jax {jax.__version__}, torch {torch.__version__}; "
        f"ours in {DEVICES[device].dtype}, {values.rounds} rounds"
    )
    print(format_table(HEADER, [line_of(row) for row in rows]))


if __name__ == "__main__":
    define_flags()
    run_command(main)
