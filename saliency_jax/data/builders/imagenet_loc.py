"""`imagenet_loc`: ImageNet's classification and localisation data, Kaggle's layout."""

import functools
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saliency_jax.data.builders import records
from saliency_jax.data.builders.image_memory import read_image_file
from saliency_jax.data.builders.recipe import Recipe, Task
from saliency_jax.data.builders.records import ListedFile, PixelBox
from saliency_jax.errors import InputError

_SIDES = ("width", "height")
_DATA, _ANNOTATIONS = "ILSVRC/Data/CLS-LOC", "ILSVRC/Annotations/CLS-LOC"


class _Annotation(NamedTuple):
    width: int
    height: int
    boxes: list[PixelBox]
    names: list[str]
    """What each object is called."""


def imagenet_loc_recipe(
    source: str, clip_boxes: bool = False, follow_links: bool = False
) -> Recipe:
    """ImageNet 2012 with the boxes of every object, JPEG bytes untouched.

        ILSVRC/Data/CLS-LOC/{train/<wnid>,val}/*.JPEG
        ILSVRC/Annotations/CLS-LOC/{train/<wnid>,val}/*.xml
        LOC_synset_mapping.txt    the line number is the label
        LOC_val_solution.csv      the classes of the validation images

    Training images may lack an XML file (about 58 % of ImageNet's do) and are kept
    without boxes. The folder may hold fewer classes than the mapping lists. Every
    object must be of its image's class.
    `boxes_pixels` are inclusive, as filed; the relative boxes are divided by the size
    that the XML file gives, not by that of the image. Both are of the stored pixels,
    and images are decoded so, whatever their EXIF orientation says.

    Args:
      source: the unpacked folder of Kaggle's CLS-LOC archive.
      clip_boxes: whether to cut boxes that stick out of their image, instead of
        refusing them.
      follow_links: see `Recipe`.

    Raises:
      InputError: if the list of classes is missing or has one twice; listing the tasks
        and making examples raise it for everything else that is amiss.
    """
    root = Path(source)
    mapping = root / "LOC_synset_mapping.txt"
    classes = [line.partition(" ") for line in records.read_lines(mapping)]
    wnids = [wnid for wnid, _, _ in classes]
    records.check_unique(wnids, mapping)
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    names = records.unique_names(wnids, [words or wnid for wnid, _, words in classes])
    return Recipe(
        name="imagenet_loc",
        config=None,
        module=__name__,
        description="ImageNet 2012 (Kaggle's CLS-LOC) with all boxes.",
        splits=("train", "validation"),
        class_names=tuple(names),
        image_format="jpeg",
        object_masks=False,
        upright=False,
        list_tasks=functools.partial(_list_tasks, root, labels, mapping.name),
        source=source,
        follow_links=follow_links,
        make_example=functools.partial(_make_example, root, labels, clip_boxes),
    )


def _list_tasks(
    root: Path, labels: dict[str, int], mapping: str, left_out: Counter[str]
) -> Iterator[Task]:
    del left_out  # the layout says what belongs to the data set
    yield from _train_tasks(root, labels, mapping)
    yield from _val_tasks(root, labels, mapping)


def _make_example(
    root: Path, labels: dict[str, int], clip_boxes: bool, task: Task
) -> dict[str, Any]:
    path = root / task.path
    encoded = read_image_file(path)
    width, height = records.image_size(encoded, str(path))
    filed, where = _Annotation(width, height, [], []), ""
    if task.detail is not None:
        annotation = root / task.detail[0]
        where = str(annotation)
        filed = _read_annotation(annotation)
        _check_class(filed.names, task, labels, annotation)
    return {
        "image": encoded,
        "label": task.label,
        "file_name": path.name,
        "boxes": [
            records.relative_box(box, filed.width, filed.height, where, clip_boxes)
            for box in filed.boxes
        ],
        "boxes_pixels": np.array(filed.boxes, np.int32).reshape(-1, 4),
        "original_size": np.array([filed.width, filed.height], np.int32),
    }


def _task(
    split: str, label: int, folder: str, file: ListedFile, annotation: list | None
) -> Task:
    return Task(
        split=split,
        key=f"{label}/{file.name}",
        label=label,
        path=f"{folder}/{file.name}",
        detail=annotation,
        size=file.size,
        stamp=file.stamp,
    )


def _train_tasks(root: Path, labels: dict[str, int], mapping: str) -> Iterator[Task]:
    train = root / _DATA / "train"
    found = False
    for wnid in records.folder_names(train):
        folder = train / wnid
        if not folder.is_dir():
            continue
        if wnid not in labels:
            raise InputError(
                f"{folder}: unknown class, not in {mapping}: add it there or remove "
                "the folder"
            )
        files = list(records.listed_files(folder, ".jpeg"))
        if not files:
            raise InputError(
                f"{folder} holds no image (*.JPEG): unpack it again or remove the "
                "folder"
            )
        annotations = _annotations(root, f"train/{wnid}", optional=True)
        for file in files:
            annotation = annotations.get(f"{os.path.splitext(file.name)[0]}.xml")
            yield _task(
                "train", labels[wnid], f"{_DATA}/train/{wnid}", file, annotation
            )
        found = True
    if not found:
        raise InputError(f"{train} holds no class folder: unpack the archive again")


def _val_tasks(root: Path, labels: dict[str, int], mapping: str) -> Iterator[Task]:
    solution = root / "LOC_val_solution.csv"
    wnids = {}
    for line in records.read_lines(solution)[1:]:
        image_id, _, prediction = line.partition(",")
        wnids[image_id] = prediction.partition(" ")[0]
    folder = root / _DATA / "val"
    annotations = _annotations(root, "val")
    files = list(records.listed_files(folder, ".jpeg"))
    if not files:
        raise InputError(f"{folder} holds no image (*.JPEG): unpack it again")
    for file in files:
        image_id = os.path.splitext(file.name)[0]
        if image_id not in wnids:
            raise InputError(
                f"{folder / file.name} has no class: one line for it was expected in "
                f"{solution}; add the line or remove the image"
            )
        if wnids[image_id] not in labels:
            raise InputError(
                f"{solution}: {image_id} is of unknown class {wnids[image_id]!r}, not "
                f"in {mapping}: add it there or remove the line"
            )
        if f"{image_id}.xml" not in annotations:
            expected = root / _ANNOTATIONS / "val" / f"{image_id}.xml"
            raise InputError(
                f"{folder / file.name} has no box: {expected} was expected; add it or "
                "remove the image"
            )
        label, annotation = labels[wnids[image_id]], annotations[f"{image_id}.xml"]
        yield _task("validation", label, f"{_DATA}/val", file, annotation)


def _annotations(root: Path, part: str, optional: bool = False) -> dict[str, list]:
    """Returns [path, size, stamp] of each XML file of one folder, by its name."""
    folder = root / _ANNOTATIONS / part
    if optional and not folder.is_dir():
        return {}
    return {
        file.name: [f"{_ANNOTATIONS}/{part}/{file.name}", file.size, file.stamp]
        for file in records.listed_files(folder, ".xml")
    }


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
    except (ElementTree.ParseError, LookupError, TypeError, ValueError) as error:
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
    names: list[str], task: Task, labels: dict[str, int], annotation: Path
) -> None:
    """Refuses a file whose objects are not of the image's class.

    CASM's scorer does so on the validation images. Many of the training images of dogs
    have the class in words, such as Scottish_deerhound, instead of its WordNet id
    (TensorFlow's process_bounding_boxes.py); none has another class's id.
    """
    for name in names:
        in_words = task.split == "train" and name not in labels
        if labels.get(name) != task.label and not in_words:
            wnid = next(key for key, label in labels.items() if label == task.label)
            raise InputError(
                f"{annotation}: an object is called {name!r}, but its image is "
                f"of class {wnid}: mend the annotation"
            )
