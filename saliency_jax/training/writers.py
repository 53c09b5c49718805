"""Where a run's figures go: JSONL always, TensorBoard beside it, pictures as PNG."""

import json
import time
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

    def __init__(self, workdir: Path):
        self._workdir = Path(workdir)
        self._active = jax.process_index() == 0
        if self._active:
            self._lines = open(self._workdir / "metrics.jsonl", "a", encoding="utf-8")
            self._board = tensorboardX.SummaryWriter(
                str(self._workdir / "tensorboard"), flush_secs=30
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
        self, step: int, name: str, picture: UInt8[np.ndarray, "H W 3"]
    ) -> Path | None:
        """Writes an RGB picture and returns its path."""
        if not self._active:
            return None
        path = self._workdir / "pictures" / f"{name}_{step:07d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture[..., ::-1])
        self._board.add_image(name, picture, step, dataformats="HWC")
        return path
