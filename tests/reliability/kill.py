r"""SIGKILL at random moments of training, preparation and evaluation, counted.

    python -m tests.reliability.kill [--training 20] [--preparing 5] [--evaluating 5]

Each is killed again and again, started again by the same command, and in the end
compared with one that nobody disturbed: training bit for bit, the prepared files byte
for byte, and all figures of a table but times and memory. Ends with code 1 at the first
difference, or where a kill takes more than the steps since the last save and those of a
checkpoint that was still being written.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import app, flags, logging

from saliency_jax.training.checkpoints import checkpoint_folder, saved_steps
from tests import commands
from tests.runs import assert_same_bits, lines_of
from tests.several import casm_arguments

_TRAINING = flags.DEFINE_integer("training", 20, "Kills while training.", 0)
_PREPARING = flags.DEFINE_integer("preparing", 5, "Kills while preparing data.", 0)
_EVALUATING = flags.DEFINE_integer("evaluating", 5, "Kills while evaluating.", 0)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")

EVERY, STEPS = 5, 200
UNMEASURABLE = ("images_per_second", "first_seconds", "peak_gib")  # of a table


def start(*command: str | Path) -> subprocess.Popen:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}
    return commands.start(*command, environment=environment)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def killed(process: subprocess.Popen, when: Iterator[bool]) -> bool:
    """Kills a process at the first True; whether it had not ended before."""
    for now in when:
        if process.poll() is not None:
            break
        if now:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    _, errors = process.communicate(timeout=600)
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0


def after(seconds: float, condition: Callable[[], bool] = lambda: True) -> Iterator:
    """False until so many seconds after a condition was first met."""
    while not condition():
        yield False
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield False
    yield True


def last_step(workdir: Path) -> int:
    return max(saved_steps(workdir, "last"), default=0)


def kill_training(folder: Path, kills: int, rng: random.Random) -> Counter:
    data = folder / "data"
    prepare = ["-m", "saliency_jax.data", "prepare", "shapes", "--image_size=32"]
    sizes = ["--num_train=60", "--num_validation=25", f"--data_dir={data}"]
    finish(start(*prepare, *sizes))
    program = ["-m", "tests.one_of_several"]
    options = ["--config.data.name=shapes/32x32", f"--config.data.data_dir={data}"]
    classifier = folder / "classifier"
    smoke = ["--config=configs/classifier_shapes.py:smoke", f"--workdir={classifier}"]
    finish(start(*program, *smoke, *options, "--config.classifier.network=resnet4"))
    command = [
        *program,
        *casm_arguments(
            data,
            classifier,
            total_steps=STEPS,
            checkpoint__every=EVERY,
            log__evaluate_every=STEPS,
            log__picture_every=STEPS,
        ),
    ]
    undisturbed = folder / "undisturbed"
    began = time.monotonic()
    finish(start(*command, f"--workdir={undisturbed}"))
    seconds = time.monotonic() - began
    told, number, workdir = Counter(), 0, folder / "run_0"
    while sum(told.values()) < kills:
        before, figures = last_step(workdir), workdir / "metrics.jsonl"

        started = time.time()

        def is_training(figures=figures, started=started) -> bool:
            # Not what is left of the run before, which a start cuts off.
            return figures.exists() and figures.stat().st_mtime > started

        def is_saving(workdir=workdir) -> bool:
            unfinished = checkpoint_folder(workdir, "last").glob("*tmp*")
            partial = checkpoint_folder(workdir, "pool").glob("*.partial")
            return is_training() and any((*unfinished, *partial))

        moments = {
            "at any moment": after(rng.uniform(0, seconds)),
            "between steps": after(rng.uniform(0, 3), is_training),
            "while a checkpoint is written": after(rng.uniform(0, 0.05), is_saving),
        }
        moment = rng.choice(sorted(moments))
        if killed(start(*command, f"--workdir={workdir}"), moments[moment]):
            told[moment] += 1
            saved = last_step(workdir)
            told_of = lines_of(workdir) if figures.exists() else []
            written = [0, *(line["step"] for line in told_of)]
            assert saved >= before, f"{saved} after {before}"
            # The steps since, and those of a checkpoint that was being written.
            assert max(written) - saved <= 2 * EVERY, f"{saved} of {max(written)}"
            print(f"killed {moment}: step {saved} is saved", flush=True)
        else:
            compare_runs(workdir, undisturbed)
            number += 1
            workdir = folder / f"run_{number}"
    finish(start(*command, f"--workdir={workdir}"))
    compare_runs(workdir, undisturbed)
    return told


def compare_runs(workdir: Path, undisturbed: Path) -> None:
    assert last_step(workdir) == STEPS
    assert_same_bits(workdir, undisturbed)
    times = ("time", "images_per_second")
    figures, expected = (
        [{k: v for k, v in line.items() if k not in times} for line in lines_of(run)]
        for run in (workdir, undisturbed)
    )
    assert figures == expected
    print(f"{workdir.name} became the undisturbed run, bit for bit", flush=True)


def kill_preparation(folder: Path, kills: int, rng: random.Random) -> Counter:
    prepare = ["-m", "saliency_jax.data", "prepare", "shapes", "--image_size=64"]
    command = [*prepare, "--num_train=4000", "--num_validation=500"]
    began = time.monotonic()
    finish(start(*command, f"--data_dir={folder / 'undisturbed'}"))
    seconds, told, number = time.monotonic() - began, Counter(), 0
    expected = digests(folder / "undisturbed")
    while told.total() < kills:
        data = folder / f"data_{number}"
        process = start(*command, f"--data_dir={data}")
        if killed(process, after(rng.uniform(0.2, 1) * seconds)):
            told["while data is prepared"] += 1
            whole = [*data.glob("shapes/*/1.0.0")]
            assert not whole or digests(data) == expected, "taken for whole"
            print(f"killed while preparing {data.name}", flush=True)
        else:
            assert digests(data) == expected
            number += 1
    finish(start(*command, f"--data_dir={folder / f'data_{number}'}"))
    assert digests(folder / f"data_{number}") == expected
    return told


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("shapes/*/1.0.0/*.array_record*"))
    }


def kill_evaluation(folder: Path, kills: int, rng: random.Random) -> Counter:
    """Of the classifier and the data that `kill_training` has left."""
    command = [
        *["evaluate.py", f"--classifier={folder / 'classifier'}"],
        *["--data=shapes/32x32", f"--data_dir={folder / 'data'}"],
        "--methods=gradient,input_x_gradient,guided_backprop,smooth_grad:samples=4",
        "--metrics=localisation,insertion,deletion",
    ]
    program = "import tests.runs, runpy, sys; sys.argv = sys.argv[1:]; " + (
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = ["-c", program, *command]
    began = time.monotonic()
    finish(start(*command, f"--out={folder / 'table'}"))
    seconds, told, number = time.monotonic() - began, Counter(), 0
    while told.total() < kills:
        out = folder / f"table_{number}"
        process = start(*command, f"--out={out}")
        if killed(process, after(rng.uniform(0.2, 1) * seconds)):
            told["while methods are evaluated"] += 1
            rows = len([*(out / "rows").glob("*")])
            print(f"killed while evaluating: {rows} passes are kept", flush=True)
        else:
            assert figures_of(out) == figures_of(folder / "table")
            number += 1
    finish(start(*command, f"--out={folder / f'table_{number}'}"))
    assert figures_of(folder / f"table_{number}") == figures_of(folder / "table")
    return told


def figures_of(out: Path) -> dict[str, dict]:
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    return {
        name: {k: v for k, v in row["figures"].items() if k not in UNMEASURABLE}
        for name, row in rows.items()
    }


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)  # orbax reports every file
    rng, told = random.Random(_SEED.value), Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told += kill_training(folder, _TRAINING.value, rng)
        told += kill_evaluation(folder, _EVALUATING.value, rng)
        told += kill_preparation(folder / "preparing", _PREPARING.value, rng)
    print("| killed | times | what came of it |")
    print("| --- | --- | --- |")
    for moment, times in told.items():
        print(f"| {moment} | {times} | the undisturbed result |")


if __name__ == "__main__":
    app.run(main)
