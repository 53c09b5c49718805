"""What a checkpoint files of itself as `meta`, and what it has to be when read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Of a checkpoint that has it, checksums that are missing are damage.
SEALED = {"sealed": True}


class Last(NamedTuple):
    """The meta of a checkpoint to be resumed.

    Attributes:
      pool: the names of its pool's entries.
      process_count: how many processes saved it.
      owes_evaluation: whether the run was stopped instead of evaluated at this step.
    """

    pool: Sequence[int]
    process_count: int
    owes_evaluation: bool = False


def of_last(last: Last) -> dict[str, Any]:
    """What to file as the meta of a checkpoint to be resumed."""
    return {**last._asdict(), "pool": list(last.pool), **SEALED}


def of_best(score: float) -> dict[str, Any]:
    """The meta of a best checkpoint."""
    return {"score": score, **SEALED}


def read_last(meta: Mapping[str, Any]) -> Last:
    """What a checkpoint to be resumed has filed.

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
    owes = meta.get("owes_evaluation", False)  # older checkpoints owe none
    if type(owes) is not bool:
        raise ValueError(f"meta has owes_evaluation = {owes!r}: expected true or false")
    return Last(names, process_count, owes)


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
