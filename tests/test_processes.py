"""Several processes take the steps of one, each with its part of images and pool."""

import json
import os
import signal
import time

import numpy as np
import pytest

import train
from saliency_jax import load_masker
from saliency_jax.data.sources import Source
from saliency_jax.errors import InputError
from saliency_jax.training import processes
from saliency_jax.training.checkpoints import saved_steps
from tests import commands
from tests.one_of_several import record_reads
from tests.runs import arrays_of, casm_config, classifier_config, lines_of
from tests.several import (
    casm_arguments,
    classifier_arguments,
    cluster,
    finish,
    job_number,
    start,
    wait_for,
)

NOT_COMPARED = ("time", "images_per_second")


def assert_same_run(workdir, expected, lines=slice(None)):
    """As far as sums in another order are the same."""
    compared = zip(lines_of(workdir)[lines], lines_of(expected)[lines], strict=True)
    for line, other in compared:
        names = line.keys() - set(NOT_COMPARED)
        assert names == other.keys() - set(NOT_COMPARED)
        for name in names:
            assert line[name] == pytest.approx(other[name], abs=2e-5), name
    step, arrays, files = arrays_of(workdir)
    expected_step, expected_arrays, expected_files = arrays_of(expected)
    assert step == expected_step and arrays.keys() == expected_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(array, expected_arrays[name], atol=2e-4)
    pool = {name for name in files if name.endswith(".safetensors")}
    assert pool == {name for name in expected_files if name.endswith(".safetensors")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, classifier_run, shapes_dir):
    """The reads of a run of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Source, "__getitem__", Source.__getitem__)
        reads = record_reads()
        train.train(
            casm_config(shapes_dir, classifier_run), tmp_path_factory.mktemp("alone")
        )
    return reads


def reads_of(folder):
    return [json.loads(path.read_text()) for path in folder.iterdir()]


def bytes_of(reads, name):
    return sum(size for _, size in reads[name])


def assert_same_as_one(count, casm_run, alone, classifier_run, shapes_dir, folder):
    workdir, reads = folder / "run", folder / "reads"
    reads.mkdir()
    arguments = casm_arguments(shapes_dir, classifier_run, casm__pool_split=True)
    started = start(count, workdir, *arguments, READS=str(reads))
    codes, told, errors = finish(started)
    assert codes == [0] * count, errors
    assert f"finished: {workdir}" in told[0]
    logged = [line for out in told[1:] for line in out.splitlines()]
    assert all(line.startswith("[Gloo]") for line in logged)  # one log
    assert_same_run(workdir, casm_run)
    (environment,) = json.loads((workdir / "environment.json").read_text())["runs"]
    assert len(environment["devices"]) == 4
    load_masker(workdir)
    everyone = reads_of(reads)
    assert len(everyone) == count
    for one in everyone:  # all know the boxes of all images, before some are held out
        assert bytes_of(one, "train 60") == bytes_of(alone, "train 60")
    shares = [bytes_of(one, "train 44") for one in everyone]
    of_one = bytes_of(alone, "train 44")
    print(f"bytes of training images: {shares} of {count}, {of_one} of one")
    print("held out:", [bytes_of(one, "train 16") for one in everyone])
    # What is read ahead of the last step may be cut off anywhere.
    assert sum(shares) == pytest.approx(of_one, rel=0.05)
    assert max(shares) < 1.2 * of_one / count


def test_two_processes_train_what_one_does(
    casm_run, alone, classifier_run, shapes_dir, tmp_path
):
    assert_same_as_one(2, casm_run, alone, classifier_run, shapes_dir, tmp_path)


@pytest.mark.slow
def test_four_processes_train_what_one_does(
    casm_run, alone, classifier_run, shapes_dir, tmp_path
):
    assert_same_as_one(4, casm_run, alone, classifier_run, shapes_dir, tmp_path)


@pytest.mark.slow
def test_two_processes_count_every_image_once(shapes_dir, tmp_path):
    """Of numbers that neither the processes nor the batches divide."""
    workdir, reads, expected = (tmp_path / name for name in ("run", "reads", "one"))
    reads.mkdir()
    changed = {"data__holdout": 15, "total_steps": 30}
    arguments = classifier_arguments(shapes_dir, **changed)
    codes, told, errors = finish(start(2, workdir, *arguments, READS=str(reads)))
    assert codes == [0, 0], errors
    assert "validation (25 images)" in told[0]
    train.train(classifier_config(shapes_dir, **changed), expected)
    validation, expected_validation = (
        json.loads((run / "validation.json").read_text()) for run in (workdir, expected)
    )
    assert validation == expected_validation
    assert 0 < validation["accuracy"] < 1
    held_out, expected_held_out = (
        [
            {name: value for name, value in line.items() if name not in NOT_COMPARED}
            for line in lines_of(run)
            if "held_out/accuracy" in line
        ]
        for run in (workdir, expected)
    )
    assert held_out == expected_held_out
    assert 0 < held_out[-1]["held_out/top5_accuracy"] < 1
    everyone = reads_of(reads)
    read = [record for one in everyone for record, _ in one["validation 25"]]
    assert sorted(read) == [*range(25)]


@pytest.fixture(scope="module")
def long_run(tmp_path_factory, classifier_run, shapes_dir):
    """A run of one process, that is long enough to be interrupted, and its flags."""
    changed = {"total_steps": 60, "checkpoint__every": 5, "log__evaluate_every": 60}
    workdir = tmp_path_factory.mktemp("long") / "run"
    train.train(casm_config(shapes_dir, classifier_run, **changed), workdir)
    split = {"casm__pool_split": True}  # which may differ in a run that goes on
    return workdir, casm_arguments(shapes_dir, classifier_run, **changed, **split)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_others_end_and_any_number_can_go_on(
    victim, long_run, tmp_path
):
    """Victim 0 is the one through which the others know each other."""
    expected, arguments = long_run
    started = start(2, tmp_path, *arguments)
    wait_for(lambda: saved_steps(tmp_path, "last"))
    started[victim].send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    codes, _, errors = finish(started)
    assert time.monotonic() - killed_at < 60
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] not in (0, -signal.SIGKILL), errors
    assert "another" in errors[1 - victim]
    step = saved_steps(tmp_path, "last")[-1]
    assert step < 60
    codes, told, errors = finish(start(4, tmp_path, *arguments))
    assert codes == [0] * 4, errors
    assert f"resumed {tmp_path} at step {step}" in told[0]
    assert_same_run(tmp_path, expected)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_at_the_same_step(long_run, tmp_path):
    """And it goes on with another number of devices."""
    expected, arguments = long_run
    started = start(2, tmp_path, *arguments)
    wait_for(lambda: saved_steps(tmp_path, "last"))
    started[1].send_signal(signal.SIGTERM)
    sent_at = time.monotonic()
    codes, told, errors = finish(started)
    assert time.monotonic() - sent_at < 30
    assert codes == [143, 143], errors
    assert "stopped by SIGTERM: the same command goes on from here" in told[0]
    config = json.loads((tmp_path / "config.json").read_text())
    assert saved_steps(tmp_path, "last")[-1] < config["total_steps"]
    codes, told, errors = finish(start(1, tmp_path, *arguments, devices=1))
    assert codes == [0], errors
    assert_same_run(tmp_path, expected, slice(-1, None))


@pytest.mark.slow
def test_a_mistake_is_told_in_one_line_by_each_and_ends_all(
    classifier_run, shapes_dir, tmp_path
):
    """What process 0 alone finds, and what all of them find."""
    (tmp_path / "run").write_text("not a folder")
    arguments = casm_arguments(shapes_dir, classifier_run)
    codes, _, errors = finish(start(2, tmp_path / "run", *arguments))
    assert codes[0] == 2
    assert "error: workdir" in errors[0] and "Traceback" not in errors[0]
    arguments = casm_arguments(shapes_dir, classifier_run, data__batch_size=6)
    codes, _, errors = finish(start(2, tmp_path / "other", *arguments))
    assert 2 in codes
    assert any("does not divide over 4 devices in 2" in error for error in errors)


@pytest.mark.parametrize("kind", ["slurm", "open mpi"])
def test_a_clusters_program_tells_them_who_they_are(kind):
    program = (
        "from saliency_jax.training import processes; import jax, sys\n"
        "with processes.joined('auto', None, None):\n"
        "    print(jax.process_index(), jax.process_count(), file=sys.stderr)"
    )
    job = job_number()
    told = [cluster(kind, job, 2, number) for number in range(2)]
    started = [commands.start("-c", program, environment=os.environ | t) for t in told]
    codes, _, errors = finish(started)
    assert codes == [0, 0], errors
    assert [error.split() for error in errors] == [["0", "2"], ["1", "2"]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes=2"], "give --coordinator HOST:PORT of process 0 too"),
        (["--coordinator=here"], "is neither HOST:PORT nor auto: name the machine"),
        (["--coordinator=here:1234"], "needs --num_processes and --process_id"),
        (
            ["--coordinator=here:1234", "--num_processes=2", "--process_id=2"],
            "--process_id 2 is not one of --num_processes 2: they are counted from 0",
        ),
        (["--coordinator=auto"], "no group of processes was found with --coordinator"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, message, tmp_path):
    values = {"coordinator": None, "num_processes": None, "process_id": None}
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        values[name] = value if name == "coordinator" else int(value)
    with pytest.raises(InputError, match=message), processes.joined(**values):
        pytest.fail("joined")
