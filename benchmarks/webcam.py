r"""Saliency maps of a clip or a camera, frame by frame, and how many a second.

    python -m benchmarks.webcam --masker RUN_OR_FILE --clip FILE [--out overlay.mp4]
    python -m benchmarks.webcam --masker RUN_OR_FILE --clip 0 --frames 300

Each frame is decoded and shrunk to the masker's square, mapped, and overlaid with its
map at its own size, then written (to an .mp4 or .avi file) or dropped. With --threads
the stages work side by side, each on a thread and one frame ahead: for a device that is
not the CPU. Where a CPU does all of it they share its cores, a stage's time holds its
wait for them, and frames come no faster and twice as late. A camera's decoding holds
the wait for the next frame. What is compiled, and the masker's loading, is not counted.
"""

import concurrent.futures
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from absl import flags
from jaxtyping import Float, UInt8

from saliency_jax import Masker, load_masker, saliency_fn
from saliency_jax.environment import environment
from saliency_jax.errors import InputError, run_command
from saliency_jax.explain.pictures import Window, enlarged, shown
from saliency_jax.models.create import IMAGE_SIZE
from saliency_jax.report.files import write_json
from saliency_jax.report.heat import overlay
from saliency_jax.report.table import format_table

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
"""What a clip is written as, by the end of its name."""

USUAL_RATE = 25.0  # frames a second, of a clip that does not say

Item = TypeVar("Item")
Times = dict[str, list[float]]
"""Of each stage the seconds of every frame."""


class Frame(NamedTuple):
    """A frame that was read.

    Attributes:
      pixels: RGB.
      square: what the masker is shown of it.
      window: where that lies in the frame.
      read_at: when it was there.
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    square: UInt8[np.ndarray, "S S 3"]
    window: Window
    read_at: float


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("masker", None, "A run, or a file of Masker.save.")
    flags.DEFINE_string("clip", None, "A video file, or the number of a camera.")
    flags.DEFINE_string("out", None, "The clip to write: an .mp4 or .avi file.")
    flags.DEFINE_integer("frames", None, "The most to read; a camera needs it.", 1)
    flags.DEFINE_integer("label", None, "The class to explain.", 0)
    flags.DEFINE_integer("image_size", None, "By default the masker's own.", 1)
    flags.DEFINE_bool("threads", False, "Whether the stages work side by side.")
    flags.DEFINE_string("json", None, "A JSON file for what was measured.")


def main(argv: Sequence[str]) -> None:
    """Plays the clip and prints how fast that went."""
    options = flags.FLAGS
    if len(argv) > 1 or not options.masker or not options.clip:
        raise InputError("needs --masker RUN_OR_FILE and --clip FILE, and flags alone")
    if options.clip.isdecimal() and options.frames is None:
        raise InputError(f"camera {options.clip} never ends: say how many --frames")
    # Or FFmpeg and OpenCV say on stderr, before us, what is wrong with a file.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = open_clip(options.clip)
    if options.out:
        check_suffix(Path(options.out))
    masker = load_masker(options.masker)
    if masker.classifier is None and options.label is None:
        raise InputError(
            f"{options.masker} has no classifier at hand, so it cannot predict a "
            "class: name the one to explain by --label"
        )
    found = play(
        masker,
        capture,
        out=Path(options.out) if options.out else None,
        frames=options.frames,
        label=options.label,
        image_size=options.image_size,
        threads=options.threads,
    )
    print(describe(found))
    if options.json:
        how = {**environment(), "clip": options.clip, "threads": options.threads}
        write_json(Path(options.json), {"how": how, **found})


def open_clip(clip: str) -> cv2.VideoCapture:
    """Opens a video file, or a camera by its number.

    Raises:
      InputError: there is none, or it cannot be read.
    """
    if clip.isdecimal():
        capture = cv2.VideoCapture(int(clip))
        if not capture.isOpened():
            raise InputError(
                f"no camera {clip} is there: name another, or a video file"
            )
        return capture
    path = Path(clip)
    if not path.is_file():
        raise InputError(
            f"{path} {'is no file' if path.exists() else 'does not exist'}: name a "
            "video file, or the number of a camera"
        )
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise InputError(
            f"{path} is damaged or no video that OpenCV reads: save it as MP4 or AVI"
        )
    return capture


def check_suffix(path: Path) -> None:
    """Checks that a clip can be written by that name.

    Raises:
      InputError: it cannot.
    """
    if path.suffix not in CODECS:
        raise InputError(f"--out={path}: its name has to end in {' or '.join(CODECS)}")


def play(
    masker: Masker,
    capture: cv2.VideoCapture,
    *,
    out: Path | None = None,
    frames: int | None = None,
    label: int | None = None,
    image_size: int | None = None,
    threads: bool = False,
) -> dict[str, Any]:
    """Overlays every frame of a clip with its map.

    Args:
      masker: gives the maps.
      capture: of `open_clip`; closed at the end.
      out: the clip to write.
      frames: the most to read.
      label: the class to explain, as for `saliency_fn`.
      image_size: side of what the masker is shown; by default its own.
      threads: whether the stages work side by side.

    Returns:
      The figures, by name.

    Raises:
      InputError: there is no frame, the masker needs a label or has no such class, or
        the clip cannot be written.
    """
    size = image_size or masker.image_size or IMAGE_SIZE
    rate = capture.get(cv2.CAP_PROP_FPS) or USUAL_RATE
    saliency_fn(masker, np.zeros((size, size, 3), np.uint8), label)  # compiles
    side_by_side = ahead if threads else iter
    times: Times = {"decode": [], "map": [], "overlay": []}
    writer, latencies, shape = None, [], ()
    started = time.perf_counter()
    read = side_by_side(_read(capture, size, frames, times))
    mapped = side_by_side(_mapped(masker, read, label, times))
    try:
        for frame, picture in _overlaid(mapped, times):
            shape = picture.shape
            if out and writer is None:
                writer = _open_writer(out, rate, picture)
            if writer:
                begun = time.perf_counter()
                writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
                times.setdefault("write", []).append(time.perf_counter() - begun)
            latencies.append(time.perf_counter() - frame.read_at)
    finally:
        if writer:
            writer.release()
    seconds = time.perf_counter() - started
    if not latencies:
        raise InputError("the clip has no frame that can be read: save it again")
    p50, p99 = np.percentile(latencies, (50, 99))
    return {
        "frames": len(latencies),
        "height": shape[0],
        "width": shape[1],
        "image_size": size,
        "seconds": seconds,
        "frames_per_second": len(latencies) / seconds,
        "latency_p50_ms": 1e3 * float(p50),
        "latency_p99_ms": 1e3 * float(p99),
        "stages": _by_stage(times),
    }


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yields items while a thread makes the next one ready."""
    iterator, end = iter(items), object()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, iterator, end)
            yield item


def _read(
    capture: cv2.VideoCapture, size: int, frames: int | None, times: Times
) -> Iterator[Frame]:
    try:
        while frames is None or len(times["decode"]) < frames:
            begun = time.perf_counter()
            there, pixels = capture.read()
            if not there:
                return
            read_at = time.perf_counter()
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
            frame = Frame(pixels, *shown(pixels, size, "whole"), read_at)
            times["decode"].append(time.perf_counter() - begun)
            yield frame
    finally:
        capture.release()


def _mapped(
    masker: Masker, frames: Iterable[Frame], label: int | None, times: Times
) -> Iterator[tuple[Frame, Float[np.ndarray, "S S"]]]:
    for frame in frames:
        begun = time.perf_counter()
        values = np.asarray(saliency_fn(masker, frame.square, label))
        times["map"].append(time.perf_counter() - begun)
        yield frame, values


def _overlaid(
    mapped: Iterable[tuple[Frame, Float[np.ndarray, "S S"]]], times: Times
) -> Iterator[tuple[Frame, UInt8[np.ndarray, "H W 3"]]]:
    for frame, values in mapped:
        begun = time.perf_counter()
        picture = overlay(frame.pixels, enlarged(values, frame.window))
        times["overlay"].append(time.perf_counter() - begun)
        yield frame, picture


def _open_writer(
    path: Path, rate: float, picture: UInt8[np.ndarray, "H W 3"]
) -> cv2.VideoWriter:
    codec = cv2.VideoWriter_fourcc(*CODECS[path.suffix])
    writer = cv2.VideoWriter(str(path), codec, rate, picture.shape[1::-1])
    if not writer.isOpened():
        raise InputError(
            f"{path} cannot be written: is its folder there, and may it be written to?"
        )
    return writer


def _by_stage(times: Times) -> dict[str, dict[str, float]]:
    """Of each stage its milliseconds for a frame, and its share of all of them."""
    total = sum(map(sum, times.values()))
    return {
        stage: {
            "p50_ms": 1e3 * float(np.percentile(seconds, 50)),
            "p99_ms": 1e3 * float(np.percentile(seconds, 99)),
            "share": sum(seconds) / total,
        }
        for stage, seconds in times.items()
    }


def describe(found: dict[str, Any]) -> str:
    """The figures as text."""
    rows = [
        [
            stage,
            f"{of['p50_ms']:.2f}",
            f"{of['p99_ms']:.2f}",
            f"{100 * of['share']:.0f}",
        ]
        for stage, of in found["stages"].items()
    ]
    return (
        f"{found['frames']} frames of {found['width']}x{found['height']}, maps of "
        f"{found['image_size']} pixels: {found['frames_per_second']:.1f} frames/s; "
        f"from read to drawn p50 {found['latency_p50_ms']:.1f} ms, "
        f"p99 {found['latency_p99_ms']:.1f} ms\n"
        + format_table(["stage", "p50, ms", "p99, ms", "share %"], rows)
    )


if __name__ == "__main__":
    define_flags()
    run_command(main)
