"""What figures go back to, in a few letters: where one changes, they are made again."""

import hashlib
import inspect
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from saliency_jax.data.sources import Source
from saliency_jax.models.classifier import FUNCTION, Classifier, LogitsFunction
from saliency_jax.types import PyTree

LETTERS = 16


def of_variables(tree: PyTree) -> str:
    """Of the arrays of a classifier or a masker: their places, types and values."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    parts: list[bytes] = []
    for path, leaf in leaves:
        values = np.asarray(leaf)
        what = f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}"
        parts += [what.encode(), np.ascontiguousarray(values).tobytes()]
    return _digest(parts)


def of_classifier(classifier: Classifier) -> str:
    """Of a classifier: its variables, its normalisation, and a function's own file.

    What that file imports is not looked at.
    """
    options = classifier.mean, classifier.std, classifier.output
    parts = [of_variables(classifier), repr(options)]
    if isinstance(classifier.module, LogitsFunction):
        function = classifier.variables["params"][FUNCTION]
        function = getattr(function, "func", function)
        code = function if inspect.isfunction(function) else type(function)
        try:
            parts.append(Path(inspect.getfile(code)).read_bytes().hex())
        except (OSError, TypeError):  # written in no file, such as a notebook's
            parts.append(repr(code))
    else:
        parts.append(repr(classifier.module))
    return _digest(part.encode() for part in parts)


def of_source(source: Source) -> str:
    """Of a prepared data set: its files by name, size and time, or else its records."""
    shards = getattr(source.records, "shards", None)
    if shards is None:
        return _digest(
            repr(sorted(source[i].items())).encode() for i in range(len(source))
        )
    states = [(shard.name, shard.stat()) for shard in map(Path, shards)]
    files = [(name, state.st_size, state.st_mtime_ns) for name, state in states]
    chosen = b"" if source.indices is None else source.indices.tobytes()
    return _digest([repr(files).encode(), chosen])


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:LETTERS]
