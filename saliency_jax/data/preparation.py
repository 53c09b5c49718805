"""A preparation that can be stopped: plan, shards, metadata, and then the name.

The unfinished data set lies beside its place, in `incomplete_<version>`:

    state.json            what was asked for, and the fingerprint of the source
    plan.sqlite           the list of tasks (`plan`)
    <split>-<n>.array_record, .json    each shard that is done (`shards`)
    preparation.json      once all are done: from here on only names change

TFDS's metadata is written last, and the folder renamed when TFDS has read it.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds
import tqdm
from tensorflow_datasets.core import dataset_info
from tensorflow_datasets.core import splits as tfds_splits

from saliency_jax.data import plan, workers
from saliency_jax.data.builders import records
from saliency_jax.data.builders.recipe import Recipe, UnreadableImage
from saliency_jax.data.example import MASKS
from saliency_jax.data.shards import (
    ShardReport,
    data_path,
    failing_as_files_do,
    read_report,
    sync_folder,
    write_durably,
)
from saliency_jax.errors import InputError

Asked = dict[str, str | int | float | bool | None]
"""What tells one preparation of a data set from another: options and their values."""

REPORT = "preparation.json"
"""Stays with the data set: images skipped, and of unusual kinds."""

_STATE, _PLAN = "state.json", "plan.sqlite"
_MOST_NAMED = 20  # skipped images on the screen; all are in the report

Reports = dict[plan.Shard, ShardReport]


def write_data_set(
    folder: Path,
    asked: Asked,
    make_recipe: Callable[[], Recipe],
    strict: bool,
    num_workers: int,
) -> None:
    """Writes a data set, or what an earlier call has left to do of it.

    Args:
      folder: of the data set, named by its version; must not exist.
      asked: an earlier call must have asked for the same.
      make_recipe: looks at the source.
      strict: whether an image that cannot be read stops everything.
      num_workers: as for `workers.write_shards`.

    Raises:
      InputError: for a mistake in the source (nothing is left then, unless an image
        cannot be read and shards are written), a source that changed since an earlier
        call, other options than that one's, or anything that keeps files from being
        read or written.
      KeyboardInterrupt: as it comes, after a line on what to do next.
    """
    unfinished = folder.with_name(f"incomplete_{folder.name}")
    unfinished.mkdir(parents=True, exist_ok=True)
    with _locked(unfinished):
        try:
            if not (unfinished / REPORT).exists():
                _write_shards(unfinished, asked, make_recipe, strict, num_workers)
            _check_asked(unfinished, asked, json.loads(_read(unfinished / REPORT)))
            _finish(unfinished, folder)
        except OSError as error:
            written = len(list(unfinished.glob("*.array_record")))
            raise InputError(
                f"preparing {folder.parent} stopped: {error}; {written} shards are "
                f"kept in {unfinished}: mend that and run the same command again"
            ) from None


def _write_shards(
    unfinished: Path,
    asked: Asked,
    make_recipe: Callable[[], Recipe],
    strict: bool,
    num_workers: int,
) -> None:
    """Does everything that needs the source."""
    state_path, plan_path = unfinished / _STATE, unfinished / _PLAN
    state = json.loads(_read(state_path)) if state_path.exists() else None
    if state:
        _check_asked(unfinished, asked, state)
    for leftover in (*unfinished.glob("*.tmp"), *unfinished.glob(f"{_PLAN}*")):
        leftover.unlink()
    with contextlib.nullcontext() if state else _removed_on_mistake(unfinished):
        recipe = make_recipe()
        summary = plan.write_plan(plan_path, recipe)
    shards = plan.shards(plan_path)
    reports = {s: r for s in shards if (r := read_report(unfinished, s))}
    if state and state["fingerprint"] != summary.fingerprint:
        raise InputError(
            f"the source {asked.get('source', '')} changed since this preparation was "
            f"stopped (files or annotations were added, removed or changed): bring "
            f"back what was there, or delete {unfinished} to begin anew"
        )
    write_durably(
        state_path,
        json.dumps({"fingerprint": summary.fingerprint, "asked": asked}).encode(),
    )
    if reports:
        print(f"{len(reports)} of {len(shards)} shards are written already")
    if strict:
        _check_none_skipped(unfinished, reports)
    with _removed_on_mistake(unfinished):
        counts = plan.class_counts(plan_path)
        _check_splits(recipe, counts)
        _write_pending(recipe, unfinished, shards, reports, strict, num_workers)
        _check_readable(recipe, counts, reports)
    _write_metadata(unfinished, recipe, asked, reports, summary.left_out)


def _write_pending(
    recipe: Recipe,
    unfinished: Path,
    shards: list[plan.Shard],
    reports: Reports,
    strict: bool,
    num_workers: int,
) -> None:
    """Writes the shards that have no report, and adds theirs to `reports`."""
    named = skipped = 0
    with tqdm.tqdm(
        total=sum(shard.stop - shard.start for shard in shards),
        initial=sum(shard.stop - shard.start for shard in reports),
        desc=recipe.name,
        unit="img",
        mininterval=0.5,
    ) as progress:
        done = workers.write_shards(
            recipe,
            unfinished / _PLAN,
            [shard for shard in shards if shard not in reports],
            unfinished,
            strict,
            num_workers,
            progress.update,
        )
        try:
            with contextlib.closing(done):
                for shard, report in done:
                    reports[shard] = report
                    skipped += len(report.skipped)
                    for _, _, reason in report.skipped[: _MOST_NAMED - named]:
                        tqdm.tqdm.write(f"skipped: {reason}", file=sys.stderr)
                        named += 1
                    if skipped:
                        progress.set_postfix(skipped=skipped)
        except KeyboardInterrupt:
            progress.close()
            print(
                f"stopped: {len(reports)} of {len(shards)} shards are written; the "
                "same command goes on from there",
                file=sys.stderr,
            )
            raise
    if skipped > named:
        print(
            f"and {skipped - named} more images skipped, see {REPORT}", file=sys.stderr
        )


def _check_none_skipped(unfinished: Path, reports: Reports) -> None:
    for report in reports.values():
        for _, _, reason in report.skipped:
            raise InputError(
                f"{reason}; it was skipped without --strict: to go on leave that out, "
                f"or mend the image and delete {unfinished}"
            )


def _check_splits(recipe: Recipe, counts: dict[tuple[str, int], int]) -> None:
    """Refuses a split without any image.

    Raises:
      InputError: which names the split and, where there is one, the folder.
    """
    filled = {split for split, _ in counts}
    for split in recipe.splits:
        if split not in filled:
            why = recipe.if_empty.get(split, f"{recipe.name} lists no image for it")
            raise InputError(f"the split {split} would be empty: {why}")


def _check_readable(
    recipe: Recipe, counts: dict[tuple[str, int], int], reports: Reports
) -> None:
    """Refuses a class without any readable image.

    Raises:
      InputError: which names the class and the split.
    """
    skipped: Counter[tuple[str, int]] = Counter()
    reasons = {}
    for report in reports.values():
        for _, label, reason in report.skipped:
            skipped[report.split, label] += 1
            reasons[report.split, label] = reason
    for (split, label), count in skipped.items():
        if count == counts[split, label]:
            raise InputError(
                f"none of the {count} {split} images of class "
                f"{recipe.class_names[label]} can be read ({reasons[split, label]})"
            )


def _write_metadata(
    unfinished: Path,
    recipe: Recipe,
    asked: Asked,
    reports: Reports,
    left_out: Counter[str],
) -> None:
    """Writes TFDS's files, and at last the report, which says that all is there."""
    version = unfinished.name.removeprefix("incomplete_")
    metadata = {"max_boxes": {}, "num_with_boxes": {}, **asked}
    skipped, split_infos, files = {}, [], {}
    kinds: Counter[str] = Counter()
    for split in recipe.splits:
        of_split = [shard for shard in sorted(reports) if shard.split == split]
        full = [shard for shard in of_split if reports[shard].records]
        split_reports = [reports[shard] for shard in of_split]
        for index, shard in enumerate(full):
            files[data_path(unfinished, shard).name] = (
                f"{recipe.name}-{split}.array_record-{index:05d}-of-{len(full):05d}"
            )
        metadata["max_boxes"][split] = max(r.max_boxes for r in split_reports)
        metadata["num_with_boxes"][split] = sum(r.num_with_boxes for r in split_reports)
        skipped[split] = [
            {"path": path, "reason": reason}
            for report in split_reports
            for path, _, reason in report.skipped
        ]
        for report in split_reports:
            kinds.update(report.kinds)
        split_infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[reports[shard].records for shard in full],
                num_bytes=sum(report.num_bytes for report in split_reports),
            )
        )
    if any(skipped.values()):
        metadata["skipped"] = {split: len(paths) for split, paths in skipped.items()}
    if recipe.upright:
        metadata["upright"] = True
    info = tfds.core.DatasetInfo(
        builder=dataset_info.DatasetIdentity(
            name=recipe.name,
            version=tfds.core.Version(version),
            data_dir=str(unfinished),
            module_name=recipe.module,
            config_name=recipe.config,
            release_notes={version: "First release."},
        ),
        description=recipe.description,
        features=records.features(recipe),
        metadata=tfds.core.MetadataDict(metadata),
    )
    info.set_file_format("array_record")
    info.set_splits(tfds_splits.SplitDict(split_infos))
    info.write_to_directory(unfinished)
    report = {
        "asked": asked,
        "records": {s.name: s.num_examples for s in split_infos},
        "files": files,
        "kinds": dict(sorted(kinds.items())),
        "left_out": dict(sorted(left_out.items())),
        "skipped": skipped,
    }
    write_durably(unfinished / REPORT, json.dumps(report, indent=1).encode())


def _finish(unfinished: Path, folder: Path) -> None:
    """Gives the shards and the folder their names; may be repeated at any point.

    Raises:
      OSError: if TFDS does not read what is there as it was meant.
    """
    report = json.loads(_read(unfinished / REPORT))
    for name, final in report["files"].items():
        if (unfinished / name).exists():
            os.replace(unfinished / name, unfinished / final)
    builder = tfds.builder_from_directory(unfinished)
    undecoded = {
        key: tfds.decode.SkipDecoding()
        for key in ("image", *MASKS)
        if key in builder.info.features
    }
    for split, count in report["records"].items():
        source = builder.as_data_source(split, decoders=undecoded)
        with failing_as_files_do():
            whole = all(source[index]["image"] for index in (0, count - 1))
        if len(source) != count or not whole:
            raise OSError(f"{unfinished}: {len(source)} of {count} {split} images")
    for scrap in (*unfinished.glob("*-?????.json"), *unfinished.glob(f"{_PLAN}*")):
        scrap.unlink()
    (unfinished / _STATE).unlink(missing_ok=True)
    sync_folder(unfinished)
    os.rename(unfinished, folder)
    sync_folder(folder.parent)


def _check_asked(unfinished: Path, asked: Asked, earlier: dict) -> None:
    for option, value in asked.items():
        before = earlier["asked"].get(option)
        if before != value:
            raise InputError(
                f"{unfinished} holds an unfinished preparation with --{option}="
                f"{before}, not {value}: ask for that again to go on with it, or "
                "delete the folder to begin anew"
            )


@contextlib.contextmanager
def _removed_on_mistake(unfinished: Path) -> Iterator[None]:
    """Removes everything after an `InputError`: mending the source changes it.

    An image that cannot be read, an error only if `strict`, need not be mended, so
    shards that are written stay.
    """
    try:
        yield
    except InputError as error:
        written = len(list(unfinished.glob("*.array_record")))
        if isinstance(error, UnreadableImage) and written:
            raise InputError(
                f"{error}; {written} shards are kept in {unfinished}: to go on leave "
                "out --strict, or mend the image and delete that folder"
            ) from None
        shutil.rmtree(unfinished)
        raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a second preparation out, where the file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            os.close(descriptor)
            raise InputError(
                f"another process is preparing {folder}: wait for it"
            ) from None
    try:
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
