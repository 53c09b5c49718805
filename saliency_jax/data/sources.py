"""Prepared data sets as random-access sources of examples with encoded images."""

import bisect
import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import message
from jaxtyping import Int
from tensorflow_datasets.proto import tf_example_pb2

from saliency_jax.data.example import MASKS, Example
from saliency_jax.data.prepared_files import (
    UNREADABLE,
    check_metadata,
    check_shard_sizes,
    read_information,
    read_object,
)
from saliency_jax.data.tfds_features import check_features
from saliency_jax.errors import InputError

RENDERED = ("shapes", "shapes_pairs")
"""Rendered by program: of any size, and without a source."""

PREPARED_HERE = (*RENDERED, "tiny_imagenet", "imagenet_loc")
BUILDERS = (*PREPARED_HERE, "image_folder")
PREPARED_BY_TFDS = ("imagenet2012", "cifar10")
NAME_PATTERN = "[A-Za-z][A-Za-z0-9_]*"
"""Of the names that `image_folder` sets may have."""

_OURS = "saliency_jax."
_IMAGE_FOLDER = "saliency_jax.data.builders.image_folder"

# Features: of the other one of two objects; of any number.
_OTHER_LABELS = ("other_label", "other_labels")
_NO_LABELS = np.zeros(0, np.int64)


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of a prepared data set; picklable, and safe to share among threads."""

    name: str
    split: str
    class_names: tuple[str, ...]
    max_boxes: int
    """The most boxes that any image of the split has."""
    num_with_boxes: int
    """How many images of the split have a box (before any hold-out)."""
    has_object_masks: bool
    records: Any
    """The features of each example of the whole split, images not decoded."""
    upright: bool = False
    """Whether images are shown, and boxes filed, as their EXIF orientation says."""
    has_several_labels: bool = False
    """Whether an image may show classes besides that of its label."""
    indices: Int[np.ndarray, "n"] | None = None
    """The records that belong to this source; None means all."""

    @property
    def num_classes(self) -> int:
        """The number of classes, which may exceed that of the labels present."""
        return len(self.class_names)

    @property
    def has_exclusive_edges(self) -> bool:
        """Whether `xmax` and `ymax` of a filed box lie just outside of it.

        So they do in what this library itself files: scenes, which have masks of their
        objects, and folders of images, which are upright.
        """
        return self.has_object_masks or self.upright

    @property
    def has_boxes(self) -> bool:
        """Whether any image of the split has a box."""
        return self.num_with_boxes > 0

    def __len__(self) -> int:
        return len(self.records) if self.indices is None else len(self.indices)

    def subset(self, positions: Sequence[int] | np.ndarray) -> "Source":
        """The examples at these positions, in their order."""
        positions = np.asarray(positions, np.int64)
        chosen = positions if self.indices is None else self.indices[positions]
        return dataclasses.replace(self, indices=chosen)

    def __getitem__(self, index: int) -> Example:
        record = int(index if self.indices is None else self.indices[index])
        fields = self.records[record]
        boxes = np.asarray(fields.get("boxes", ()), np.float32).reshape(-1, 4)
        pixels = np.asarray(fields.get("boxes_pixels", ()), np.int32).reshape(-1, 4)
        name = fields.get("file_name", fields.get("id", b""))
        example = {
            "image": fields["image"],
            "label": int(np.asarray(fields["label"]).item()),
            "file_name": name.decode() or f"{self.name}/{self.split}[{record}]",
            "boxes": boxes,
            "boxes_valid": np.ones(len(boxes), bool),
            "boxes_pixels": pixels,
            "upright": self.upright,
        }
        if "original_size" in fields:
            example["original_size"] = np.asarray(fields["original_size"], np.int32)
        if self.has_several_labels:
            others = [fields[name] for name in _OTHER_LABELS if name in fields]
            example["other_labels"] = np.concatenate([_NO_LABELS, *others])
        example |= {name: fields[name] for name in MASKS if name in fields}
        return example


@dataclasses.dataclass(frozen=True)
class _Records:
    """Parses TFDS's records, in a quarter of the time that TFDS's own features take."""

    serialised: Any
    """A TFDS data source of bytes."""
    shards: tuple[Path, ...]
    """The files that it reads from."""
    stops: tuple[int, ...]
    """How many records there are up to the end of each file."""

    def __len__(self) -> int:
        return len(self.serialised)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            record = self.serialised[index]
            if not record:  # as from a file that is cut at the end of a block
                raise RuntimeError("the record is empty")
            example = tf_example_pb2.Example.FromString(record)
        # ArrayRecord's errors of a file that is damaged or missing are `RuntimeError`.
        except (RuntimeError, message.DecodeError) as error:
            shard = self.shards[bisect.bisect_right(self.stops, index)]
            raise _unreadable(shard, shard.parent, error) from None
        fields = {}
        for name, feature in example.features.feature.items():
            kind = feature.WhichOneof("kind")
            if kind == "bytes_list":
                fields[name] = feature.bytes_list.value[0]
            elif kind == "int64_list":
                fields[name] = np.array(feature.int64_list.value, np.int64)
            elif kind == "float_list":
                fields[name] = np.array(feature.float_list.value, np.float32)
        return fields


def open_source(name: str, data_dir: str, split: str) -> Source:
    """Opens one split of a prepared data set.

    Args:
      name: a data set, `shapes`, `shapes_pairs`, `tiny_imagenet`, `imagenet_loc`, the
        name that was given to an `image_folder`, or TFDS's own `imagenet2012` or
        `cifar10`; `shapes/128x128` names a size other than 64x64.
      data_dir: the folder that it was prepared in.
      split: "train", "validation", ...

    Raises:
      InputError: if the name or the split is unknown, the data set not prepared, or a
        file of it damaged; a file of records, when an example in it is asked for.
    """
    builder = _open_builder(name, data_dir)
    info, folder = builder.info, Path(builder.data_path)
    if split not in info.splits:
        raise InputError(
            f"{name} has no split {split!r}: it must be one of {', '.join(info.splits)}"
        )
    try:
        serialised = builder.as_data_source(
            split,
            file_format="array_record",
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
        )
    except (NotImplementedError, ValueError):
        raise InputError(
            f"{name} in {folder} is stored as {info.file_format.value}, array_record "
            f"was expected: run tfds convert_format --dataset_version_dir={folder} "
            "--out_file_format=array_record (needs TensorFlow)"
        ) from None
    metadata: Mapping[str, Any] = info.metadata or {}
    shards = info.splits[split].file_instructions
    try:
        check_shard_sizes({Path(shard.filename): shard.take for shard in shards})
    except (OSError, ValueError) as error:
        raise _unreadable(folder / "dataset_info.json", folder, error) from None
    return Source(
        name=name,
        split=split,
        class_names=tuple(info.features["label"].names),
        max_boxes=metadata.get("max_boxes", {}).get(split, 0),
        num_with_boxes=metadata.get("num_with_boxes", {}).get(split, 0),
        has_object_masks="object_mask" in info.features,
        records=_Records(
            serialised,
            shards=tuple(Path(shard.filename) for shard in shards),
            stops=tuple(itertools.accumulate(shard.take for shard in shards)),
        ),
        upright=metadata.get("upright", False),
        has_several_labels=any(name in info.features for name in _OTHER_LABELS),
    )


def find_evaluation_split(name: str, data_dir: str) -> str | None:
    """Returns the split to evaluate on, by the data set's information alone.

    Args:
      name: a data set, as for `open_source`.
      data_dir: the folder that it was prepared in.

    Returns:
      "validation" where there is one, else "test" (as in TFDS's `cifar10`), else None.

    Raises:
      InputError: if the name is unknown, or the data set not prepared.
    """
    splits = _open_builder(name, data_dir).info.splits
    return next((split for split in ("validation", "test") if split in splits), None)


def evaluation_split(name: str, data_dir: str) -> str:
    """As `find_evaluation_split`, for those who need one.

    Raises:
      InputError: also if there is neither split.
    """
    if split := find_evaluation_split(name, data_dir):
        return split
    splits = _open_builder(name, data_dir).info.splits
    raise InputError(
        f"{name} has no split validation or test to evaluate on, only "
        f"{', '.join(splits)}: prepare it again with one of them"
    )


def _open_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Reads the information of a prepared data set; none of its records.

    Raises:
      InputError: if the name is unknown, the data set not prepared, or its information
        damaged.
    """
    base, _, config = name.partition("/")
    known = PREPARED_HERE + PREPARED_BY_TFDS
    if base not in known and not _is_image_folder(name, Path(data_dir)):
        own = [path.name for path in sorted(Path(data_dir).glob("*")) if path.is_dir()]
        own = [path for path in own if _is_image_folder(path, Path(data_dir))]
        raise InputError(
            f"unknown data set {name!r}: it must be one of {', '.join([*known, *own])} "
            f"(or be prepared in {data_dir} by prepare image_folder --name {name})"
        )
    if config and not re.fullmatch(r"\w[\w.-]*", config):
        raise InputError(
            f"data set {name!r}: after the slash one name was expected, such as "
            "shapes/64x64"
        )
    if base in RENDERED:
        config = config or "64x64"
    folder = _version_folder(Path(data_dir) / base / config)
    if folder is None:
        raise InputError(
            f"{name} is not prepared in {data_dir}: {how_to_prepare(name, data_dir)}"
        )
    return read_builder(folder)


def read_builder(folder: Path) -> tfds.core.DatasetBuilder:
    """Reads the information in the folder of a prepared data set; none of its records.

    Raises:
      InputError: which names the file that is damaged or missing.
    """
    path = folder / "dataset_info.json"
    try:
        ours = read_information(path).module_name.startswith(_OURS)
        # TFDS's own sets need not have metadata, nor names of classes; TFDS does
        # without damaged names, and reads damaged metadata only when asked for it.
        path = folder / "features.json"
        check_features(read_object(path))
        path = folder / "metadata.json"
        if ours or path.exists():
            check_metadata(read_object(path))
        path = folder
        builder = tfds.builder_from_directory(folder)
        path = folder / "label.labels.txt"
        if ours or path.exists():
            lines = path.read_text(encoding="utf-8").split("\n")
            names = sum(bool(line.strip()) for line in lines)
            classes = builder.info.features["label"].num_classes
            if names != classes:
                raise ValueError(f"it names {names} of {classes} classes")
    except UNREADABLE as error:
        raise _unreadable(path, folder, error) from None
    return builder


def _unreadable(path: Path, folder: Path, error: Exception) -> InputError:
    # Protobuf's errors quote what they refuse, at any length.
    reason = str(getattr(error, "strerror", None) or error)[:300]
    return InputError(
        f"{path} cannot be read ({reason}): delete {folder} and prepare it again"
    )


def _is_image_folder(name: str, data_dir: Path) -> bool:
    if not re.fullmatch(NAME_PATTERN, name):
        return False
    folder = _version_folder(data_dir / name)
    if folder is None:
        return False
    try:
        information = read_information(folder / "dataset_info.json")
    except UNREADABLE:
        return True  # who opens it is told what is wrong
    return information.module_name == _IMAGE_FOLDER


def _version_folder(folder: Path) -> Path | None:
    """Returns the newest prepared version below `folder`."""
    versions = [
        (tuple(int(part) for part in path.parent.name.split(".")), path.parent)
        for path in folder.glob("*.*.*/dataset_info.json")
        if re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", path.parent.name)
    ]
    return max(versions)[1] if versions else None


def how_to_prepare(name: str, data_dir: str) -> str:
    base, _, config = name.partition("/")
    if base in PREPARED_BY_TFDS:
        return (
            f"run tfds build {base} --data_dir={data_dir} --file_format=array_record "
            "(needs TensorFlow)"
        )
    command = f"run python -m saliency_jax.data prepare {base} --data_dir {data_dir}"
    if base in RENDERED:
        return command + (f" --image_size {config.split('x')[0]}" if config else "")
    return command + " --source FOLDER"


def split_holdout(source: Source, count: int, seed: int) -> tuple[Source, Source]:
    """Holds out some images with boxes, without decoding any.

    Args:
      source: the source to divide; unchanged.
      count: how many images to hold out, at least 0.
      seed: which ones; the same seed holds out the same ones.

    Returns:
      The rest, and the `count` held-out examples, each with at least one box. Where
      the source has no boxes, the rest is everything and nothing is held out.

    Raises:
      InputError: if `count` is negative, fewer than `count` images have boxes, or
        nothing would be left.
    """
    if count < 0:
        raise InputError(
            f"config.data.holdout must be at least 0, not {count}: 0 holds nothing out"
        )
    if not source.has_boxes:
        return source, source.subset([])
    order = np.random.default_rng(seed).permutation(len(source))
    chosen: list[int] = []
    for position in order.tolist():
        if len(chosen) == count:
            break
        if len(source[position]["boxes"]):
            chosen.append(position)
    if len(chosen) < count or count >= len(source):
        raise InputError(
            f"cannot hold out {count} images with boxes of {source.name} "
            f"{source.split}: it has {len(source)} images, {len(chosen)} with boxes; "
            "hold out fewer by --config.data.holdout=N"
        )
    held_out = np.zeros(len(source), bool)
    held_out[chosen] = True
    return (
        source.subset(np.flatnonzero(~held_out)),
        source.subset(np.flatnonzero(held_out)),
    )
