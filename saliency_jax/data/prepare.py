"""Turns folders (or the renderer) into ArrayRecord data sets, by TFDS builders."""

import contextlib
import io
import os
import tempfile
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from saliency_jax.data.builders.imagenet_loc import ImagenetLoc
from saliency_jax.data.builders.shapes import Shapes, shapes_config
from saliency_jax.data.builders.tiny_imagenet import TinyImagenet
from saliency_jax.data.sources import PREPARED_BY_TFDS, PREPARED_HERE, how_to_prepare
from saliency_jax.errors import InputError


def prepare(
    name: str,
    data_dir: str,
    source: str | None = None,
    *,
    image_size: int = 64,
    num_train: int = 10_000,
    num_validation: int = 1_000,
    clip_boxes: bool = False,
) -> Path:
    """Writes a data set below `data_dir`, unless it is there already.

    What was asked for is recorded in the data set's metadata, and asking for something
    else in the same place is refused. A preparation that fails leaves nothing that
    could be opened, and an earlier one as it was.

    Args:
      name: "shapes", "tiny_imagenet" or "imagenet_loc".
      data_dir: folder of all prepared data sets; made if missing.
      source: folder of the raw files; none for "shapes".
      image_size: side of the scenes of "shapes", in pixels.
      num_train: how many training scenes "shapes" has.
      num_validation: how many validation scenes "shapes" has.
      clip_boxes: whether boxes that stick out of their image are cut, and reversed
        edges exchanged, instead of refused.

    Returns:
      The folder that holds the prepared data set.

    Raises:
      InputError: if anything in `source` or about the arguments is amiss, or the data
        set is there already, prepared otherwise.
    """
    if name in PREPARED_BY_TFDS:
        raise InputError(f"{name} is TFDS's own: {how_to_prepare(name, data_dir)}")
    if name not in PREPARED_HERE:
        raise InputError(
            f"unknown data set {name!r}: it must be one of {', '.join(PREPARED_HERE)}"
        )
    _check_writable(Path(data_dir))
    logging.set_verbosity(logging.ERROR)  # TFDS warns of its own internals
    where = {"data_dir": data_dir, "file_format": "array_record"}
    resolved = None if source is None else str(Path(source).resolve())
    if name == "shapes":
        asked = {"num_train": num_train, "num_validation": num_validation}
        config = shapes_config(image_size, num_train, num_validation)
        builder = Shapes(config=config, **where)
    else:
        asked = {"source": resolved, "clip_boxes": clip_boxes}
        make = TinyImagenet if name == "tiny_imagenet" else ImagenetLoc
        builder = make(clip_boxes=clip_boxes, **where)
    if builder.info.splits:
        _check_same(builder, asked)
        print(
            f"{name} is already prepared in {builder.data_path}: {_contents(builder)}"
        )
        return Path(builder.data_path)
    if name != "shapes":
        _check_source(name, source)
    builder.info.metadata.update(asked)
    tfds.disable_progress_bar()
    try:
        _write(builder, source)
    except OSError as error:
        raise InputError(
            f"preparing {name} stopped, nothing was kept: {error}; mend that and run "
            "it again"
        ) from None
    print(f"{name} is prepared in {builder.data_path}")
    return Path(builder.data_path)


def _write(builder: tfds.core.DatasetBuilder, source: str | None) -> None:
    with (
        tempfile.TemporaryDirectory() as unused_download_dir,
        # TFDS prints that the download is of unknown size; nothing is downloaded.
        contextlib.redirect_stdout(io.StringIO()),
    ):
        builder.download_and_prepare(
            download_dir=unused_download_dir,
            download_config=tfds.download.DownloadConfig(manual_dir=source),
        )


def _check_same(
    builder: tfds.core.DatasetBuilder, asked: dict[str, str | int | None]
) -> None:
    """Refuses if what is there was prepared otherwise, as far as that is recorded."""
    splits = builder.info.splits
    recorded = dict(builder.info.metadata.items()) | {
        f"num_{split}": splits[split].num_examples for split in splits
    }
    for option, value in asked.items():
        there = recorded.get(option, value)
        if value is not None and there != value:
            raise InputError(
                f"{builder.data_path} already holds {_contents(builder)}, prepared "
                f"with --{option}={there}, not {value}: delete that folder or choose "
                "another --data_dir"
            )


def _contents(builder: tfds.core.DatasetBuilder) -> str:
    """Returns such as "60 train and 25 validation images of 10 classes"."""
    splits = builder.info.splits
    counts = " and ".join(f"{splits[name].num_examples} {name}" for name in splits)
    classes = builder.info.features["label"].num_classes
    return f"{counts} images of {classes} classes"


def _check_source(name: str, source: str | None) -> None:
    if source is None:
        raise InputError(f"{name} needs --source, the folder with its files")
    if not Path(source).is_dir() or not os.listdir(source):
        raise InputError(
            f"source folder {source} is missing or empty: --source must name the "
            f"unpacked folder of {name}"
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
