"""Where a run's figures go: JSONL always, TensorBoard beside it, pictures as PNG."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import tensorboardX
from jaxtyping import UInt8


class Writer:
    """Writes scalars and pictures of a run, in process 0 only.

    `<workdir>/metrics.jsonl` has one object a line; `<workdir>/tensorboard` the same
    for TensorBoard; `<workdir>/pictures/<name>_<step>.png` the pictures.
    """

    def __init__(self, workdir: Path, resume_step: int):
        """Opens the files, and forgets what was written of the steps to come.

        A run that ended after its last checkpoint takes those steps a second time.

        Args:
          workdir: of the run; exists.
          resume_step: of the checkpoint that the run goes on from, 0 at its start.
        """
        self._workdir = Path(workdir)
        self._active = jax.process_index() == 0
        if self._active:
            path = self._workdir / "metrics.jsonl"
            _drop_later_lines(path, resume_step)
            self._lines = open(path, "a", encoding="utf-8")
            self._board = tensorboardX.SummaryWriter(
                str(self._workdir / "tensorboard"),
                flush_secs=30,
                purge_step=resume_step + 1,
            )

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._active:
            self._lines.close()
            self._board.close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one line of named figures."""
        if not self._active:
            return
        record = {"step": step, "time": round(time.time(), 3), **values}
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def picture(
        self, step: int, name: str, draw: Callable[[], UInt8[np.ndarray, "H W 3"]]
    ) -> Path | None:
        """Draws and writes an RGB picture and returns its path."""
        if not self._active:
            return None
        picture = draw()
        path = self._workdir / "pictures" / f"{name}_{step:07d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture[..., ::-1])
        self._board.add_image(name, picture, step, dataformats="HWC")
        return path


def _drop_later_lines(path: Path, last_step: int) -> None:
    """Keeps the lines of steps up to `last_step`, in a new file that replaces the old.

    A line that a kill cut short goes, too: its step is not known.
    """
    if not path.exists():
        return

    def is_kept(line: str) -> bool:
        try:
            return json.loads(line)["step"] <= last_step
        except (ValueError, TypeError, KeyError):
            return False

    partial = path.with_name(path.name + ".partial")
    with (
        open(path, encoding="utf-8", errors="replace") as lines,
        open(partial, "w", encoding="utf-8") as kept,
    ):
        kept.writelines(line.rstrip("\n") + "\n" for line in lines if is_kept(line))
    os.replace(partial, path)
