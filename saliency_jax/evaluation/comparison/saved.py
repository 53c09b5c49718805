"""What a pass measured, on disk as soon as it is done; a stopped comparison goes on."""

import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from saliency_jax.errors import InputError
from saliency_jax.whole_file import replaced

Arrays = dict[str, np.ndarray]


def path_of(out: Path, row: str, what: str) -> Path:
    """The file of one pass of one row; rows of any name have files of their own."""
    readable = re.sub(r"[^A-Za-z0-9_.=-]+", "-", row)[:60].strip("-.")
    unique = hashlib.sha256(row.encode()).hexdigest()[:8]
    return out / "rows" / f"{readable}-{unique}" / f"{what}.npz"


def load(path: Path, settings: Mapping[str, Any]) -> Arrays | None:
    """Returns what was measured with these settings; None if nothing was.

    What was measured with others, or is damaged, is named and measured again.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        filed = json.loads(str(arrays.pop("settings")))
        arrays.pop("commit", None)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        print(f"{path} cannot be read ({error}): measured again", file=sys.stderr)
        return None
    now = json.loads(json.dumps(settings))
    if filed == now:
        return arrays
    names = {name for name in (filed | now) if filed.get(name) != now.get(name)}
    print(
        f"{path} is of another {', '.join(sorted(names))}: measured again",
        file=sys.stderr,
    )
    return None


def commit_of(path: Path) -> str:
    """The commit of the code that measured what a file holds; "" if it is not known."""
    with np.load(path, allow_pickle=False) as file:
        return str(file["commit"]) if "commit" in file else ""


def save(
    path: Path, settings: Mapping[str, Any], arrays: Mapping[str, Any], commit: str
) -> None:
    """Writes what was measured, all of it or nothing.

    Args:
      path: of `path_of`.
      settings: all that the arrays depend on, but the code.
      arrays: what was measured.
      commit: of the code.

    Raises:
      InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            np.savez_compressed(
                file, settings=json.dumps(settings), commit=commit, **arrays
            )
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): free the disk or name "
            "another folder as --out; the rows before it are kept"
        ) from error
