"""What every builder of this package writes: features, examples, checks, statistics."""

import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import tensorflow_datasets as tfds
import tqdm

from saliency_jax.data.transforms import AS_STORED
from saliency_jax.errors import InputError

T = TypeVar("T")
R = TypeVar("R")


class PixelBox(NamedTuple):
    """A box as filed, with inclusive far edges."""

    xmin: int
    ymin: int
    xmax: int
    ymax: int


def record_info(
    builder: tfds.core.DatasetBuilder,
    image_format: str,
    description: str,
    class_names: Sequence[str] | None = None,
    object_masks: bool = False,
) -> tfds.core.DatasetInfo:
    """Returns the `DatasetInfo` of a builder of this package.

    Args:
      builder: the builder that asks.
      image_format: "jpeg" or "png"; images are stored as encoded.
      description: one sentence for `dataset_info.json`.
      class_names: names in label order; None when `_split_generators` sets them.
      object_masks: whether each example carries the mask of its object.
    """
    features = {
        "image": tfds.features.Image(
            shape=(None, None, 3), encoding_format=image_format
        ),
        "label": tfds.features.ClassLabel(names=class_names),
        "file_name": tfds.features.Text(),
        "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
        "boxes_pixels": tfds.features.Tensor(shape=(None, 4), dtype=np.int32),
        "original_size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
    }
    if object_masks:
        features["object_mask"] = tfds.features.Image(
            shape=(None, None, 1), encoding_format="png"
        )
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=tfds.features.FeaturesDict(features),
        metadata=tfds.core.MetadataDict(max_boxes={}, num_with_boxes={}),
    )


def relative_box(
    box: PixelBox, width: int, height: int, where: str, clip: bool = False
) -> tfds.features.BBox:
    """Converts an inclusive pixel box into a relative half-open one.

    A far edge equal to the image's side (one pixel outside, as in many ImageNet files)
    is accepted and cut.

    Args:
      box: the box as filed.
      width: of the image that the box refers to.
      height: of the same image.
      where: the file that holds the box, for the message.
      clip: whether to exchange the edges of a box that are filed in reverse and to cut
        a box that sticks out further, instead of refusing it.

    Raises:
      InputError: if the box is empty, or sticks out of its image.
    """
    if clip:
        xmin, xmax = sorted((box.xmin, box.xmax))
        ymin, ymax = sorted((box.ymin, box.ymax))
        box = PixelBox(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
    if box.xmax < box.xmin or box.ymax < box.ymin:
        raise InputError(
            f"{where}: box (xmin, ymin, xmax, ymax) = {tuple(box)} is empty; "
            "xmax >= xmin and ymax >= ymin were expected: mend the annotation or pass "
            "--clip_boxes to exchange its edges"
        )
    low, high = min(box.xmin, box.ymin), max(box.xmax - width, box.ymax - height)
    inside = low >= 0 and high <= 0
    overlaps = box.xmin < width and box.ymin < height and min(box.xmax, box.ymax) >= 0
    if not overlaps or not (inside or clip):
        raise InputError(
            f"{where}: box (xmin, ymin, xmax, ymax) = {tuple(box)} lies outside its "
            f"image of {width}x{height} pixels: mend the annotation"
            + (" or pass --clip_boxes to cut it" if overlaps else "")
        )
    return tfds.features.BBox(
        ymin=max(box.ymin, 0) / height,
        xmin=max(box.xmin, 0) / width,
        ymax=min(box.ymax + 1, height) / height,
        xmax=min(box.xmax + 1, width) / width,
    )


def image_size(encoded: bytes, where: str) -> tuple[int, int]:
    """Decodes an image to prove that it can be; returns its (width, height).

    The size is that of the stored pixels: an EXIF orientation is ignored.

    Raises:
      InputError: if the bytes are no image, or a JPEG that ends early.
    """
    if not encoded:
        raise InputError(f"{where} is empty (0 bytes): copy it again")
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), AS_STORED)
    # OpenCV fills what a truncated JPEG lacks with grey and says nothing. The last
    # scan of a whole file ends in an end-of-image marker.
    truncated = encoded.startswith(b"\xff\xd8") and (
        encoded.rfind(b"\xff\xd9") < encoded.rfind(b"\xff\xda")
    )
    if pixels is None or truncated:
        raise InputError(
            f"{where} is not a readable image (corrupt or cut off): copy it again or "
            "remove it"
        )
    return pixels.shape[1], pixels.shape[0]


def generate(
    builder: tfds.core.DatasetBuilder,
    split: str,
    tasks: Sequence[T],
    make_example: Callable[[T], tuple[str, dict[str, Any]]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (key, example) of each task in order, with a progress bar.

    Examples are made in a few threads (OpenCV decodes outside the interpreter lock) and
    only a few are held at once. The most boxes of an example and the number of examples
    with boxes go to the metadata of the builder's info.
    """
    max_boxes = num_with_boxes = 0
    progress = tqdm.tqdm(
        total=len(tasks), desc=f"{builder.name} {split}", unit="img", mininterval=0.5
    )
    with progress:
        for key, example in _map_in_threads(make_example, tasks):
            count = len(example["boxes"])
            max_boxes = max(max_boxes, count)
            num_with_boxes += count > 0
            progress.update()
            yield key, example
        progress.set_postfix_str("writing shards")
    builder.info.metadata["max_boxes"][split] = max_boxes
    builder.info.metadata["num_with_boxes"][split] = num_with_boxes


def _map_in_threads(
    function: Callable[[T], R], items: Iterable[T], threads: int = 8, ahead: int = 64
) -> Iterator[R]:
    remaining = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        pending = deque(
            pool.submit(function, item) for item in itertools.islice(remaining, ahead)
        )
        try:
            while pending:
                yield pending.popleft().result()
                for item in itertools.islice(remaining, 1):
                    pending.append(pool.submit(function, item))
        finally:
            pool.shutdown(cancel_futures=True)


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


def list_folder(path: Path) -> list[Path]:
    """Returns the entries of a folder, sorted by name, hidden ones left out.

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
    return [path / name for name in sorted(names) if not name.startswith(".")]


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
