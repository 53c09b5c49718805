"""Preparing, in a process that is stopped or whose disk is full, and going on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from saliency_jax.data.sources import open_source
from saliency_jax.errors import InputError
from tests.disks import remount, small_disk

REPOSITORY = Path(__file__).parent.parent.parent
DRIVER = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from saliency_jax.data import plan
from saliency_jax.data.prepare import prepare
plan.TASKS_PER_SHARD = 9
prepare("shapes", {data_dir!r}, image_size=96, num_train=250, num_validation=15,
        num_workers={workers})
"""


@pytest.mark.parametrize(
    ("sign", "workers"),
    [
        (signal.SIGINT, 1),
        (signal.SIGKILL, 2),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, 1, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_preparation_goes_on_where_it_was(workers, sign, tmp_path):
    driver = DRIVER.format(data_dir=str(tmp_path), workers=workers)
    unfinished = tmp_path / "shapes/96x96/incomplete_1.0.0"
    stopped = subprocess.Popen(
        [sys.executable, "-c", driver],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(unfinished.glob("*-?????.json"))) < 3:
        assert stopped.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    if sign == signal.SIGINT:
        os.killpg(stopped.pid, sign)  # as a terminal does
    else:
        stopped.kill()
    error = stopped.communicate()[1]
    assert stopped.returncode != 0
    if sign == signal.SIGINT:
        assert "shards are written; the same command goes on from there" in error
    _wait_for_the_group_to_end(stopped.pid)
    with pytest.raises(InputError, match="shapes/96x96 is not prepared"):
        open_source("shapes/96x96", str(tmp_path), "train")
    there = _files(unfinished.glob("*.array_record"))
    assert 3 <= len(there) < 30

    subprocess.run([sys.executable, "-c", driver], cwd=REPOSITORY, check=True)
    finished = tmp_path / "shapes/96x96/1.0.0"
    assert there <= _files(finished.glob("*array_record*"))
    undisturbed = DRIVER.format(data_dir=str(tmp_path / "whole"), workers=1)
    subprocess.run([sys.executable, "-c", undisturbed], cwd=REPOSITORY, check=True)
    assert _records(finished) == _records(tmp_path / "whole/shapes/96x96/1.0.0")


def _wait_for_the_group_to_end(group: int) -> None:
    """Workers end when the process that they work for does."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError("workers live on")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line_and_costs_the_shards_in_work(workers, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, "1400k"):
        driver = DRIVER.format(data_dir=str(disk), workers=workers)
        command = [sys.executable, "-c", driver]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        last = done.stderr.strip().splitlines()[-1]
        there = _files((disk / "shapes/96x96").glob("incomplete_*/*.array_record"))
        assert "InputError: preparing" in last and "No space left on device" in last
        assert f"{len(there)} shards are kept in {disk}" in last and len(there) >= 3
        remount(disk, "size=200m")
        subprocess.run(command, cwd=REPOSITORY, check=True)
        whole = _files((disk / "shapes/96x96/1.0.0").glob("*array_record*"))
        assert len(whole) == 30 and there <= whole


def _files(paths: Iterable[Path]) -> set[tuple[int, int]]:
    """What tells a file, whatever its name, from one written in its place."""
    return {(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def _records(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.array_record*")}
