"""What a checkpoint files of itself as `meta`, and what it has to be when read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Of a checkpoint that has it, checksums that are missing are damage.
SEALED = {"sealed": True}


def of_last(pool: Sequence[int], process_count: int) -> dict[str, Any]:
    """The meta of a checkpoint to be resumed.

    Args:
      pool: the names of its pool's entries.
      process_count: how many processes save it.
    """
    return {"pool": list(pool), "process_count": process_count, **SEALED}


def of_best(score: float) -> dict[str, Any]:
    """The meta of a best checkpoint."""
    return {"score": score, **SEALED}


def read_last(meta: Mapping[str, Any]) -> tuple[list[int], int]:
    """The names of a checkpoint's pool entries, and how many processes saved it.

    Raises:
      ValueError: it says what no run files. Other errors where it has no such fields.
    """
    names, process_count = meta["pool"], meta["process_count"]
    # Both become parts of paths.
    if not isinstance(names, list) or not all(
        type(name) is int and 0 <= name < 2**31 for name in names
    ):
        raise ValueError(f"meta has pool = {names!r}: expected a list of steps")
    if type(process_count) is not int or process_count < 1:
        raise ValueError(
            f"meta has process_count = {process_count!r}: expected a count"
        )
    return names, process_count


def read_best(meta: Mapping[str, Any]) -> float:
    """The score of a best checkpoint.

    Raises:
      ValueError: it is no number. Other errors where there is none.
    """
    if not isinstance(score := meta["score"], int | float):
        raise ValueError(f"meta has score = {score!r}: expected a number")
    return score


def is_sealed(folder: Path) -> bool:
    """Whether a checkpoint was committed with checksums.

    Raises:
      OSError, ValueError or RecursionError: its meta cannot be read.
    """
    meta = json.loads((folder / "meta" / "metadata").read_text())
    return isinstance(meta, dict) and meta.get("sealed", False) is not False
