"""Safetensors files that say in their metadata what they are, and of which version.

Without Flax, for programs that do without it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from saliency_jax.errors import InputError
from saliency_jax.whole_file import replaced


class Kind(NamedTuple):
    """What a kind of files is called.

    Attributes:
      name: for messages, such as "masker file".
      format: in the metadata.
      version: that this library reads and writes.
      written_by: what writes such files, for messages.
      again: what else to do than to copy a damaged one again.
    """

    name: str
    format: str
    version: str
    written_by: str
    again: str

    @property
    def advice(self) -> str:
        """What to do about a damaged file."""
        return f"copy it again, or {self.again}"


def write(
    path: Path,
    kind: Kind,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Writes a file, whole or not at all.

    Raises:
      InputError: it cannot be written.
    """
    # safetensors takes an array's memory as it lies.
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    described = {"format": kind.format, "version": kind.version, **metadata}
    content = safetensors.numpy.save(ordered, described)
    try:
        with replaced(path) as file:
            file.write(content)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): make room, or name a file "
            "in another folder"
        ) from error


def read(path: Path, kind: Kind) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Reads a file's metadata and arrays.

    Raises:
      InputError: it is missing, damaged, of another kind or of another version.
    """
    if not path.is_file():
        raise InputError(
            f"{kind.name} {path} does not exist: name a file that {kind.written_by} "
            "has written"
        )
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            ours = metadata.get("format") == kind.format
            arrays = {name: file.get_tensor(name) for name in file.keys() if ours}
    except (
        safetensors.SafetensorError,
        OSError,
        ValueError,
        TypeError,
        AttributeError,  # of a type that NumPy lacks
    ) as error:
        raise InputError(
            f"{kind.name} {path} is not a readable safetensors file ({error}): "
            f"{kind.advice}"
        ) from error
    if not ours:
        raise InputError(
            f"{path} is no {kind.name} (its metadata has format "
            f"{metadata.get('format')!r:.40}, expected {kind.format!r}): name what "
            f"{kind.written_by} has written"
        )
    if metadata.get("version") != kind.version:
        raise InputError(
            f"{kind.name} {path} is of version {metadata.get('version')!r:.40}, and "
            f"this saliency_jax reads version {kind.version}: update saliency_jax, or "
            f"{kind.again}"
        )
    return metadata, arrays
