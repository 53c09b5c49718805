"""Short names of runs and files, for tables."""

from collections.abc import Container, Sequence
from pathlib import Path

from saliency_jax.errors import InputError


def short_names(paths: Sequence[Path], taken: Container[str] = ()) -> list[str]:
    """Returns the last part of each path, or all of it where that would be ambiguous.

    Args:
      paths: of runs or files.
      taken: names that stand for something else.

    Raises:
      InputError: when a path comes twice.
    """
    short = [path.resolve().name for path in paths]
    names = [
        str(path.absolute()) if short.count(name) > 1 or name in taken else name
        for name, path in zip(short, paths, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} is named twice: name each run or file once")
    return names
