r"""Time of attribution methods, beside captum's, on a ResNet-50 of the same weights.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.attribution [--rows gradient,rise] [--image_size 224] \
        [--batch_size 32] [--images 1] [--repeats 3] [--device cpu] \
        [--output table.json]

captum has no RISE; that row is its author's procedure in PyTorch. Each library has a
process of its own for each row. Only one of the two works at a time: they answer in
turn, each time about new images, and the ratio is taken between neighbours. Before that
each answers once, which in JAX compiles; that time is reported apart, and a later call
that compiles anything is an error.

Rows in which an image goes through the network once explain `--batch_size` images a
call. The others make many of each image: they explain `--images`, and put
`--batch_size` edited ones through the network at once.

Of a row the table has the median seconds of a call, from arrays of the host to arrays
of the host; the median ratio, above 1 where we are faster, and its range; the seconds
that tracing and compiling took; the greatest main memory of each process; and the
correlation of the maps, below 1 where the libraries draw different random numbers.
"""

import contextlib
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks.attribution_contestants import CONTESTANTS, ONE_PASS, ROWS, Task

_ROWS = flags.DEFINE_list("rows", list(ROWS), "What to measure.")
_SIZE = flags.DEFINE_integer("image_size", 224, "Side of the images.", 32)
_BATCH = flags.DEFINE_integer("batch_size", 32, "Images in the network at once.", 1)
_IMAGES = flags.DEFINE_integer(
    "images", 1, "Explained by a call, where a method makes many of each.", 1
)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Calls that are timed.", 1)
_DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "Where both run.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the numbers.")
_WORKER = flags.DEFINE_string("worker", None, "Internal: answer as this library.")
_TASK = flags.DEFINE_string("task", None, "Internal: what the worker is to answer.")

_LIBRARIES = tuple(CONTESTANTS)


def work(library: str, task: Task) -> None:
    """Answers once for every line of the standard input, until it ends.

    Prints a line of JSON for each: how long it took, in seconds, and how much of that
    was tracing and compiling. The line says where to put the maps, if anywhere.
    """
    spent = []
    if library == "saliency_jax":
        import jax

        jax.monitoring.register_event_duration_secs_listener(
            lambda event, seconds, **_: spent.append(("compile" in event) * seconds)
        )
    answer = CONTESTANTS[library](task)
    questions = task.questions()
    for line in sys.stdin:
        question = next(questions)
        spent.clear()
        start = time.perf_counter()
        maps = answer(*question)
        seconds = time.perf_counter() - start
        if line.strip():
            np.save(line.strip(), maps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        report = {"seconds": seconds, "compiling": sum(spent), "peak_gib": peak}
        print(json.dumps(report), flush=True)


class Contestant:
    """A process that answers as a library."""

    def __init__(self, process: subprocess.Popen, name: str) -> None:
        self._process = process
        self._name = name

    def answer(self, path: str = "") -> dict[str, float]:
        """Returns how the next call went; its maps are in a file of that path."""
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._name} has failed; its error stands above")
        return json.loads(line)


@contextlib.contextmanager
def contestant(library: str, task: Task) -> Iterator[Contestant]:
    """Runs a library in a process of its own, as long as the context lasts."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": {"cpu": "cpu", "gpu": "cuda"}[task.device],
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45",  # the other one is there too
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "benchmarks.attribution", f"--worker={library}"]
    command.append(f"--task={json.dumps(dataclasses.asdict(task))}")
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield Contestant(process, library)
        finally:
            process.stdin.close()


def measure(task: Task, repeats: int) -> dict[str, Any]:
    """Times a row.

    Returns:
      For each library the seconds of all calls (`calls`), of the first, which compiles
      (`first`), and of tracing and compiling in it (`compiling`); the `ratios` of
      neighbouring calls, above 1 where we are faster; the `correlation` of the maps.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = [stack.enter_context(contestant(x, task)) for x in _LIBRARIES]
        paths = [folder / f"{library}.npy" for library in _LIBRARIES]
        firsts = [run.answer(str(path)) for run, path in zip(runs, paths, strict=True)]
        rounds = [[run.answer() for run in runs] for _ in range(repeats)]
        maps = [np.load(path) for path in paths]
    row = {"row": task.row, "images": task.images}
    for i, (library, first) in enumerate(zip(_LIBRARIES, firsts, strict=True)):
        calls = [of_round[i] for of_round in rounds]
        if any(call["compiling"] for call in calls):
            sys.exit(f"{task.row}: a call about new images has compiled something")
        row[library] = {
            "calls": [call["seconds"] for call in calls],
            "first": first["seconds"],
            "compiling": first["compiling"],
            "peak_gib": calls[-1]["peak_gib"],
        }
    ours, theirs = (row[library]["calls"] for library in _LIBRARIES)
    row["ratios"] = [b / a for a, b in zip(ours, theirs, strict=True)]
    row["correlation"] = float(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1])
    return row


def line_of(row: dict[str, Any]) -> str:
    """A row of the table."""
    ours, theirs = (row[library] for library in _LIBRARIES)
    seconds = [statistics.median(x["calls"]) for x in (ours, theirs)]
    ratios = row["ratios"]
    return (
        f"{row['row']:22}{row['images']:6}{seconds[0]:10.3f}{seconds[1]:10.3f}"
        f"{statistics.median(ratios):8.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        f"{ours['compiling']:10.1f}{ours['peak_gib']:8.1f}{theirs['peak_gib']:8.1f}"
        f"{row['correlation']:9.4f}"
    )


def main(argv: Sequence[str]) -> None:
    """Prints the table, row by row."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    if _WORKER.value:
        work(_WORKER.value, Task(**json.loads(_TASK.value)))
        return
    for name in _ROWS.value:
        if name not in ROWS:
            raise app.UsageError(f"unknown row {name!r}: use some of {','.join(ROWS)}")
    print(
        f"ResNet-50, {_SIZE.value} pixels, {_BATCH.value} images at once, "
        f"{_DEVICE.value}, {os.cpu_count()} cores; seconds a call"
    )
    print(
        f"{'row':22}{'images':>6}{'ours':>10}{'captum':>10}{'ratio':>8} "
        f"{'[from, to]':12}{'compiling':>10}{'GiB':>8}{'captum':>8}{'corr.':>9}"
    )
    rows = []
    for name in _ROWS.value:
        images = _BATCH.value if name in ONE_PASS else _IMAGES.value
        task = Task(name, images, _SIZE.value, _BATCH.value, _DEVICE.value)
        rows.append(measure(task, _REPEATS.value))
        print(line_of(rows[-1]), flush=True)
        if _OUTPUT.value:
            Path(_OUTPUT.value).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    app.run(main)
