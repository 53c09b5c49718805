"""Files of results: whole or not at all."""

import json
from pathlib import Path
from typing import Any

from saliency_jax.errors import InputError
from saliency_jax.whole_file import replaced


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file in the place of the one that is there.

    Raises:
      InputError: it cannot be written.
    """
    text = json.dumps(content, indent=2, allow_nan=False)
    try:
        with replaced(path) as file:
            file.write(f"{text}\n".encode())
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror})") from error


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, where they are not there.

    Raises:
      InputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}") from error
