"""`shapes`: scenes rendered by program, with exact boxes and pixel masks."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from saliency_jax.data import shapes
from saliency_jax.data.builders import records

_SPLIT_SEEDS = {"train": 0, "validation": 1}


@dataclasses.dataclass
class ShapesConfig(tfds.core.BuilderConfig):
    """Size and number of the scenes; its name, such as "64x64", names the folder."""

    image_size: int = 64
    num_train: int = 10_000
    num_validation: int = 1_000


def shapes_config(
    image_size: int = 64, num_train: int = 10_000, num_validation: int = 1_000
) -> ShapesConfig:
    """Returns the TFDS config of a series of square scenes."""
    return ShapesConfig(
        name=f"{image_size}x{image_size}",
        image_size=image_size,
        num_train=num_train,
        num_validation=num_validation,
    )


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Renders the scenes of `saliency_jax.data.shapes`; needs no source.

    `boxes_pixels` are half-open (`xmax` is the first column behind the object), so that
    scorers which take filed edges literally, as CASM's does, see the exact box.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    url_infos = (
        None  # nothing is downloaded; TFDS's own look-up needs a missing package
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return records.record_info(
            self,
            "png",
            "Ten object classes that differ in form only, over cluttered grounds.",
            class_names=shapes.CLASSES,
            object_masks=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        config = self.builder_config
        counts = {"train": config.num_train, "validation": config.num_validation}
        return {split: self._generate_examples(split, n) for split, n in counts.items()}

    def _generate_examples(self, split: str, count: int) -> Iterator:
        size, seed = self.builder_config.image_size, _SPLIT_SEEDS[split]

        def make_example(index: int) -> tuple[str, dict[str, Any]]:
            scene = shapes.render(seed, index, size)
            xmin, ymin, xmax, ymax = scene.box
            name = f"{split}_{index:06d}"
            return name, {
                "image": _png(scene.image[..., ::-1]),
                "label": scene.label,
                "file_name": name,
                "boxes": [
                    tfds.features.BBox(
                        ymin=ymin / size,
                        xmin=xmin / size,
                        ymax=ymax / size,
                        xmax=xmax / size,
                    )
                ],
                "boxes_pixels": np.array([scene.box], np.int32),
                "original_size": np.array([size, size], np.int32),
                "object_mask": _png(scene.object_mask.astype(np.uint8) * 255),
            }

        return records.generate(self, split, range(count), make_example)


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()
