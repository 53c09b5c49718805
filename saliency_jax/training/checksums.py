"""Checksums of a checkpoint's files, so that a damaged one is not taken for whole."""

import hashlib
import json
from pathlib import Path

FILE = "checksums.json"


def files_of(folder: Path) -> list[Path]:
    """All files of a checkpoint that do not change when it is committed."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (FILE, "_CHECKPOINT_METADATA")
    )


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path, more: dict[str, str]) -> None:
    """Writes the checksums of a checkpoint that is about to be committed.

    Args:
      folder: of the checkpoint, all of it written.
      more: checksums of files elsewhere, by their paths from the checkpoint's parent.
    """
    files = {str(path.relative_to(folder)): digest(path) for path in files_of(folder)}
    (folder / FILE).write_text(json.dumps({"files": files, "elsewhere": more}))


def damage(folder: Path, part: str = "") -> str | None:
    """Says what is wrong with a checkpoint.

    Args:
      folder: of the checkpoint.
      part: the folder in it that is looked at; by default all is, and what is
        elsewhere.

    Returns:
      One file that is missing or is not what was written; None where all is well, and
      of a checkpoint of an earlier version, which has no checksums.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text())
        expected = {folder / name: value for name, value in stored["files"].items()}
        elsewhere = stored["elsewhere"].items()
        expected |= {folder.parent / name: value for name, value in elsewhere}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{FILE} cannot be read ({error})"
    for path, value in expected.items():
        if part and not path.is_relative_to(folder / part):
            continue
        try:
            if digest(path) != value:
                return f"{path} is not what was written"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
    return None
