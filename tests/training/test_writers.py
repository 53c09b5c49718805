"""Figures and pictures of a run: lines, TensorBoard events, PNG."""

import json

import cv2
import numpy as np

from saliency_jax.training.writers import Writer

PICTURE = np.zeros((4, 6, 3), np.uint8)
PICTURE[:, :, 0] = 255  # red, in RGB


def test_scalars_are_lines_that_a_resumed_run_continues(tmp_path):
    with Writer(tmp_path) as writer:
        writer.scalars(2, {"loss": 0.5, "le": 1.0})
        # a run that is killed loses nothing
        text = (tmp_path / "metrics.jsonl").read_text()
        assert json.loads(text)["loss"] == 0.5
    with Writer(tmp_path) as writer:
        writer.scalars(4, {"loss": 0.25})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [2, 4]
    assert records[0].keys() == {"step", "time", "loss", "le"}
    assert records[0]["time"] <= records[1]["time"]


def test_tensorboard_has_scalars_and_pictures(tmp_path):
    with Writer(tmp_path) as writer:
        writer.scalars(2, {"held_out/le": 1.0})
        writer.picture(2, "strip", PICTURE)
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"held_out/le" in content and b"strip" in content and b"PNG" in content


def test_a_picture_is_a_png_in_rgb(tmp_path):
    with Writer(tmp_path) as writer:
        path = writer.picture(12, "strip", PICTURE)
    assert path == tmp_path / "pictures" / "strip_0000012.png"
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], PICTURE)


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    with Writer(tmp_path) as writer:
        writer.scalars(2, {"loss": 0.5})
        assert writer.picture(2, "strip", PICTURE) is None
    assert not list(tmp_path.iterdir())
