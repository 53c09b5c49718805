"""Which images the report shows, and the maps of all rows over them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from saliency_jax.data import pipeline
from saliency_jax.evaluation.comparison.contestants import Contestant
from saliency_jax.evaluation.comparison.localisation_pass import chosen_boxes
from saliency_jax.evaluation.comparison.passes import Setting
from saliency_jax.evaluation.comparison.saved import Arrays
from saliency_jax.metrics.localisation import boxes_after_resize_and_crop, is_filed
from saliency_jax.report.comparison import Gallery

MOST_IMAGES = 50
MOST_MAPS = 1000  # of all rows together: they are what makes the page large
EXTREMES = 2  # of the best, and of the worst, for each row
RANDOM_SHARE = 0.4  # of the images besides the best and the worst of each row


class Found(NamedTuple):
    """The best and the worst images of a row.

    best: by the overlap of the predicted box, the best first.
    worst: the worst first.
    """

    best: Int[np.ndarray, "_"]
    worst: Int[np.ndarray, "_"]


def make_gallery(
    setting: Setting,
    contestants: Mapping[str, Contestant],
    measured: Mapping[str, Arrays],
) -> Gallery:
    """Collects what the report shows.

    Args:
      setting: what all share.
      contestants: by row.
      measured: of each row that has figures, the arrays of its localisation pass.
    """
    shown = {
        name: arrays
        for name, arrays in measured.items()
        if not contestants[name].is_box
    }
    extremes = {name: _extremes(arrays) for name, arrays in shown.items()}
    kept = min(len(arrays["thumbnails"]) for arrays in measured.values())
    most = min(MOST_IMAGES, max(1, MOST_MAPS // max(1, len(shown))))
    places = _chosen(kept, list(extremes.values()), most)
    index = {place: number for number, place in enumerate(places)}

    images, captions, truth = [], [], []
    names = setting.source.class_names
    for batch in pipeline.eval_batches(
        setting.source.subset(places),
        batch_size=1,
        image_size=setting.image_size,
        num_threads=setting.num_threads,
    ):
        pixels = batch["boxes_pixels"][0]
        images.append(batch["image"][0])
        captions.append(names[int(batch["label"][0])])
        truth.append(
            boxes_after_resize_and_crop(
                pixels[is_filed(pixels)], batch["original_size"][0], setting.image_size
            ).clip(0, setting.image_size)
        )
    predicted = setting.answers["predicted"][places]
    labels = setting.answers["label"][places]
    return Gallery(
        images=np.stack(images),
        captions=[
            caption if one == other else f"{caption} (taken for {names[one]})"
            for caption, one, other in zip(captions, predicted, labels, strict=True)
        ],
        truth=truth,
        maps={
            name: arrays["thumbnails"][places].astype(np.float32)
            for name, arrays in shown.items()
        },
        boxes={name: chosen_boxes(arrays)[0][places] for name, arrays in shown.items()},
        best={n: _numbers(found.best, index) for n, found in extremes.items()},
        worst={n: _numbers(found.worst, index) for n, found in extremes.items()},
        scores={name: _overlaps(arrays)[places] for name, arrays in shown.items()},
    )


def _chosen(kept: int, extremes: Sequence[Found], most: int) -> list[int]:
    """The best and the worst of each row, then others at random and next to these.

    Args:
      kept: images that there are to choose from.
      extremes: of all rows.
      most: images in all, unless the best and the worst of each row are more.
    """

    def of_rank(rank: int) -> list[int]:
        return [
            int(place)
            for found in extremes
            for places in found
            for place in places[rank : rank + 1]
        ]

    first = dict.fromkeys(of_rank(0))
    others = [place for rank in range(1, EXTREMES) for place in of_rank(rank)]
    shuffled = np.random.default_rng(0).permutation(kept)
    at_random = round(RANDOM_SHARE * max(0, most - len(first)))
    places = [*first, *shuffled[:at_random], *others, *shuffled[at_random:]]
    unique = list(dict.fromkeys(int(place) for place in places))
    return unique[: max(most, len(first))]


def _overlaps(arrays: Arrays) -> np.ndarray:
    """Of each image with its best filed box; NaN without one."""
    _, chosen = chosen_boxes(arrays)
    overlaps = arrays["iou"][np.arange(len(chosen)), chosen]
    return np.where(arrays["scored"], overlaps, np.nan)


def _extremes(arrays: Arrays) -> Found:
    kept = len(arrays["thumbnails"])
    boxed = np.flatnonzero(arrays["scored"][:kept])
    ordered = boxed[np.argsort(-_overlaps(arrays)[boxed], kind="stable")]
    return Found(ordered[:EXTREMES], ordered[::-1][:EXTREMES])


def _numbers(places: Int[np.ndarray, "_"], index: Mapping[int, int]) -> list[int]:
    return [index[int(place)] for place in places if int(place) in index]
