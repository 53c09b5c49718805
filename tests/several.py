"""Runs of several processes, as a cluster starts them."""

import contextlib
import os
import random
import socket
import time

from tests import commands

DEVICES = 4  # of all processes together, as many as one has in the other tests
CLUSTER_PORTS = range(2**16 - 2**12, 2**16)  # of JAX, which a job's number chooses from


def free_port(ports=(0,)):
    """The first of some ports that is free; 0 is any."""
    for port in ports:
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("localhost", port))
            return found.getsockname()[1]
    raise AssertionError("no port is free")


def job_number():
    """One whose port is free; tests at the same time find different ones."""
    ports = random.sample(CLUSTER_PORTS, len(CLUSTER_PORTS))
    return free_port(ports) - CLUSTER_PORTS.start


def cluster(kind, job, count, number):
    """What a cluster's program tells each process that it starts, on this machine."""
    if kind == "slurm":
        return {
            "SLURM_JOB_ID": str(job),
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": str(count),
            "SLURM_PROCID": str(number),
            "SLURM_LOCALID": str(number),
        }
    return {
        "OMPI_MCA_orte_hnp_uri": f"{job * 2**12}.0;tcp://127.0.0.1:4242",
        "OMPI_COMM_WORLD_SIZE": str(count),
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
    }


def start(count, workdir, *arguments, devices=DEVICES, **environment):
    """Starts `count` processes of train.py, which find each other on this machine."""
    environment = os.environ | environment
    environment["JAX_NUM_CPU_DEVICES"] = str(devices // count)
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
    values = {"classifier.init": classifier_run, "masker.taps": "(0,1)"}
    return arguments("casm_shapes.py:L2,smoke", shapes_dir, values, changed)


def classifier_arguments(shapes_dir, **changed):
    """The same of `tests.runs.classifier_config`."""
    return arguments("classifier_shapes.py:smoke", shapes_dir, {}, changed)


def arguments(config, shapes_dir, values, changed):
    values = {
        "data.name": "shapes/32x32",
        "data.data_dir": shapes_dir,
        "classifier.network": "resnet4",
        "checkpoint.keep_last": 1,
        **values,
        **{name.replace("__", "."): value for name, value in changed.items()},
    }
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    return [f"--config=configs/{config}", *flags]
