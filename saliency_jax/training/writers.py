"""Where a run's figures go: JSONL always, TensorBoard beside it, pictures as PNG."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from saliency_jax.report.figures import save_png
from saliency_jax.training.tensorboard import (
    Event,
    EventsWriter,
    SessionLog,
    Summary,
    summary,
)
from saliency_jax.whole_file import replaced


class Writer:
    """Writes scalars and pictures of a run, in process 0 only.

    `<workdir>/metrics.jsonl` has one object a line; `<workdir>/tensorboard` the same
    for TensorBoard; `<workdir>/pictures/<name>_<step>.png` the pictures.
    """

    def __init__(self, workdir: Path, resume_step: int, owes_evaluation: bool = False):
        """Opens the files, and forgets what was written of the steps to come.

        A run that ended after its last checkpoint takes those steps a second time.

        Args:
          workdir: of the run; exists.
          resume_step: of the checkpoint that the run goes on from, 0 at its start.
          owes_evaluation: whether held-out figures of that step are yet to come; a run
            that was killed after them has written them before.
        """
        self._workdir = Path(workdir)
        self._active = jax.process_index() == 0
        if self._active:
            path = self._workdir / "metrics.jsonl"
            _drop_later_lines(path, resume_step, owes_evaluation)
            self._lines = open(path, "a", encoding="utf-8")
            board = self._workdir / "tensorboard"
            board.mkdir(exist_ok=True)
            # Not its SummaryWriter, which waits for ever once its thread has met a full
            # disk.
            self._board = EventsWriter(str(board / "events"))
            # TensorBoard hides what earlier files say of later steps.
            self._board.write_event(
                Event(
                    step=resume_step + 1,
                    session_log=SessionLog(status=SessionLog.START),
                )
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
            self._show(step, summary.scalar(name, value))
        self._board.flush()

    def picture(
        self, step: int, name: str, draw: Callable[[], UInt8[np.ndarray, "H W 3"]]
    ) -> Path | None:
        """Draws and writes an RGB picture and returns its path."""
        if not self._active:
            return None
        picture = draw()
        path = self._workdir / "pictures" / f"{name}_{step:07d}.png"
        path.parent.mkdir(exist_ok=True)
        save_png(path, picture)
        self._show(step, summary.image(name, picture, dataformats="HWC"))
        return path

    def _show(self, step: int, content: Summary) -> None:
        self._board.write_event(
            Event(wall_time=time.time(), step=step, summary=content)
        )


def _drop_later_lines(path: Path, last_step: int, owes_evaluation: bool) -> None:
    """Keeps the lines of steps up to `last_step`, in a new file that replaces the old.

    A line that a kill cut short goes, too: its step is not known.
    """
    if not path.exists():
        return

    def is_kept(line: str) -> bool:
        try:
            figures = json.loads(line)
            if owes_evaluation and any(n.startswith("held_out/") for n in figures):
                return figures["step"] < last_step
            return figures["step"] <= last_step
        except (ValueError, TypeError, KeyError):
            return False

    with (
        open(path, encoding="utf-8", errors="replace") as lines,
        replaced(path) as kept,
    ):
        for line in filter(is_kept, lines):
            kept.write((line.rstrip("\n") + "\n").encode())
