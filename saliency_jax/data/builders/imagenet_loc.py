"""`imagenet_loc`: ImageNet's classification and localisation data, Kaggle's layout."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from saliency_jax.data.builders import records
from saliency_jax.data.builders.records import PixelBox
from saliency_jax.errors import InputError

_SIDES = ("width", "height")


class _Image(NamedTuple):
    path: Path
    label: int
    annotation: Path | None


class _Annotation(NamedTuple):
    width: int
    height: int
    boxes: list[PixelBox]
    names: list[str]
    """What each object is called."""


class ImagenetLoc(tfds.core.GeneratorBasedBuilder):
    """ImageNet 2012 with the boxes of every object, JPEG bytes untouched.

        ILSVRC/Data/CLS-LOC/{train/<wnid>,val}/*.JPEG
        ILSVRC/Annotations/CLS-LOC/{train/<wnid>,val}/*.xml
        LOC_synset_mapping.txt    the line number is the label
        LOC_val_solution.csv      the classes of the validation images

    Training images may lack an XML file (about 58 % of ImageNet's do) and are kept
    without boxes. The folder may hold fewer classes than the mapping lists. Every
    object must be of its image's class.
    `boxes_pixels` are inclusive, as filed; the relative boxes are divided by the size
    that the XML file gives, not by that of the image.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The unpacked folder of Kaggle's CLS-LOC archive."
    url_infos = None  # TFDS's look-up fails in a package on Python 3.11

    def __init__(self, *, clip_boxes: bool = False, **kwargs: Any):
        """Builds below `data_dir`.

        Args:
          clip_boxes: whether to cut boxes that stick out of their image, instead of
            refusing them.
          **kwargs: of TFDS: `data_dir`, `file_format`.
        """
        self._clip_boxes = clip_boxes
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return records.record_info(
            self, "jpeg", "ImageNet 2012 (Kaggle's CLS-LOC) with all boxes."
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        root = Path(dl_manager.manual_dir)
        mapping = root / "LOC_synset_mapping.txt"
        classes = [line.partition(" ") for line in records.read_lines(mapping)]
        wnids = [wnid for wnid, _, _ in classes]
        labels = {wnid: label for label, wnid in enumerate(wnids)}
        splits = {
            "train": _train_images(root, labels, mapping),
            "validation": _val_images(root, labels, mapping),
        }
        self.info.features["label"].names = records.unique_names(
            wnids, [words or wnid for wnid, _, words in classes]
        )
        return {
            split: self._generate_examples(split, images, labels)
            for split, images in splits.items()
        }

    def _generate_examples(
        self, split: str, images: list[_Image], labels: dict[str, int]
    ) -> Iterator:
        def make_example(image: _Image) -> tuple[str, dict[str, Any]]:
            encoded = image.path.read_bytes()
            width, height = records.image_size(encoded, str(image.path))
            filed = _Annotation(width, height, [], [])
            if image.annotation is not None:
                filed = _read_annotation(image.annotation)
                _check_class(filed.names, image, labels, split)
            where = str(image.annotation)
            return f"{image.label}/{image.path.name}", {
                "image": encoded,
                "label": image.label,
                "file_name": image.path.name,
                "boxes": [
                    records.relative_box(
                        box, filed.width, filed.height, where, self._clip_boxes
                    )
                    for box in filed.boxes
                ],
                "boxes_pixels": np.array(filed.boxes, np.int32).reshape(-1, 4),
                "original_size": np.array([filed.width, filed.height], np.int32),
            }

        return records.generate(self, split, images, make_example)


def _train_images(root: Path, labels: dict[str, int], mapping: Path) -> list[_Image]:
    images = []
    train = root / "ILSVRC/Data/CLS-LOC/train"
    for folder in filter(Path.is_dir, records.list_folder(train)):
        if folder.name not in labels:
            raise InputError(
                f"{folder}: unknown class, not in {mapping.name}: add it there or "
                "remove the folder"
            )
        names = _names(folder, ".jpeg")
        if not names:
            raise InputError(
                f"{folder} holds no image (*.JPEG): unpack it again or remove the "
                "folder"
            )
        annotations = root / "ILSVRC/Annotations/CLS-LOC/train" / folder.name
        annotated = set(_names(annotations, ".xml")) if annotations.is_dir() else set()
        for name in names:
            xml_name = f"{os.path.splitext(name)[0]}.xml"
            annotation = annotations / xml_name if xml_name in annotated else None
            images.append(_Image(folder / name, labels[folder.name], annotation))
    if not images:
        raise InputError(f"{train} holds no class folder: unpack the archive again")
    return images


def _val_images(root: Path, labels: dict[str, int], mapping: Path) -> list[_Image]:
    solution = root / "LOC_val_solution.csv"
    wnids = {}
    for line in records.read_lines(solution)[1:]:
        image_id, _, prediction = line.partition(",")
        wnids[image_id] = prediction.partition(" ")[0]
    folder = root / "ILSVRC/Data/CLS-LOC/val"
    annotations = root / "ILSVRC/Annotations/CLS-LOC/val"
    annotated = {path.name for path in records.list_folder(annotations)}
    images = []
    for name in _names(folder, ".jpeg"):
        image_id = os.path.splitext(name)[0]
        if image_id not in wnids:
            raise InputError(
                f"{folder / name} has no class: one line for it was expected in "
                f"{solution}; add the line or remove the image"
            )
        if wnids[image_id] not in labels:
            raise InputError(
                f"{solution}: {image_id} is of unknown class {wnids[image_id]!r}, not "
                f"in {mapping.name}: add it there or remove the line"
            )
        if f"{image_id}.xml" not in annotated:
            raise InputError(
                f"{folder / name} has no box: {annotations / image_id}.xml was "
                "expected; add it or remove the image"
            )
        annotation = annotations / f"{image_id}.xml"
        images.append(_Image(folder / name, labels[wnids[image_id]], annotation))
    if not images:
        raise InputError(f"{folder} holds no image (*.JPEG): unpack it again")
    return images


def _names(folder: Path, suffix: str) -> list[str]:
    paths = records.list_folder(folder)
    return [path.name for path in paths if path.suffix.lower() == suffix]


def _read_annotation(path: Path) -> _Annotation:
    """Reads the image size and every box of an XML file in PASCAL VOC's format."""
    try:
        tree = ElementTree.parse(path).getroot()
        width, height = (int(tree.findtext(f"size/{s}")) for s in _SIDES)
        boxes = [
            PixelBox(*(int(box.findtext(edge)) for edge in PixelBox._fields))
            for box in tree.iterfind("object/bndbox")
        ]
        names = [item.findtext("name", "").strip() for item in tree.iterfind("object")]
    except (ElementTree.ParseError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{path} is not a PASCAL VOC annotation ({error}): copy it again"
        ) from None
    if not boxes:
        raise InputError(
            f"{path} holds no box (object/bndbox): mend it, or remove it (and its "
            "image, if it is a validation image)"
        )
    return _Annotation(width, height, boxes, names)


def _check_class(
    names: list[str], image: _Image, labels: dict[str, int], split: str
) -> None:
    """Refuses a file whose objects are not of the image's class.

    CASM's scorer does so on the validation images. Many of the training images of dogs
    have the class in words, such as Scottish_deerhound, instead of its WordNet id
    (TensorFlow's process_bounding_boxes.py); none has another class's id.
    """
    for name in names:
        in_words = split == "train" and name not in labels
        if labels.get(name) != image.label and not in_words:
            wnid = next(key for key, label in labels.items() if label == image.label)
            raise InputError(
                f"{image.annotation}: an object is called {name!r}, but its image is "
                f"of class {wnid}: mend the annotation"
            )
