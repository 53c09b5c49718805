"""The loop over a clip: as many frames out as in, and one line for a bad clip."""

import json

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import real_time, webcam
from saliency_jax import Masker, saliency_fn
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.report.heat import overlay
from tests.commands import run_module
from tests.training import tiny

FRAMES, HEIGHT, WIDTH = 5, 48, 64


def clip_of(path, frames=FRAMES):
    """A clip of a bright square that moves over noise."""
    codec = cv2.VideoWriter_fourcc(*webcam.CODECS[path.suffix])
    writer = cv2.VideoWriter(str(path), codec, 20.0, (WIDTH, HEIGHT))
    rng = np.random.default_rng(0)
    for number in range(frames):
        pixels = rng.integers(0, 80, (HEIGHT, WIDTH, 3), np.uint8)
        pixels[10:30, 8 * number : 8 * number + 20] = (40, 220, 250)
        writer.write(pixels)
    writer.release()
    return path


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1][..., ::-1])
    return frames


@pytest.fixture(scope="module")
def masker():
    networks = tiny.networks(0)
    classifier = Classifier(networks["classifier"], tiny.CLASSIFIER)
    return Masker(networks["masker"], classifier, tiny.DECODER, image_size=tiny.SIZE)


@pytest.mark.parametrize("suffix", webcam.CODECS)
@pytest.mark.parametrize("threads", [True, False])
def test_as_many_frames_out_as_in(masker, tmp_path, suffix, threads):
    clip, out = clip_of(tmp_path / f"clip{suffix}"), tmp_path / f"out{suffix}"
    capture = webcam.open_clip(str(clip))
    found = webcam.play(masker, capture, out=out, threads=threads)
    assert found["frames"] == FRAMES == len(frames_of(out))
    assert (found["height"], found["width"]) == (HEIGHT, WIDTH)
    assert found["frames_per_second"] == pytest.approx(FRAMES / found["seconds"])
    assert 0 < found["latency_p50_ms"] <= found["latency_p99_ms"]
    assert list(found["stages"]) == ["decode", "map", "overlay", "write"]
    assert sum(of["share"] for of in found["stages"].values()) == pytest.approx(1)
    assert cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FPS) == 20
    assert not capture.isOpened()


def test_a_frame_is_overlaid_with_its_own_map(masker, tmp_path):
    clip, out = clip_of(tmp_path / "clip.avi"), tmp_path / "out.avi"
    webcam.play(masker, webcam.open_clip(str(clip)), out=out)
    frames = [np.ascontiguousarray(pixels) for pixels in frames_of(clip)]
    size = (tiny.SIZE, tiny.SIZE)
    squares = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames]
    masks = np.asarray(saliency_fn(masker, jnp.asarray(squares)))
    large = [cv2.resize(mask, (WIDTH, HEIGHT)) for mask in masks]
    # The codec loses a little, less than what another frame's map would change.
    for number, (pixels, drawn) in enumerate(zip(frames, frames_of(out), strict=True)):
        off = [
            np.abs(overlay(pixels, mask) - drawn.astype(int)).mean() for mask in large
        ]
        assert np.argmin(off) == number and off[number] < 0.7 * np.sort(off)[1], off


def test_no_more_frames_than_asked_for(masker, tmp_path):
    capture = webcam.open_clip(str(clip_of(tmp_path / "clip.avi")))
    found = webcam.play(masker, capture, frames=3)
    assert found["frames"] == 3 and "write" not in found["stages"]


def test_an_error_of_a_stage_reaches_the_one_who_waits():
    def items():
        yield 1
        raise InputError("gone")

    got = webcam.ahead(items())
    assert next(got) == 1
    with pytest.raises(InputError, match="gone"):
        next(got)


def test_a_clip_that_cannot_be_written_is_told(masker, tmp_path):
    capture = webcam.open_clip(str(clip_of(tmp_path / "clip.avi")))
    with pytest.raises(InputError, match="cannot be written"):
        webcam.play(masker, capture, out=tmp_path / "missing" / "out.mp4")


@pytest.mark.parametrize(
    ("clip", "told"),
    [
        ("missing.mp4", "does not exist"),
        ("damaged.mp4", "is damaged or no video"),
        ("text.avi", "is damaged or no video"),
        (".", "is no file"),
    ],
)
def test_a_bad_clip_is_one_line_and_exit_code_2(tmp_path, clip, told):
    whole = clip_of(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "damaged.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.avi").write_text("no clip\n" * 100)
    done = run_module("benchmarks.webcam", "--masker=none", f"--clip={tmp_path / clip}")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_camera_needs_an_end():
    done = run_module("benchmarks.webcam", "--masker=none", "--clip=0")
    assert done.returncode == 2 and "--frames" in done.stderr


def test_the_command(tmp_path):
    masker = real_time.random_selective_masker(32, network="resnet10", width=8)
    masker.save(tmp_path / "masker.safetensors")
    clip, out = clip_of(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    arguments = [f"--masker={tmp_path / 'masker.safetensors'}", f"--clip={clip}"]
    without = run_module("benchmarks.webcam", *arguments)
    assert without.returncode == 2 and "by --label" in without.stderr
    report = tmp_path / "report.json"
    done = run_module(
        "benchmarks.webcam", *arguments, "--label=3", f"--out={out}", f"--json={report}"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{FRAMES} frames of {WIDTH}x{HEIGHT}, maps of 32")
    assert len(frames_of(out)) == FRAMES
    written = json.loads(report.read_text())
    assert written["frames"] == FRAMES and written["how"]["packages"]["jax"]


@pytest.mark.parametrize(
    ("rates", "pays", "saturated"),
    [
        ({1: [10], 2: [10]}, True, (1, 10)),
        ({1: [10], 2: [10], 4: [10.4]}, False, (1, 10)),
        ({1: [10], 2: [9], 4: [15], 8: [15]}, True, (4, 15)),
        ({1: [10, 2, 11], 2: [20], 4: [21], 8: [20]}, False, (2, 20)),
    ],
)
def test_when_larger_batches_stop_to_pay(rates, pays, saturated):
    assert real_time.pays(rates) == pays
    assert real_time.saturation(rates) == saturated
