"""The list of the examples to be written, in order, on disk: as large as it must be.

A plan is an SQLite file that one process writes and the workers read. Its order, and
how it is cut into shards, depend on the source alone; the order is TFDS's own (by the
MD5 hash of split and key), so that any part of a split is a fair sample.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from saliency_jax.data.builders import records
from saliency_jax.data.builders.recipe import Recipe, Task
from saliency_jax.errors import InputError

# A shard is what an interruption may cost a worker, and a reader holds every one open.
TASKS_PER_SHARD = 1024
BYTES_PER_SHARD = 64 << 20
MOST_SHARDS = 512

_FORMAT = 1  # of what is written; raising it refuses to go on where older code stopped
_TABLES = """
pragma journal_mode = off;
pragma synchronous = off;
create table listed (
  split text, digest blob, key text, label int, path text, detail text, size int,
  stamp int
);
create table rows (path text, line int, row_values text);
create table planned (
  position integer primary key, split text, key text, label int, path text,
  detail text, size int, stamp int
);
"""
_ORDER = """
insert into planned (split, key, label, path, detail, size, stamp)
select split, key, label, path, detail, size, stamp from listed order by split, digest;
drop table listed;
create index rows_by_path on rows (path);
"""


class Shard(NamedTuple):
    """A run of planned tasks that become one file."""

    split: str
    index: int
    """Among the split's."""
    start: int
    """Position of the first task in the plan."""
    stop: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.index:05d}"


class Summary(NamedTuple):
    """What a plan says of the source."""

    fingerprint: str
    """Differs when a file was added, removed or changed, or the recipe was."""
    left_out: Counter[str]
    """How many files are no images by their suffix."""


def write_plan(path: Path, recipe: Recipe) -> Summary:
    """Lists the source; nothing is decoded.

    Args:
      path: of the new file.
      recipe: of the data set.

    Raises:
      InputError: if the listing does, an annotated image is not there, a name is not
        UTF-8, or a symbolic link leads out of the source and may not.
      OSError: if the list cannot be written.
    """
    # SQLite sorts on disk, by default in a folder that may be small.
    os.environ["SQLITE_TMPDIR"] = str(path.parent)
    left_out: Counter[str] = Counter()
    seen = hashlib.sha256(
        repr(
            (_FORMAT, TASKS_PER_SHARD, BYTES_PER_SHARD, MOST_SHARDS)
            + (recipe.name, recipe.splits, recipe.class_names)
        ).encode()
    )
    with _open(path) as plan:
        plan.executescript(_TABLES)
        try:
            if recipe.list_rows:
                rows = (
                    _seen(seen, (row.path, row.line, json.dumps(row.values)))
                    for row in recipe.list_rows()
                )
                plan.executemany("insert into rows values (?, ?, ?)", rows)
            tasks = recipe.list_tasks(left_out)
            if recipe.source and not recipe.follow_links:
                tasks = _inside(recipe.source, tasks)
            tasks = (_seen(seen, _listed(task)) for task in tasks)
            plan.executemany(
                "insert into listed values (?, ?, ?, ?, ?, ?, ?, ?)", tasks
            )
            plan.executescript(_ORDER)
        except sqlite3.OperationalError as error:
            raise OSError(f"{path}: {error}") from None
        except UnicodeEncodeError as error:
            path = os.path.join(recipe.source, error.object)
            raise InputError(
                f"the file name {path!r} is not UTF-8: rename the file"
            ) from None
        stray = plan.execute(
            "select path, line from rows where path not in (select path from planned) "
            "order by line"
        ).fetchone()
        plan.commit()
    if stray:
        raise InputError(
            f"{recipe.rows_file}:{stray[1]}: {stray[0]} is no image of the source: "
            "paths are relative to --source; mend or remove the line"
        )
    return Summary(seen.hexdigest(), left_out)


def _inside(source: str, tasks: Iterator[Task]) -> Iterator[Task]:
    """Yields the tasks as they are.

    Raises:
      InputError: a symbolic link leads to an image out of the source.
    """
    checked = None
    for task in tasks:
        path = os.path.join(source, task.path)
        folder = os.path.dirname(path)
        if folder != checked:  # the images of a folder follow each other
            records.check_inside(folder, source)
            checked = folder
        if os.path.islink(path):
            records.check_inside(path, source)
        yield task


def _listed(task: Task) -> tuple[str | int | bytes, ...]:
    digest = hashlib.md5(task.split.encode() + task.key.encode()).digest()
    split, key, label, path, detail, size, stamp = task
    return split, digest, key, label, path, json.dumps(detail), size, stamp


def _seen(hasher: "hashlib._Hash", row: tuple) -> tuple:
    hasher.update(repr(row).encode())
    return row


def shards(path: Path) -> list[Shard]:
    """Cuts a plan into runs of about equal counts, each within one split."""
    with _open(path) as plan:
        splits = plan.execute(
            "select split, min(position), count(*), sum(size) from planned "
            "group by split order by split"
        ).fetchall()
    found = []
    for split, first, count, size in splits:
        wanted = max(-(-count // TASKS_PER_SHARD), -(-size // BYTES_PER_SHARD))
        parts = min(wanted, count, MOST_SHARDS)
        edges = [first + part * count // parts for part in range(parts + 1)]
        found += [
            Shard(split, index, start, stop)
            for index, (start, stop) in enumerate(
                zip(edges[:-1], edges[1:], strict=True)
            )
        ]
    return found


def tasks(path: Path, shard: Shard) -> Iterator[Task]:
    """Yields the tasks of a shard in order, each with its rows, if it has any."""
    with _open(path) as plan:
        has_rows = plan.execute("select 1 from rows limit 1").fetchone()
        cursor = plan.execute(
            "select split, key, label, path, detail, size, stamp from planned "
            "where position >= ? and position < ? order by position",
            (shard.start, shard.stop),
        )
        for *fields, detail, size, stamp in cursor:
            task = Task(*fields, json.loads(detail), size, stamp)
            if has_rows:
                rows = plan.execute(
                    "select line, row_values from rows where path = ? order by line",
                    (task.path,),
                )
                task = task._replace(detail=[(n, json.loads(v)) for n, v in rows])
            yield task


def class_counts(path: Path) -> dict[tuple[str, int], int]:
    """Returns how many tasks each split has of each label."""
    with _open(path) as plan:
        rows = plan.execute("select split, label, count(*) from planned group by 1, 2")
        return {(split, label): count for split, label, count in rows}


def _open(path: Path) -> contextlib.closing[sqlite3.Connection]:
    # Without locks, which some network file systems lack: one process writes, and is
    # done before others read.
    uri = f"{path.absolute().as_uri()}?nolock=1"
    return contextlib.closing(sqlite3.connect(uri, uri=True))
