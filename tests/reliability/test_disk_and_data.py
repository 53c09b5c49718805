"""Disks that are full or read-only, data that vanish, readers that die: one line each.

Whatever was saved before is whole, and the same command goes on from it.
"""

import os
import signal
import subprocess

import pytest

from saliency_jax.training.checkpoints import saved_steps
from tests import commands
from tests.disks import remount, small_disk
from tests.runs import assert_same_bits
from tests.several import casm_arguments, wait_for

pytestmark = pytest.mark.slow
STEPS = 120
CHANGED = {
    "total_steps": STEPS,
    "checkpoint__every": 5,
    "log__evaluate_every": STEPS,
    "log__picture_every": STEPS,
}


def start(workdir, shapes_dir, classifier_run, **changed):
    arguments = casm_arguments(shapes_dir, classifier_run, **CHANGED, **changed)
    program = ["-m", "tests.one_of_several", f"--workdir={workdir}"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}
    return commands.start(*program, *arguments, environment=environment)


def finish(process):
    out, errors = process.communicate(timeout=300)
    return process.returncode, out, errors


def assert_one_line(errors, message):
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert message in line, line


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, shapes_dir, classifier_run):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    code, _, errors = finish(start(workdir, shapes_dir, classifier_run))
    assert code == 0, errors
    return workdir


def assert_goes_on(workdir, shapes_dir, classifier_run, undisturbed):
    code, _, errors = finish(start(workdir, shapes_dir, classifier_run))
    assert code == 0, errors
    assert_same_bits(workdir, undisturbed)


@pytest.mark.parametrize("size", ["300k", "600k", "1100k"])
def test_a_full_disk(size, tmp_path, shapes_dir, classifier_run, undisturbed):
    with small_disk(tmp_path / "disk", size):
        workdir = tmp_path / "disk" / "run"
        code, _, errors = finish(start(workdir, shapes_dir, classifier_run))
        assert code == 2, errors
        assert_one_line(errors, "No space left")
        remount(tmp_path / "disk", "size=200m")
        assert_goes_on(workdir, shapes_dir, classifier_run, undisturbed)


def test_a_disk_that_becomes_read_only(
    tmp_path, shapes_dir, classifier_run, undisturbed
):
    with small_disk(tmp_path / "disk", "200m"):
        workdir = tmp_path / "disk" / "run"
        process = start(workdir, shapes_dir, classifier_run, data__num_threads=1)
        wait_for(lambda: saved_steps(workdir, "last"))
        process.send_signal(signal.SIGKILL)
        finish(process)
        remount(tmp_path / "disk", "ro")
        code, _, errors = finish(start(workdir, shapes_dir, classifier_run))
        assert code == 2
        assert_one_line(errors, "Read-only file system")
        remount(tmp_path / "disk", "rw")
        assert_goes_on(workdir, shapes_dir, classifier_run, undisturbed)


@pytest.mark.parametrize("how", ["cut off", "gone"])
def test_data_that_vanish(how, tmp_path, shapes_dir, classifier_run, undisturbed):
    subprocess.run(["cp", "-r", shapes_dir, tmp_path / "data"], check=True)
    workdir = tmp_path / "run"
    process = start(workdir, tmp_path / "data", classifier_run)
    wait_for(lambda: saved_steps(workdir, "last"))
    if how == "gone":  # an open file stays until it is closed
        process.send_signal(signal.SIGKILL)
    (shard,) = (tmp_path / "data").glob("shapes/*/1.0.0/*train*array_record*")
    content = shard.read_bytes()
    if how == "gone":
        finish(process)
        shard.unlink()
        process = start(workdir, tmp_path / "data", classifier_run)
    else:
        os.truncate(shard, 100)
    code, _, errors = finish(process)
    assert code == 2, errors
    assert_one_line(errors, "cannot be read")
    shard.write_bytes(content)
    assert_goes_on(workdir, shapes_dir, classifier_run, undisturbed)


def test_a_reading_process_that_is_killed(tmp_path, shapes_dir, classifier_run):
    workers = {"data__num_workers": 1}
    process = start(tmp_path, shapes_dir, classifier_run, **workers)
    wait_for(lambda: saved_steps(tmp_path, "last"))
    listed = ["pgrep", "--parent", str(process.pid), "--full", "spawn_main"]
    worker = subprocess.run(listed, capture_output=True, text=True, check=True)
    os.kill(int(worker.stdout.split()[0]), signal.SIGKILL)
    code, _, errors = finish(process)
    assert code == 2, errors
    assert_one_line(errors, "a process that reads data ended with code -9")
    assert saved_steps(tmp_path, "last")
