"""Runs of several processes, as a cluster starts them."""

import os
import socket
import time

from tests import commands

DEVICES = 4  # of all processes together, as many as one has in the other tests


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def start(count, workdir, *arguments, **environment):
    """Starts `count` processes of train.py, which find each other on this machine."""
    environment = os.environ | environment
    environment["JAX_NUM_CPU_DEVICES"] = str(DEVICES // count)
    coordinator = f"localhost:{free_port()}"
    program = ["-m", "tests.one_of_several", "--workdir", workdir, *arguments]
    several = ["--coordinator", coordinator, "--num_processes", count]
    return [
        commands.start(
            *program, *several, "--process_id", number, environment=environment
        )
        for number in range(count)
    ]


def finish(processes, timeout=300):
    """Waits for all; their exit codes, outputs and errors."""
    told = [process.communicate(timeout=timeout) for process in processes]
    codes = [process.returncode for process in processes]
    return codes, [out for out, _ in told], [error for _, error in told]


def wait_for(condition, timeout=300):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.1)


def casm_arguments(shapes_dir, classifier_run, **changed):
    """The flags of `tests.runs.casm_config`; `changed` has dots as two underscores."""
    values = {
        "data.name": "shapes/32x32",
        "data.data_dir": shapes_dir,
        "classifier.network": "resnet4",
        "classifier.init": classifier_run,
        "masker.taps": "(0,1)",
        "checkpoint.keep_last": 1,
    } | {name.replace("__", "."): value for name, value in changed.items()}
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    return ["--config=configs/casm_shapes.py:L2,smoke", *flags]
