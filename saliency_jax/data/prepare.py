"""Turns folders (or the renderer) into ArrayRecord data sets that TFDS reads.

TFDS's own preparation works in one process and begins anew when stopped. The one here
(`preparation`) uses all cores and goes on where it was.
"""

import contextlib
import functools
import inspect
import json
import os
import re
import tempfile
from collections.abc import Collection
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from saliency_jax.data import preparation
from saliency_jax.data.builders.image_folder import image_folder_recipe
from saliency_jax.data.builders.image_kinds import HANDLING
from saliency_jax.data.builders.imagenet_loc import imagenet_loc_recipe
from saliency_jax.data.builders.shapes import shapes_pairs_recipe, shapes_recipe
from saliency_jax.data.builders.tiny_imagenet import tiny_imagenet_recipe
from saliency_jax.data.sources import (
    BUILDERS,
    NAME_PATTERN,
    PREPARED_BY_TFDS,
    RENDERED,
    how_to_prepare,
    read_builder,
)
from saliency_jax.errors import InputError

VERSION = "1.0.0"

_RECIPES = {
    "shapes": shapes_recipe,
    "shapes_pairs": shapes_pairs_recipe,
    "tiny_imagenet": tiny_imagenet_recipe,
    "imagenet_loc": imagenet_loc_recipe,
    "image_folder": image_folder_recipe,
}

OPTIONS = {
    builder: {
        name: None if argument.default is argument.empty else argument.default
        for name, argument in inspect.signature(recipe).parameters.items()
    }
    for builder, recipe in _RECIPES.items()
}
"""What each builder can be asked for, and what it does otherwise."""


def prepare(
    builder: str,
    data_dir: str,
    source: str | None = None,
    *,
    name: str | None = None,
    image_size: int | None = None,
    num_train: int | None = None,
    num_validation: int | None = None,
    clip_boxes: bool | None = None,
    boxes: str | None = None,
    validation_fraction: float | None = None,
    split_seed: int | None = None,
    follow_links: bool | None = None,
    strict: bool = False,
    num_workers: int = 0,
) -> Path:
    """Writes a data set below `data_dir`, unless it is there already.

    What was asked for is recorded in the data set's metadata, and asking for something
    else in the same place is refused, as is an option that the builder does not have.
    A preparation that is stopped, by whatever means, leaves nothing that could be
    opened, and the same call goes on where it was. One that fails for a mistake in the
    source leaves nothing below `data_dir`; but for an image that cannot be read, if
    `strict`, what is written is kept, to go on without. An earlier data set stays as
    it was.

    Records and their order depend on the source and the options alone, not on
    `num_workers` or on interruptions. A script that calls this needs the usual
    `if __name__ == "__main__":`, because worker processes import it.

    Args:
      builder: "shapes", "shapes_pairs", "tiny_imagenet", "imagenet_loc" or
        "image_folder".
      data_dir: folder of all prepared data sets; made if missing.
      source: folder of the raw files; none for what is rendered ("shapes" and
        "shapes_pairs"). For this and what follows None stands for the builder's own
        value in `OPTIONS`.
      name: of the data set that "image_folder" makes.
      image_size: side of rendered scenes, in pixels.
      num_train: how many training scenes are rendered.
      num_validation: how many validation scenes are rendered.
      clip_boxes: whether boxes that stick out of their image are cut, and reversed
        edges exchanged, instead of refused.
      boxes: CSV file of boxes for "image_folder".
      validation_fraction: part of each class that "image_folder" takes for validation.
      split_seed: which part.
      follow_links: whether symbolic links may lead to images outside `source`.
      strict: whether an image that cannot be read is an error; else it is named,
        counted and skipped.
      num_workers: processes; 0 takes as many as there are cores and work for them.

    Returns:
      The folder that holds the prepared data set.

    Raises:
      InputError: if anything in `source` or about the arguments is amiss, the data
        set is there already, prepared otherwise, or the source is not what it was
        when an earlier preparation was stopped.
    """
    if builder in PREPARED_BY_TFDS:
        raise InputError(
            f"{builder} is TFDS's own: {how_to_prepare(builder, data_dir)}"
        )
    if builder not in BUILDERS:
        raise InputError(
            f"unknown data set {builder!r}: it must be one of {', '.join(BUILDERS)}"
        )
    given = {
        "source": source,
        "name": name,
        "image_size": image_size,
        "num_train": num_train,
        "num_validation": num_validation,
        "clip_boxes": clip_boxes,
        "boxes": boxes,
        "validation_fraction": validation_fraction,
        "split_seed": split_seed,
        "follow_links": follow_links,
    }
    given = {option: value for option, value in given.items() if value is not None}
    _check_options(builder, given)
    options = OPTIONS[builder] | given
    name = options.get("name", builder)
    _check_name(builder, name)
    _check_writable(Path(data_dir))
    logging.set_verbosity(logging.ERROR)  # TFDS warns of its own internals
    make = functools.partial(_RECIPES[builder], **options)
    # The place says the name and the size.
    asked: preparation.Asked = {
        option: value
        for option, value in options.items()
        if option not in ("name", "image_size")
    }
    for path in {"source", "boxes"} & given.keys():
        asked[path] = str(Path(given[path]).resolve())
    config = (
        "{image_size}x{image_size}".format(**options) if builder in RENDERED else ""
    )
    folder = Path(data_dir) / name / config / VERSION
    if folder.exists():
        there = read_builder(folder)
        _check_same(there, asked, strict)
        print(
            f"{name} is already prepared in {folder}: {_contents(there)}; delete that "
            "folder to prepare it anew"
        )
        return folder
    if builder not in RENDERED:
        _check_source(builder, source)
    try:
        preparation.write_data_set(folder, asked, make, strict, num_workers)
    finally:
        for above in folder.relative_to(data_dir).parents[:-1]:
            with contextlib.suppress(OSError):  # it holds what was written, or kept
                (Path(data_dir) / above).rmdir()
    there = read_builder(folder)
    print(f"{name} is prepared in {folder}: {_contents(there)}")
    _print_unusual(folder)
    return folder


def _check_options(builder: str, given: Collection[str]) -> None:
    for option in given:
        if option not in OPTIONS[builder]:
            takers = [other for other in OPTIONS if option in OPTIONS[other]]
            raise InputError(
                f"--{option} is not for {builder}, only for {', '.join(takers)}: "
                "leave it out"
            )


def _check_name(builder: str, name: str) -> None:
    taken = name != builder and name in (*BUILDERS, *PREPARED_BY_TFDS)
    if taken or not re.fullmatch(NAME_PATTERN, name):
        raise InputError(
            f"--name {name!r} "
            + ("is another data set's" if taken else "must match " + NAME_PATTERN)
            + ": choose another"
        )


def _check_same(
    builder: tfds.core.DatasetBuilder, asked: preparation.Asked, strict: bool
) -> None:
    """Refuses if what is there was prepared otherwise, as far as that is recorded."""
    splits = builder.info.splits
    metadata = dict(builder.info.metadata.items())
    recorded = metadata | {
        f"num_{split}": splits[split].num_examples for split in splits
    }
    for option, value in asked.items():
        if option == "source" and value is None:
            continue  # it is not needed any more
        there = recorded.get(option, value)
        if there != value:
            raise InputError(
                f"{builder.data_path} already holds {_contents(builder)}, prepared "
                f"with --{option}={there}, not {value}: delete that folder or choose "
                "another --data_dir"
            )
    if strict and metadata.get("skipped"):
        raise InputError(
            f"{builder.data_path} already holds {_contents(builder)}, prepared without "
            "--strict: delete that folder or choose another --data_dir"
        )


def _contents(builder: tfds.core.DatasetBuilder) -> str:
    """Returns such as "60 train and 25 validation images of 10 classes"."""
    splits = builder.info.splits
    counts = " and ".join(f"{splits[name].num_examples} {name}" for name in splits)
    classes = builder.info.features["label"].num_classes
    skipped = sum(builder.info.metadata.get("skipped", {}).values())
    without = f", {skipped} unreadable skipped" if skipped else ""
    return f"{counts} images of {classes} classes{without}"


def _print_unusual(folder: Path) -> None:
    """Says what was done with unusual images, and which files were none."""
    report = json.loads((folder / preparation.REPORT).read_text())
    for kind, count in report["kinds"].items():
        print(f"  {count} {kind}: {HANDLING[kind]}")
    if report["left_out"]:
        files = ", ".join(f"{n} {suffix}" for suffix, n in report["left_out"].items())
        print(f"  left out, no images by their suffix: {files}")


def _check_source(builder: str, source: str | None) -> None:
    if source is None:
        raise InputError(f"{builder} needs --source, the folder with its files")
    if not Path(source).is_dir() or not os.listdir(source):
        raise InputError(
            f"source folder {source} is missing or empty: --source must name the "
            f"unpacked folder of {builder}"
        )


def _check_writable(data_dir: Path) -> None:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise InputError(
            f"data_dir {data_dir} is not writable ({error.strerror}): choose another "
            "--data_dir"
        ) from None
