"""Which images the pictures show, and what they need of each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from saliency_jax.data import pipeline
from saliency_jax.data.sources import Source
from saliency_jax.metrics.localisation import (
    LocalisationScores,
    boxes_after_resize_and_crop,
    is_filed,
)
from saliency_jax.saliency import Masker, saliency_fn
from saliency_jax.types import Batch


class Shown(NamedTuple):
    """What the pictures need of an image."""

    image: Num[np.ndarray, "S S 3"]
    mask: Float[np.ndarray, "S S"]
    boxes: Int[np.ndarray, "_ 4"]
    label: int


def choose(
    scores: LocalisationScores, images: int, extremes: int
) -> dict[str, list[int]]:
    """Chooses images by their place in the pass that gave the scores.

    Args:
      scores: of every image.
      images: how many to take at random, the same ones for every run.
      extremes: how many of the best and of the worst, by F1.

    Returns:
      "grid" at random, "best" and "worst" first; the two are empty without boxes.
    """
    count = len(scores.f1)
    at_random = np.random.default_rng(0).permutation(count)[:images]
    with_box = np.flatnonzero(scores.scored)
    by_f1 = with_box[np.argsort(-scores.f1[with_box], kind="stable")]
    return {
        "grid": at_random.tolist(),
        "best": by_f1[:extremes].tolist(),
        "worst": by_f1[::-1][:extremes].tolist(),
    }


def show(
    masker: Masker, source: Source, chosen: Mapping[str, Sequence[int]], image_size: int
) -> dict[str, list[Shown]]:
    """Masks the images of each group, for pictures of them.

    A masker that shows the evidence of a class is asked for the true one.
    """

    def batches(positions: Sequence[int]) -> Iterator[Batch]:
        # One by one: a single compilation for groups of any size.
        group = source.subset(positions)
        return pipeline.eval_batches(group, batch_size=1, image_size=image_size)

    return {
        name: [
            _shown(
                batch, np.asarray(saliency_fn(masker, batch["image"], batch["label"]))
            )
            for batch in batches(positions)
        ]
        for name, positions in chosen.items()
    }


def _shown(batch: Batch, masks: Float[np.ndarray, "1 S S"]) -> Shown:
    pixels = batch["boxes_pixels"][0]
    return Shown(
        batch["image"][0],
        masks[0],
        boxes_after_resize_and_crop(
            pixels[is_filed(pixels)], batch["original_size"][0], masks.shape[1]
        ),
        int(batch["label"][0]),
    )
