"""What every builder shares: features, boxes, checks of images, lists of files."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from saliency_jax.data.builders.recipe import Recipe, UnreadableImage
from saliency_jax.data.transforms import AS_STORED, UPRIGHT, decode_pixels
from saliency_jax.errors import InputError, shortened


class PixelBox(NamedTuple):
    """A box as filed; whether its far edges are inclusive depends on the data set."""

    xmin: int
    ymin: int
    xmax: int
    ymax: int


class ListedFile(NamedTuple):
    """A file of a folder, with what tells whether it changed."""

    name: str
    size: int
    stamp: int
    """When it changed last, in nanoseconds."""


def features(recipe: Recipe) -> tfds.features.FeaturesDict:
    """Returns the features of a recipe's examples; images are stored as encoded."""
    label = tfds.features.ClassLabel(names=recipe.class_names)
    mask = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
    image = tfds.features.Image(
        shape=(None, None, 3), encoding_format=recipe.image_format
    )
    of_each = {
        "image": image,
        "label": label,
        "file_name": tfds.features.Text(),
        "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
        "boxes_pixels": tfds.features.Tensor(shape=(None, 4), dtype=np.int32),
        "original_size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
    }
    if recipe.object_masks:
        of_each["object_mask"] = mask
    if recipe.other_objects:
        of_each["other_label"] = label
        of_each["other_mask"] = mask
    if recipe.other_labels:
        of_each["other_labels"] = tfds.features.Sequence(label)
    return tfds.features.FeaturesDict(of_each)


def relative_box(
    box: PixelBox,
    width: int,
    height: int,
    where: str,
    clip: bool = False,
    half_open: bool = False,
) -> tfds.features.BBox:
    """Converts a pixel box into a relative half-open one.

    Of an inclusive box a far edge equal to the image's side (one pixel outside, as in
    many ImageNet files) is accepted and cut.

    Args:
      box: the box as filed.
      width: of the image that the box refers to.
      height: of the same image.
      where: the file that holds the box, for the message.
      clip: whether to exchange the edges of a box that are filed in reverse and to cut
        a box that sticks out further, instead of refusing it.
      half_open: whether `xmax` and `ymax` are the first pixels behind the object, as
        `image_folder` files them, and not the last ones of it, as ImageNet does.

    Raises:
      InputError: if the box is empty, or sticks out of its image.
    """
    if clip:
        xmin, xmax = sorted((box.xmin, box.xmax))
        ymin, ymax = sorted((box.ymin, box.ymax))
        box = PixelBox(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
    filed = f"box (xmin, ymin, xmax, ymax) = {shortened(str(tuple(box)))}"
    # The first column and row behind the box.
    right, bottom = box.xmax + (not half_open), box.ymax + (not half_open)
    if right <= box.xmin or bottom <= box.ymin:
        sign = ">" if half_open else ">="
        raise InputError(
            f"{where}: {filed} is empty; xmax {sign} xmin and ymax {sign} ymin were "
            "expected: mend the annotation or pass --clip_boxes to exchange its edges"
        )
    low, high = min(box.xmin, box.ymin), max(box.xmax - width, box.ymax - height)
    inside = low >= 0 and high <= 0
    overlaps = box.xmin < width and box.ymin < height and min(right, bottom) > 0
    if not overlaps or not (inside or clip):
        raise InputError(
            f"{where}: {filed} lies outside its image of "
            f"{shortened(f'{width}x{height}')} pixels: mend the annotation"
            + (" or pass --clip_boxes to cut it" if overlaps else "")
        )
    return tfds.features.BBox(
        ymin=max(box.ymin, 0) / height,
        xmin=max(box.xmin, 0) / width,
        ymax=min(bottom, height) / height,
        xmax=min(right, width) / width,
    )


def image_size(encoded: bytes, where: str, upright: bool = False) -> tuple[int, int]:
    """Decodes an image to prove that it can be; returns its (width, height).

    Args:
      encoded: the bytes of the file.
      where: the file, for the message.
      upright: whether the size is that after the turn that an EXIF orientation asks
        for; else that of the stored pixels.

    Raises:
      UnreadableImage: if the bytes are no image, or a JPEG that ends early.
    """
    if not encoded:
        raise UnreadableImage(f"{where} is empty (0 bytes): copy it again")
    flags = UPRIGHT if upright else AS_STORED
    pixels = decode_pixels(encoded, flags)
    # Before version 5 OpenCV fills what a truncated JPEG lacks with grey and says
    # nothing. The last scan of a whole file ends in an end-of-image marker.
    truncated = encoded.startswith(b"\xff\xd8") and (
        encoded.rfind(b"\xff\xd9") < encoded.rfind(b"\xff\xda")
    )
    if pixels is None or truncated:
        raise UnreadableImage(
            f"{where} is not a readable image (corrupt or cut off): copy it again or "
            "remove it"
        )
    return pixels.shape[1], pixels.shape[0]


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file that are not blank.

    Raises:
      InputError: if there is no such file, or it is not text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: --source must name the folder in its original layout"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    return [line for line in text.splitlines() if line.strip()]


def folder_names(path: Path) -> list[str]:
    """Returns the names in a folder, sorted, hidden ones left out.

    Raises:
      InputError: if there is no such folder.
    """
    try:
        names = os.listdir(path)
    except OSError:
        raise InputError(
            f"folder {path} is missing: --source must name the folder in its original "
            "layout"
        ) from None
    return sorted(name for name in names if not name.startswith("."))


def listed_files(folder: Path, suffix: str) -> Iterator[ListedFile]:
    """Yields the files of one suffix in a folder, sorted by name, hidden ones left out.

    Args:
      folder: is not searched below.
      suffix: in lower case, such as ".jpeg"; that of a file may be in upper case.

    Raises:
      InputError: if there is no such folder.
    """
    for name in folder_names(folder):
        if os.path.splitext(name)[1].lower() == suffix:
            status = file_status(folder / name)
            yield ListedFile(name, status.st_size, status.st_mtime_ns)


def file_status(path: str | Path) -> os.stat_result:
    """Returns what is known of a file without opening it: a pipe would never end.

    Raises:
      InputError: it is something else than a file.
      OSError: there is nothing.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is no file: remove it from the source")
    return status


def check_inside(path: str | Path, source: str | Path) -> None:
    """Refuses what a symbolic link leads to, out of the source.

    Raises:
      InputError: which names where it leads to.
    """
    real = os.path.realpath(path)
    if not Path(real).is_relative_to(os.path.realpath(source)):
        raise InputError(
            f"{path} is reached by a symbolic link that leaves {source}, to {real}: put"
            " the files themselves there, or give --follow_links if you trust it"
        )


def check_unique(wnids: Sequence[str], path: Path) -> None:
    """Checks that a list of classes names each of them once.

    Args:
      wnids: the WordNet ids of the list.
      path: of the list, for the message.

    Raises:
      InputError: which names a class that is listed again.
    """
    for wnid, count in Counter(wnids).items():
        if count > 1:
            raise InputError(
                f"{path}: class {wnid} is listed {count} times: remove all lines of it "
                "but one"
            )


def unique_names(wnids: Sequence[str], synonyms: Sequence[str]) -> list[str]:
    """Returns the first synonym of each class, with its WordNet id where two agree.

    (ImageNet has two cranes, a bird and a machine, and two maillots.)
    """
    first = [words.split(",")[0].strip() for words in synonyms]
    counts = Counter(first)
    return [
        f"{name} ({wnid})" if counts[name] > 1 else name
        for wnid, name in zip(wnids, first, strict=True)
    ]
