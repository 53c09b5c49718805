"""One shard of a data set: written, read back, and only then given its name."""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import (
    ArrayRecordReader,
    ArrayRecordWriter,
)
from tensorflow_datasets.core import example_serializer

from saliency_jax.data import plan
from saliency_jax.data.builders import records
from saliency_jax.data.builders.recipe import Recipe, Task, UnreadableImage
from saliency_jax.errors import InputError

_READ_BACK = 16 << 20  # bytes at once, about


@dataclasses.dataclass
class ShardReport:
    """What a shard holds; filed as JSON beside it, which makes it count as written."""

    split: str
    records: int = 0
    num_bytes: int = 0
    """Of the records, before compression."""
    file_bytes: int = 0
    digest: str = ""
    """SHA-256 of the records in order."""
    max_boxes: int = 0
    num_with_boxes: int = 0
    kinds: dict[str, int] = dataclasses.field(default_factory=dict)
    """How many images are of each unusual kind."""
    skipped: list[tuple[str, int, str]] = dataclasses.field(default_factory=list)
    """Path, label and what is wrong with each image that was left out."""


def data_path(folder: Path, shard: plan.Shard) -> Path:
    """Returns where a shard lies until the data set is complete."""
    return folder / f"{shard.name}.array_record"


def _report_path(folder: Path, shard: plan.Shard) -> Path:
    return folder / f"{shard.name}.json"


def read_report(folder: Path, shard: plan.Shard) -> ShardReport | None:
    """Returns the report of a shard that is written, None of one that is not."""
    try:
        fields = json.loads(_report_path(folder, shard).read_text())
    except (FileNotFoundError, ValueError):
        return None
    skipped = [(path, label, reason) for path, label, reason in fields.pop("skipped")]
    report = ShardReport(**fields, skipped=skipped)
    if report.records:
        path = data_path(folder, shard)
        if not path.exists() or path.stat().st_size != report.file_bytes:
            return None
    return report


def write_shard(
    recipe: Recipe,
    plan_path: Path,
    shard: plan.Shard,
    folder: Path,
    strict: bool,
    progress: Callable[[int], None],
) -> ShardReport:
    """Makes the examples of a shard and writes those that can be read.

    The file appears under its name when all of it is on the disk and has been read
    back. A shard without a readable image has a report and no file.

    Args:
      recipe: of the data set.
      plan_path: the list of tasks.
      shard: which of them.
      folder: of the unfinished data set.
      strict: whether an image that cannot be read stops everything.
      progress: is told how many more tasks are done.

    Raises:
      InputError: if the builder refuses a task; `UnreadableImage` only if `strict`.
      OSError: if files cannot be read or written, or what was read back is not what
        was written.
    """
    report = ShardReport(shard.split)
    kinds: Counter[str] = Counter()
    features = records.features(recipe)
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    unfinished = folder / f"{shard.name}.{os.getpid()}.tmp"
    writer = ArrayRecordWriter(str(unfinished), "group_size:1")
    written = hashlib.sha256()
    try:
        for task, example in _examples(recipe, plan_path, shard, strict, report):
            kinds.update(example.pop("kinds", ()))
            boxes = len(example["boxes"])
            report.max_boxes = max(report.max_boxes, boxes)
            report.num_with_boxes += boxes > 0
            with _naming(task):
                encoded = features.encode_example(example)
            # Protocol buffers hold the features in an order of the process's own.
            record = serializer.get_tf_example(encoded).SerializeToString(
                deterministic=True
            )
            with failing_as_files_do():
                writer.write(record)
            written.update(record)
            report.records += 1
            report.num_bytes += len(record)
            progress(1)
        with failing_as_files_do():
            writer.close()
        progress(len(report.skipped))
        report.digest, report.kinds = written.hexdigest(), dict(kinds)
        if report.records:
            report.file_bytes = unfinished.stat().st_size
            with failing_as_files_do():
                _check(unfinished, report)
            _commit(unfinished, data_path(folder, shard))
    finally:
        with contextlib.suppress(RuntimeError):
            writer.close()
        unfinished.unlink(missing_ok=True)
    write_durably(
        _report_path(folder, shard), json.dumps(dataclasses.asdict(report)).encode()
    )
    return report


def _examples(
    recipe: Recipe,
    plan_path: Path,
    shard: plan.Shard,
    strict: bool,
    report: ShardReport,
) -> Iterator[tuple[Task, dict[str, Any]]]:
    for task in plan.tasks(plan_path, shard):
        try:
            with _naming(task):
                example = recipe.make_example(task)
        except UnreadableImage as error:
            if strict:
                raise
            report.skipped.append((task.path, task.label, str(error)))
        else:
            yield task, example


@contextlib.contextmanager
def _naming(task: Task) -> Iterator[None]:
    """Notes on an error that no builder foresaw what it was about."""
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        error.add_note(f"while making the example of {task.split} image {task.path}")
        raise


@contextlib.contextmanager
def failing_as_files_do() -> Iterator[None]:
    """ArrayRecord's errors, of a full disk and the like, are no `OSError`."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from None


def _check(path: Path, report: ShardReport) -> None:
    """Reads a file back and compares it with what was to be in it.

    Raises:
      OSError: if they differ.
    """
    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
    found = hashlib.sha256()
    count = reader.num_records()
    together = max(1, _READ_BACK * report.records // report.num_bytes)
    for start in range(0, count, together):
        for record in reader.read(start, min(start + together, count)):
            found.update(record)
    reader.close()
    if (count, found.hexdigest()) != (report.records, report.digest):
        raise OSError(
            f"{path} does not hold what was written to it ({count} of "
            f"{report.records} records read back): the disk may be full or faulty"
        )


def _commit(unfinished: Path, path: Path) -> None:
    with open(unfinished, "rb") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    sync_folder(path.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file so that it is there with all of its content, or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(content)
        _commit(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes new names in a folder outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
