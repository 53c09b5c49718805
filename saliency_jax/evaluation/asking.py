"""What masks show when they are asked for one class or for another."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Num

from saliency_jax.data import pipeline
from saliency_jax.data.sources import Source
from saliency_jax.metrics import selectivity
from saliency_jax.saliency import Masker, saliency_fn
from saliency_jax.types import Batch


def measure_selectivity(masker: Masker, batches: Iterable[Batch]) -> dict[str, Any]:
    """Asks for one of the two objects of each image; see `metrics.selectivity`.

    Args:
      masker: of any stage; CASM's ignores what it is asked for.
      batches: finite, of a data set with pairs; padding is ignored.
    """
    parts = []
    for batch in batches:
        masks = np.asarray(saliency_fn(masker, batch["image"], batch["label"]))
        valid = np.asarray(batch["valid"])
        parts.append(
            selectivity.selectivity(
                masks[valid], batch["object_mask"][valid], batch["other_mask"][valid]
            )
        )
    return selectivity.summarise(selectivity.join(parts))


class Asked(NamedTuple):
    """One image and its masks for several classes."""

    image: Num[np.ndarray, "S S 3"]
    masks: Float[np.ndarray, "C S S"]
    labels: tuple[int, ...]
    """Of the masks: the true class, then those that the classifier finds likeliest."""


def ask_for_classes(
    masker: Masker,
    source: Source,
    positions: Sequence[int],
    image_size: int,
    classes: int,
) -> list[Asked]:
    """Masks some images for several classes each.

    Args:
      masker: with a classifier.
      source: of the images.
      positions: of the images in it.
      image_size: side of the images in pixels.
      classes: how many for each image; one of them is the true one.
    """
    answers = jax.jit(lambda masker, images: masker.classifier(images))
    shown = []
    for batch in pipeline.eval_batches(
        source.subset(positions), batch_size=1, image_size=image_size
    ):
        image, true = batch["image"][0], int(batch["label"][0])
        order = np.argsort(-np.asarray(answers(masker, batch["image"]))[0])
        # Whatever else is in the picture is worth a column.
        present = np.flatnonzero(batch.get("present", ()))
        named = [true, *present, *order]
        labels = tuple(dict.fromkeys(map(int, named)))[:classes]
        images = np.repeat(image[None], len(labels), axis=0)
        masks = saliency_fn(masker, images, np.array(labels))
        shown.append(Asked(image, np.asarray(masks), labels))
    return shown
