"""Files that are there with all of their content, or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` once it is written and on the disk.

    Until then, and for good where writing it fails, `path` is what it was. A process
    that is killed meanwhile leaves a file that ends in `.partial` beside it.

    Raises:
      OSError: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
