"""Checksums of a checkpoint's files, so that a damaged one is not taken for whole."""

import hashlib
import json
import re
from pathlib import Path, PurePosixPath

from saliency_jax.training import checkpoint_meta

FILE = "checksums.json"

# What reading a file may lead to that is not what was written.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)


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
      of a checkpoint of an earlier version, which neither has checksums nor says so.
    """
    path = folder / FILE
    if not path.exists():
        try:
            is_sealed = checkpoint_meta.is_sealed(folder)
        except UNREADABLE as error:
            return f"neither {FILE} nor meta can be read ({error})"
        return f"{FILE} is missing" if is_sealed else None
    try:
        stored = json.loads(path.read_text())
        files, elsewhere = stored["files"].items(), stored["elsewhere"].items()
        expected = {folder / _inside(name): value for name, value in files}
        expected |= {folder.parent / _entry(name): value for name, value in elsewhere}
    except UNREADABLE as error:
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


def _inside(name: str) -> str:
    """The name, if it is of a file in the checkpoint and of none in another folder.

    Raises:
      ValueError: it is not.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name.isprintable():
        raise ValueError(f"it names {name!r}, which is not in the checkpoint")
    return name


def _entry(name: str) -> str:
    """The name, if it is of an entry of the run's pool.

    Raises:
      ValueError: it is not.
    """
    if not re.fullmatch(r"\.\./pool/[0-9]+\.safetensors", name):
        raise ValueError(f"it names {name!r}, which is no entry of the pool")
    return name
