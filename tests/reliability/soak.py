r"""A long CASM run: memory, open files and compiled programs, counted.

    python -m tests.reliability.soak [--steps 2000]

The run is `configs/casm_shapes.py:smoke`, a checkpoint every 50 steps, an evaluation
and a picture every 100. The first 400 steps are its warm-up. Ends with code 1 where
resident memory then grows by 2 % or more, more files are open, or anything is compiled.
"""

import gc
import os
import resource
import tempfile
from pathlib import Path

import jax
from absl import app, flags, logging

import train
from saliency_jax.data.prepare import prepare
from saliency_jax.training.writers import Writer
from tests.runs import casm_config, classifier_config

_STEPS = flags.DEFINE_integer("steps", 2000, "Of the run.", 800)
WARM_UP, SAMPLED_EVERY = 400, 50


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)
    compiled, samples = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: (
            compiled.append(seconds) if "backend_compile" in event else None
        )
    )
    scalars = Writer.scalars

    def sampled(writer: Writer, step: int, values: dict) -> None:
        scalars(writer, step, values)
        if step % SAMPLED_EVERY == 0 and (not samples or samples[-1][0] < step):
            gc.collect()
            files = len(os.listdir("/proc/self/fd"))
            samples.append((step, resident_mib(), files, len(compiled)))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = str(folder / "data")
        prepare("shapes", data, image_size=32, num_train=600, num_validation=25)
        train.train(classifier_config(data), folder / "classifier")
        config = casm_config(
            data,
            folder / "classifier",
            total_steps=_STEPS.value,
            log__every=50,
            log__evaluate_every=100,
            log__picture_every=100,
            checkpoint__every=50,
            checkpoint__keep_last=2,
        )
        Writer.scalars = sampled
        train.train(config, folder / "casm")
    print("| step | resident, MiB | open files | programs compiled |")
    print("| --- | --- | --- | --- |")
    for step, memory, files, programs in samples:
        if step % (4 * SAMPLED_EVERY) == 0:
            print(f"| {step} | {memory:.1f} | {files} | {programs} |")
    settled = [sample for sample in samples if sample[0] >= WARM_UP]
    quarter = len(settled) // 4
    early, late = (
        sorted(sample[1] for sample in part)[quarter // 2]
        for part in (settled[:quarter], settled[-quarter:])
    )
    growth = late / early - 1
    print(f"resident memory: {early:.1f} to {late:.1f} MiB, {growth:+.2%}")
    assert growth < 0.02, "resident memory grows"
    # The least of each, since a checkpoint may be under way when a sample is taken.
    early, late = (
        min(sample[2] for sample in part)
        for part in (settled[:quarter], settled[-quarter:])
    )
    assert late <= early, "open files grow"
    assert settled[-1][3] == settled[0][3], "something was compiled again"


if __name__ == "__main__":
    app.run(main)
