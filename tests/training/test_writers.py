"""Figures and pictures of a run: lines, TensorBoard events, PNG."""

import json

import cv2
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from saliency_jax.training.writers import Writer

PICTURE = np.zeros((4, 6, 3), np.uint8)
PICTURE[:, :, 0] = 255  # red, in RGB


def steps_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_scalars_are_lines_that_a_resumed_run_continues(tmp_path):
    with Writer(tmp_path, 0) as writer:
        writer.scalars(2, {"loss": 0.5, "le": 1.0})
        # a run that is killed loses nothing
        text = (tmp_path / "metrics.jsonl").read_text()
        assert json.loads(text)["loss"] == 0.5
    with Writer(tmp_path, 2) as writer:
        writer.scalars(4, {"loss": 0.25})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [2, 4]
    assert records[0].keys() == {"step", "time", "loss", "le"}
    assert records[0]["time"] <= records[1]["time"]


def test_steps_that_are_taken_again_are_written_once(tmp_path):
    with Writer(tmp_path, 0) as writer:
        for step in (2, 4, 4, 6, 8):
            writer.scalars(step, {"loss": step / 2})
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    with Writer(tmp_path, 4) as writer:
        writer.scalars(6, {"loss": 7.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines[:3] == before[:3]
    assert steps_of(tmp_path) == [2, 4, 4, 6]
    assert json.loads(lines[-1])["loss"] == 7.0
    with Writer(tmp_path, 0):
        assert steps_of(tmp_path) == []
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("keep", ["nothing", "half", "all but the newline", "zeros"])
def test_a_line_cut_short_by_a_kill(tmp_path, keep):
    with Writer(tmp_path, 0) as writer:
        writer.scalars(2, {"loss": 0.5})
        writer.scalars(4, {"loss": 0.25})
    path = tmp_path / "metrics.jsonl"
    first, last = path.read_bytes().splitlines(keepends=True)
    cut = {
        "nothing": b"",
        "half": last[: len(last) // 2],
        "all but the newline": last.rstrip(),
        "zeros": bytes(20) + b"\xff",
    }[keep]
    path.write_bytes(first + cut)
    with Writer(tmp_path, 4) as writer:
        writer.scalars(6, {"loss": 0.125})
    whole = keep == "all but the newline"
    assert steps_of(tmp_path) == ([2, 4, 6] if whole else [2, 6])


def test_tensorboard_is_told_where_a_run_goes_on(tmp_path):
    with Writer(tmp_path, 4) as writer:
        writer.scalars(5, {"loss": 0.5})
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, starts = path.read_bytes(), []
    while content:  # records of length, checksum, event, checksum
        size = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + size])
        if event.HasField("session_log"):
            starts.append((event.step, event.session_log.status))
        content = content[16 + size :]
    # from this step on, what earlier files say is not shown
    assert starts == [(5, event_pb2.SessionLog.START)]


def test_tensorboard_has_scalars_and_pictures(tmp_path):
    with Writer(tmp_path, 0) as writer:
        writer.scalars(2, {"held_out/le": 1.0})
        writer.picture(2, "strip", lambda: PICTURE)
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"held_out/le" in content and b"strip" in content and b"PNG" in content


def test_a_picture_is_a_png_in_rgb(tmp_path):
    with Writer(tmp_path, 0) as writer:
        path = writer.picture(12, "strip", lambda: PICTURE)
    assert path == tmp_path / "pictures" / "strip_0000012.png"
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], PICTURE)


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    with Writer(tmp_path, 0) as writer:
        writer.scalars(2, {"loss": 0.5})
        assert writer.picture(2, "strip", lambda: pytest.fail("drawn")) is None
    assert not list(tmp_path.iterdir())
