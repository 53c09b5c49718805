"""`shapes` and `shapes_pairs`: rendered scenes, with exact boxes and pixel masks."""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from saliency_jax.data import shapes
from saliency_jax.data.builders.recipe import Recipe, Task

_SPLIT_SEEDS = {"train": 0, "validation": 1}


def shapes_recipe(
    image_size: int = 64, num_train: int = 10_000, num_validation: int = 1_000
) -> Recipe:
    """Renders the scenes of `saliency_jax.data.shapes`; needs no source.

    `boxes_pixels` are half-open (`xmax` is the first column behind the object), so that
    scorers which take filed edges literally, as CASM's does, see the exact box.

    Args:
      image_size: side of the square scenes, in pixels.
      num_train: how many training scenes.
      num_validation: how many validation scenes.
    """
    return Recipe(
        name="shapes",
        description=(
            "Ten object classes that differ in form only, over cluttered grounds."
        ),
        make_example=functools.partial(_make_example, image_size),
        **_shared(image_size, num_train, num_validation),
    )


def shapes_pairs_recipe(
    image_size: int = 64, num_train: int = 10_000, num_validation: int = 1_000
) -> Recipe:
    """Renders scenes of two objects of different classes; needs no source.

    All that `shapes` has is told of the one object, `other_label` and `other_mask` of
    the other one.

    Args:
      image_size: side of the square scenes, in pixels.
      num_train: how many training scenes.
      num_validation: how many validation scenes.
    """
    return Recipe(
        name="shapes_pairs",
        description=(
            "Two objects in a scene, of ten classes that differ in form only, over "
            "cluttered grounds."
        ),
        make_example=functools.partial(_make_pair, image_size),
        other_objects=True,
        **_shared(image_size, num_train, num_validation),
    )


def _shared(size: int, num_train: int, num_validation: int) -> dict[str, Any]:
    """Returns what the recipes have in common."""
    counts = {"train": num_train, "validation": num_validation}
    return {
        "config": f"{size}x{size}",
        "module": __name__,
        "splits": tuple(counts),
        "class_names": shapes.CLASSES,
        "image_format": "png",
        "object_masks": True,
        "upright": False,
        "list_tasks": functools.partial(_list_tasks, counts),
    }


def _list_tasks(counts: Mapping[str, int], left_out: Counter[str]) -> Iterator[Task]:
    del left_out  # every scene is taken
    for split, count in counts.items():
        for index in range(count):
            # Scenes have a label only when rendered, and none can be unreadable.
            yield Task(split, f"{split}_{index:06d}", 0, str(index))


def _make_example(size: int, task: Task) -> dict[str, Any]:
    return _annotated(
        shapes.render(_SPLIT_SEEDS[task.split], int(task.path), size), task
    )


def _make_pair(size: int, task: Task) -> dict[str, Any]:
    scene = shapes.render_pair(_SPLIT_SEEDS[task.split], int(task.path), size)
    return _annotated(scene, task) | {
        "other_label": scene.other_label,
        "other_mask": _png_of_mask(scene.other_mask),
    }


def _annotated(scene: shapes.Scene | shapes.PairScene, task: Task) -> dict[str, Any]:
    """Returns the features that the example has in both data sets."""
    size = len(scene.image)
    xmin, ymin, xmax, ymax = scene.box
    box = tfds.features.BBox(
        ymin=ymin / size, xmin=xmin / size, ymax=ymax / size, xmax=xmax / size
    )
    return {
        "image": _png(scene.image[..., ::-1]),
        "label": scene.label,
        "file_name": task.key,
        "boxes": [box],
        "boxes_pixels": np.array([scene.box], np.int32),
        "original_size": np.array([size, size], np.int32),
        "object_mask": _png_of_mask(scene.object_mask),
    }


def _png_of_mask(mask: np.ndarray) -> bytes:
    return _png(mask.astype(np.uint8) * 255)


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()
