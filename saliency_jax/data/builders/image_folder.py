"""`image_folder`: any folder with one sub-folder per class, boxes from a CSV file."""

import functools
import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from saliency_jax.data.builders import box_rows, records
from saliency_jax.data.builders.image_kinds import SUFFIXES, image_kinds
from saliency_jax.data.builders.image_memory import read_image_file
from saliency_jax.data.builders.recipe import Recipe, Task
from saliency_jax.data.builders.records import ListedFile, PixelBox
from saliency_jax.errors import InputError

_SPLIT_OF_FOLDER = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


def image_folder_recipe(
    source: str,
    name: str = "image_folder",
    boxes: str | None = None,
    validation_fraction: float | None = None,
    split_seed: int = 0,
    clip_boxes: bool = False,
    follow_links: bool = False,
) -> Recipe:
    """Pictures sorted into one folder per class, their bytes untouched.

        SOURCE/<class>/**                 everything is for training, or a fraction of
                                          each class for validation
        SOURCE/{train,val,test}/<class>/**  splits train, validation and test; val may
                                          also be called valid or validation

    Labels follow the sorted names of the class folders (of `train/`). A class folder is
    searched with the folders in it; files that are no images by their suffix are
    counted and left out, hidden ones without a word.

    Boxes come from a CSV file with the columns `path,xmin,ymin,xmax,ymax` (that line
    itself may stand first), several lines for an image or none. A path is relative to
    the source. Edges are in pixels, and `xmax` and `ymax` exclusive: the first column
    and row behind the object, so that xmax - xmin is its width. `boxes_pixels` keep
    them as filed; CASM's scorer takes filed edges literally and so sees the exact box
    (as with `shapes`; ImageNet's boxes, filed inclusive, it sees a pixel too small).

    Where images have several labels, the CSV file has a sixth column `class`: the
    folder name of what is in the box, nothing for the image's own. A box of another
    class is not kept; it says that the class is there, as a line without edges does:
    `path,,,,,class`.

    Pictures are shown upright, as viewers and annotation tools show them: an EXIF
    orientation is obeyed at preparation and in training, and boxes and `original_size`
    are of the picture so turned. What becomes of other unusual kinds is in
    `image_kinds.HANDLING`; how many there are is counted.

    Args:
      source: the folder.
      name: of the prepared data set, for `config.data.name`.
      boxes: the CSV file; None for no boxes.
      validation_fraction: part of each class's training images, in (0, 1), that
        becomes the validation split; rounded, at least one image, and at least one
        stays, so that a class of one image gives none. None where folders make the
        split, or for none.
      split_seed: which images are taken for validation.
      clip_boxes: whether to cut boxes that stick out of their image, instead of
        refusing them.
      follow_links: see `Recipe`.

    Raises:
      InputError: if the folder has another layout, or an option does not fit it;
        listing the tasks and making examples raise it for all else that is amiss.
    """
    root = Path(source)
    folders = _split_folders(root)
    if validation_fraction is not None:
        if not 0 < validation_fraction < 1:
            raise InputError(
                f"--validation_fraction must be in (0, 1), not {validation_fraction}"
            )
        if "validation" in folders:
            there = root / folders["validation"]
            raise InputError(
                f"{there} already holds the validation images: leave out "
                "--validation_fraction or move that folder away"
            )
    train = root / folders["train"]
    class_names = tuple(_folders_in(train))
    if len(class_names) < 2:
        raise InputError(
            f"{train} holds {len(class_names)} folders, at least two classes were "
            "expected: --source must name the folder with one sub-folder per class, or "
            "with train/ and val/ of such"
        )
    splits = ["train"] if validation_fraction is None else ["train", "validation"]
    splits += [split for split in ("validation", "test") if split in folders]
    if_empty = {
        split: f"{root / folder} holds no image; fill that folder or move it away"
        for split, folder in folders.items()
    }
    if validation_fraction is not None:
        if_empty["validation"] = (
            f"each class of {train} has one image only, which stays for training; add "
            "images or leave out --validation_fraction"
        )
    listing = functools.partial(
        _list_tasks,
        root,
        folders,
        class_names,
        validation_fraction,
        split_seed,
        follow_links,
    )
    with_labels = bool(boxes) and box_rows.has_classes(Path(boxes))
    return Recipe(
        name=name,
        config=None,
        module=__name__,
        description="Pictures from one folder per class, bytes untouched.",
        splits=tuple(splits),
        class_names=class_names,
        image_format=None,
        object_masks=False,
        upright=True,
        list_tasks=listing,
        source=source,
        follow_links=follow_links,
        make_example=functools.partial(
            _make_example, root, boxes, clip_boxes, with_labels
        ),
        other_labels=with_labels,
        if_empty=if_empty,
        rows_file=boxes or "",
        list_rows=(
            functools.partial(box_rows.read_rows, Path(boxes), class_names)
            if boxes
            else None
        ),
    )


def _make_example(
    root: Path, boxes_file: str | None, clip_boxes: bool, with_labels: bool, task: Task
) -> dict[str, Any]:
    path = root / task.path
    encoded = read_image_file(path)
    kinds = image_kinds(encoded, str(path))
    width, height = records.image_size(encoded, str(path), upright=True)
    own, boxes, others = [], [], set()
    for line, (edges, label) in task.detail or ():
        is_own = label in (None, task.label)
        if not is_own:
            others.add(label)
        if edges:
            box, where = PixelBox(*edges), f"{boxes_file}:{line}"
            relative = records.relative_box(
                box, width, height, where, clip_boxes, half_open=True
            )
            if is_own:
                own.append(box)
                boxes.append(relative)
    example = {
        "image": encoded,
        "label": task.label,
        "file_name": task.path,
        "boxes": boxes,
        "boxes_pixels": np.array(own, np.int32).reshape(-1, 4),
        "original_size": np.array([width, height], np.int32),
        "kinds": kinds,
    }
    return example | ({"other_labels": sorted(others)} if with_labels else {})


def _split_folders(root: Path) -> dict[str, str]:
    """Returns the folder of each split, relative to the source.

    Folders make the split where `train` holds folders but no image: a class of that
    name holds images.
    """
    names = _folders_in(root)
    train = root / "train"
    if "train" not in names or not _folders_in(train) or _holds_images(train):
        return {"train": ""}
    folders: dict[str, str] = {}
    for name in names:
        split = _SPLIT_OF_FOLDER.get(name)
        if split is None or split in folders:
            expected = ", ".join(_SPLIT_OF_FOLDER)
            raise InputError(
                f"{root / name} stands beside {train}, where only one folder of each "
                f"split was expected ({expected}): move it away"
            )
        folders[split] = name
    return folders


def _folders_in(folder: Path) -> list[str]:
    return [n for n in records.folder_names(folder) if (folder / n).is_dir()]


def _holds_images(folder: Path) -> bool:
    return any(_is_image(name) for name in records.folder_names(folder))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _list_tasks(
    root: Path,
    folders: dict[str, str],
    class_names: tuple[str, ...],
    validation_fraction: float | None,
    split_seed: int,
    follow_links: bool,
    left_out: Counter[str],
) -> Iterator[Task]:
    labels = {name: label for label, name in enumerate(class_names)}
    for split, folder in folders.items():
        for class_name in _folders_in(root / folder):
            where = root / folder / class_name
            if class_name not in labels:
                raise InputError(
                    f"{where}: unknown class, no folder of {root / folders['train']}: "
                    "rename it or add the class there"
                )
            if not follow_links:
                records.check_inside(where, root)
            files = sorted(_images_below(where, root, follow_links, left_out))
            if not files:
                raise InputError(
                    f"{where} holds no image ({', '.join(sorted(SUFFIXES))}): fill or "
                    "remove the folder"
                )
            paths = [posixpath.join(folder, class_name, file.name) for file in files]
            held_out = set()
            if validation_fraction is not None and split == "train":
                held_out = _draw(paths, validation_fraction, split_seed)
            for path, file in zip(paths, files, strict=True):
                yield Task(
                    split="validation" if path in held_out else split,
                    key=path,
                    label=labels[class_name],
                    path=path,
                    size=file.size,
                    stamp=file.stamp,
                )


def _draw(paths: list[str], fraction: float, seed: int) -> set[str]:
    """Draws so that more images of a class change little of what was drawn before."""
    count = min(max(1, round(fraction * len(paths))), len(paths) - 1)
    digest = lambda path: hashlib.md5(f"{seed}/{path}".encode()).digest()
    return set(sorted(paths, key=digest)[:count])


def _images_below(
    folder: Path, root: Path, follow_links: bool, left_out: Counter[str]
) -> Iterator[ListedFile]:
    """Yields the images of a folder and of those in it, named relative to it.

    Raises:
      InputError: something cannot be read, or a link to a folder leads out of the
        source and may not, or to where another one has led.
    """
    seen = set()
    for below, subfolders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in subfolders:
            path = os.path.join(below, name)
            target = os.path.realpath(path)
            if Path(os.path.realpath(below)).is_relative_to(target):
                raise InputError(
                    f"{path} is a link to a folder that it lies in: remove it"
                )
            # Links to folders of links can make of a few of them millions of paths.
            if target in seen:
                raise InputError(
                    f"{path} leads to {target}, which is among the images already: "
                    "remove the link"
                )
            seen.add(target)
            if not follow_links:
                records.check_inside(path, root)
        for name in names:
            if name.startswith("."):
                continue
            if not _is_image(name):
                left_out[os.path.splitext(name)[1].lower() or "(none)"] += 1
                continue
            path = os.path.join(below, name)
            try:
                status = records.file_status(path)
            except OSError as error:
                _refuse(error)
            relative = os.path.relpath(path, folder).replace(os.sep, "/")
            yield ListedFile(relative, status.st_size, status.st_mtime_ns)


def _refuse(error: OSError) -> None:
    raise InputError(
        f"{error.filename} cannot be read ({error.strerror}): mend or remove it"
    ) from None
