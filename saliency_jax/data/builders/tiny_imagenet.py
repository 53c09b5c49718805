"""`tiny_imagenet`: the layout of the original `tiny-imagenet-200.zip`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from saliency_jax.data.builders import records
from saliency_jax.data.builders.records import PixelBox
from saliency_jax.errors import InputError


class _Image(NamedTuple):
    path: Path
    label: int
    box: PixelBox
    filed_in: str


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """Tiny ImageNet: 64x64 JPEGs of up to 200 classes with one box each.

    The folder may be a subset: its classes are those of `wnids.txt`, and labels follow
    the sorted WordNet ids, as with an image folder. The validation split is `val/`.
    `boxes_pixels` are inclusive, as filed.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The unpacked folder of tiny-imagenet-200.zip."
    url_infos = (
        None  # nothing is downloaded; TFDS's own look-up needs a missing package
    )

    def __init__(self, *, clip_boxes: bool = False, **kwargs: Any):
        """See `ImagenetLoc`."""
        self._clip_boxes = clip_boxes
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return records.record_info(
            self, "jpeg", "Tiny ImageNet with its boxes, JPEG bytes untouched."
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        root = Path(dl_manager.manual_dir)
        wnids = sorted(records.read_lines(root / "wnids.txt"))
        words = dict(_table(root / "words.txt", columns=2))
        splits = {"train": _train_images(root, wnids), "validation": _val(root, wnids)}
        self.info.features["label"].names = records.unique_names(
            wnids, [words.get(wnid, wnid) for wnid in wnids]
        )
        return {
            split: self._generate_examples(split, images)
            for split, images in splits.items()
        }

    def _generate_examples(self, split: str, images: list[_Image]) -> Iterator:
        def make_example(image: _Image) -> tuple[str, dict[str, Any]]:
            encoded = image.path.read_bytes()
            width, height = records.image_size(encoded, str(image.path))
            where = f"{image.filed_in}: {image.path.name}"
            return f"{image.label}/{image.path.name}", {
                "image": encoded,
                "label": image.label,
                "file_name": image.path.name,
                "boxes": [
                    records.relative_box(
                        image.box, width, height, where, self._clip_boxes
                    )
                ],
                "boxes_pixels": np.array([image.box], np.int32),
                "original_size": np.array([width, height], np.int32),
            }

        return records.generate(self, split, images, make_example)


def _train_images(root: Path, wnids: list[str]) -> list[_Image]:
    present = {folder.name for folder in records.list_folder(root / "train")}
    unknown = sorted(
        name for name in present - set(wnids) if re.fullmatch(r"n\d{8}", name)
    )
    if unknown:
        raise InputError(
            f"{root / 'train' / unknown[0]}: unknown class, not in wnids.txt: "
            "add it there or remove the folder"
        )
    images = []
    for label, wnid in enumerate(wnids):
        folder = root / "train" / wnid / "images"
        boxes_file = root / "train" / wnid / f"{wnid}_boxes.txt"
        boxes = {
            name: _box(edges, boxes_file)
            for name, *edges in _table(boxes_file, columns=5)
        }
        paths = _jpegs(folder)
        if not paths:
            raise InputError(
                f"{folder} holds no image (*.JPEG) though wnids.txt lists the class: "
                f"unpack it again or remove {wnid} from wnids.txt"
            )
        images += [
            _Image(path, label, _box_of(path, boxes, boxes_file), str(boxes_file))
            for path in paths
        ]
    return images


def _val(root: Path, wnids: list[str]) -> list[_Image]:
    annotations = root / "val" / "val_annotations.txt"
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    rows = {name: row for name, *row in _table(annotations, columns=6)}
    for name, row in rows.items():
        if row[0] not in labels:
            raise InputError(
                f"{annotations}: {name} is of unknown class {row[0]!r}, not in "
                "wnids.txt: add it there or remove the line"
            )
    boxes = {name: _box(edges, annotations) for name, (_, *edges) in rows.items()}
    folder = root / "val" / "images"
    images = []
    for path in _jpegs(folder):
        box = _box_of(path, boxes, annotations)
        images.append(_Image(path, labels[rows[path.name][0]], box, str(annotations)))
    if not images:
        raise InputError(f"{folder} holds no image (*.JPEG): unpack it again")
    return images


def _jpegs(folder: Path) -> list[Path]:
    return [p for p in records.list_folder(folder) if p.suffix.lower() == ".jpeg"]


def _box_of(path: Path, boxes: dict[str, PixelBox], filed_in: Path) -> PixelBox:
    if path.name not in boxes:
        raise InputError(
            f"{path} has no box: one line for it was expected in {filed_in}; add the "
            "line or remove the image"
        )
    return boxes[path.name]


def _table(path: Path, columns: int) -> Iterator[list[str]]:
    for number, line in enumerate(records.read_lines(path), start=1):
        row = line.split("\t")
        if len(row) != columns:
            raise InputError(
                f"{path}:{number}: {columns} tab-separated columns were expected, "
                f"found {len(row)}: unpack the file again"
            )
        yield row


def _box(edges: list[str], path: Path) -> PixelBox:
    try:
        return PixelBox(*(int(edge) for edge in edges))
    except ValueError:
        raise InputError(
            f"{path}: box {edges} is not four integers: mend the line"
        ) from None
