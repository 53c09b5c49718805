r"""Writes the masker of a run as one file, for programs without the run.

    python -m saliency_jax.export runs/casm --out casm.safetensors
    python -m saliency_jax.export runs/casm --out masker.safetensors --form masker

The first is a program in StableHLO, for `load_exported`: JAX runs it on a CPU or an
NVIDIA GPU without Flax and without the networks' code, for as long as JAX reads it (six
months). The second is the masker itself, for `load_masker`, and does not age. Instead
of a run it takes such a file, too. In the end the file is read again, and its masks of
two random images are compared with the masker's, where its platforms are here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from absl import flags

from saliency_jax.errors import InputError, run_command
from saliency_jax.export.exporting import Weights, export_masker
from saliency_jax.export.loading import load_exported, platform_here
from saliency_jax.models.create import IMAGE_SIZE
from saliency_jax.models.selective_masker import SelectiveMasker
from saliency_jax.saliency import load_masker, saliency_fn


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("out", None, "File to write; ends in .safetensors.")
    flags.DEFINE_enum(
        "form", "program", ("program", "masker"), "What the file holds; see above."
    )
    flags.DEFINE_string(
        "checkpoint", "last", "Of the run: last, best, or the step of a kept one."
    )
    flags.DEFINE_bool("int8", False, "Store kernels in eight bits.")
    flags.DEFINE_enum(
        "weights",
        "beside",
        get_args(Weights),
        "Where a program has its weights: beside it, as arrays of the same file, or "
        "inside, as constants.",
    )
    flags.DEFINE_integer(
        "image_size",
        None,
        "Side in pixels of a program's images; by default any multiple of 32.",
        1,
    )
    flags.DEFINE_list("platforms", ["cpu", "cuda"], "That a program runs on.")


def main(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) != 2 or not values.out:
        raise InputError("needs the workdir of one run, and --out FILE.safetensors")
    masker, out = load_masker(argv[1], values.checkpoint), Path(values.out)
    if values.form == "masker":
        masker.save(out, int8=values.int8)
        loaded = load_masker(out)
        again = lambda *asked: saliency_fn(loaded, *asked)
    else:
        export_masker(
            masker,
            out,
            image_size=values.image_size,
            weights=values.weights,
            int8=values.int8,
            platforms=values.platforms,
        )
        if platform_here() not in values.platforms:
            print(f"{out}: for {', '.join(values.platforms)}, so not tried here")
            return
        again = load_exported(out)
    size = values.image_size or masker.image_size or IMAGE_SIZE
    shape = (2, size, size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    asked = [images]
    if isinstance(masker.module, SelectiveMasker):
        asked.append(np.zeros(2, np.int32))
    difference = np.abs(again(*asked) - saliency_fn(masker, *asked)).max()
    print(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB; masks of random images differ from "
        f"the masker's by at most {difference:.1g}"
    )


if __name__ == "__main__":
    define_flags()
    run_command(main)
