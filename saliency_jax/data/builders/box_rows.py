"""The CSV file of boxes beside a folder of pictures."""

import csv
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from saliency_jax.data.builders.recipe import FiledRow
from saliency_jax.data.builders.records import PixelBox
from saliency_jax.errors import InputError, shortened

_BOX = ("path", *PixelBox._fields)
_WITH_CLASS = (*_BOX, "class")


def has_classes(path: Path) -> bool:
    """Whether the file's first line has a sixth column, for a class.

    Raises:
      InputError: it cannot be read.
    """
    _, row = next(_lines(path), (0, _BOX))
    return len(row) == len(_WITH_CLASS)


def read_rows(path: Path, class_names: Sequence[str]) -> Iterator[FiledRow]:
    """Yields the lines of the file, but for a first one that names the columns.

    The values are the four edges, None for a class without a box, and the class's
    place in `class_names`, None for the image's own.

    Args:
      path: of the file; all lines have the columns of the first.
      class_names: of the data set.

    Raises:
      InputError: which names the line that is amiss.
    """
    columns = _WITH_CLASS if has_classes(path) else _BOX
    labels = {name: label for label, name in enumerate(class_names)}
    for number, (line, row) in enumerate(_lines(path)):
        if number == 0 and tuple(row) == columns:
            continue
        try:
            edges = [int(edge) for edge in row[1:5]] if any(row[1:5]) else None
        except ValueError:
            edges = []
        named = row[5] if len(row) == len(_WITH_CLASS) else ""
        whole = bool(named) if edges is None else len(edges) == 4
        if len(row) != len(columns) or not whole:
            raise InputError(
                f"{path}:{line}: {','.join(columns)} was expected, the edges as whole "
                f"pixels, found {shortened(','.join(row))}: mend the line"
            )
        if named and named not in labels:
            raise InputError(
                f"{path}:{line}: unknown class {shortened(named)}, no folder of the "
                "source: mend the line, or add a folder with images of that class"
            )
        name = posixpath.normpath(row[0].replace("\\", "/"))
        yield FiledRow(name, line, [edges, labels.get(named)])


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the lines that are not blank, with their numbers."""
    try:
        # Excel puts a byte order mark in front.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                row = [cell.strip() for cell in row]
                if any(row):
                    yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"boxes {path} cannot be read ({error}): --boxes must name a CSV file with "
            f"the columns {','.join(_BOX)} (and class, if images have several labels)"
        ) from None
