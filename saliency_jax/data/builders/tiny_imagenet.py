"""`tiny_imagenet`: the layout of the original `tiny-imagenet-200.zip`."""

import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from saliency_jax.data.builders import records
from saliency_jax.data.builders.image_memory import read_image_file
from saliency_jax.data.builders.recipe import Recipe, Task
from saliency_jax.data.builders.records import ListedFile, PixelBox
from saliency_jax.errors import InputError


def tiny_imagenet_recipe(
    source: str, clip_boxes: bool = False, follow_links: bool = False
) -> Recipe:
    """Tiny ImageNet: 64x64 JPEGs of up to 200 classes with one box each.

    The folder may be a subset: its classes are those of `wnids.txt`, and labels follow
    the sorted WordNet ids, as with an image folder. The validation split is `val/`.
    `boxes_pixels` are inclusive, as filed, and images decoded as stored.

    Args:
      source: the unpacked folder of tiny-imagenet-200.zip.
      clip_boxes: see `records.relative_box`.
      follow_links: see `Recipe`.

    Raises:
      InputError: if a list of classes is missing, misshapen or has one twice; listing
        the tasks and making examples raise it for everything else that is amiss.
    """
    root = Path(source)
    wnids = sorted(records.read_lines(root / "wnids.txt"))
    records.check_unique(wnids, root / "wnids.txt")
    words = dict(_table(root / "words.txt", columns=2))
    names = records.unique_names(wnids, [words.get(wnid, wnid) for wnid in wnids])
    return Recipe(
        name="tiny_imagenet",
        config=None,
        module=__name__,
        description="Tiny ImageNet with its boxes, JPEG bytes untouched.",
        splits=("train", "validation"),
        class_names=tuple(names),
        image_format="jpeg",
        object_masks=False,
        upright=False,
        list_tasks=functools.partial(_list_tasks, root, wnids),
        source=source,
        follow_links=follow_links,
        make_example=functools.partial(_make_example, root, clip_boxes),
    )


def _list_tasks(root: Path, wnids: list[str], left_out: Counter[str]) -> Iterator[Task]:
    del left_out  # the layout says what belongs to the data set
    yield from _train_tasks(root, wnids)
    yield from _val_tasks(root, wnids)


def _make_example(root: Path, clip_boxes: bool, task: Task) -> dict[str, Any]:
    path = root / task.path
    edges, filed_in = task.detail
    box = PixelBox(*edges)
    encoded = read_image_file(path)
    width, height = records.image_size(encoded, str(path))
    where = f"{root / filed_in}: {path.name}"
    return {
        "image": encoded,
        "label": task.label,
        "file_name": path.name,
        "boxes": [records.relative_box(box, width, height, where, clip_boxes)],
        "boxes_pixels": np.array([box], np.int32),
        "original_size": np.array([width, height], np.int32),
    }


def _task(
    split: str, label: int, folder: str, file: ListedFile, box: PixelBox, filed_in: str
) -> Task:
    return Task(
        split=split,
        key=f"{label}/{file.name}",
        label=label,
        path=f"{folder}/{file.name}",
        detail=[box, filed_in],
        size=file.size,
        stamp=file.stamp,
    )


def _train_tasks(root: Path, wnids: list[str]) -> Iterator[Task]:
    present = set(records.folder_names(root / "train"))
    unknown = sorted(
        name for name in present - set(wnids) if re.fullmatch(r"n\d{8}", name)
    )
    if unknown:
        raise InputError(
            f"{root / 'train' / unknown[0]}: unknown class, not in wnids.txt: "
            "add it there or remove the folder"
        )
    for label, wnid in enumerate(wnids):
        folder, filed_in = f"train/{wnid}/images", f"train/{wnid}/{wnid}_boxes.txt"
        boxes = {
            name: _box(edges, root / filed_in)
            for name, *edges in _table(root / filed_in, columns=5)
        }
        files = list(records.listed_files(root / folder, ".jpeg"))
        if not files:
            raise InputError(
                f"{root / folder} holds no image (*.JPEG) though wnids.txt lists the "
                f"class: unpack it again or remove {wnid} from wnids.txt"
            )
        for file in files:
            box = _box_of(root / folder / file.name, boxes, root / filed_in)
            yield _task("train", label, folder, file, box, filed_in)


def _val_tasks(root: Path, wnids: list[str]) -> Iterator[Task]:
    folder, filed_in = "val/images", "val/val_annotations.txt"
    annotations = root / filed_in
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    rows = {name: row for name, *row in _table(annotations, columns=6)}
    for name, row in rows.items():
        if row[0] not in labels:
            raise InputError(
                f"{annotations}: {name} is of unknown class {row[0]!r}, not in "
                "wnids.txt: add it there or remove the line"
            )
    boxes = {name: _box(edges, annotations) for name, (_, *edges) in rows.items()}
    files = list(records.listed_files(root / folder, ".jpeg"))
    if not files:
        raise InputError(f"{root / folder} holds no image (*.JPEG): unpack it again")
    for file in files:
        box = _box_of(root / folder / file.name, boxes, annotations)
        label = labels[rows[file.name][0]]
        yield _task("validation", label, folder, file, box, filed_in)


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
