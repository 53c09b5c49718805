"""The pass that compares maps with boxes and pixel masks, and the figures of it.

Maps are of the true class, so an error is of the map alone ("GT-known"); the errors
that count the predicted class as well follow from the classifier's ranks.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from saliency_jax.evaluation.comparison.contestants import Contestant, filed_boxes
from saliency_jax.evaluation.comparison.costs import Cost
from saliency_jax.evaluation.comparison.passes import Mapped, Setting, joined, mapped
from saliency_jax.evaluation.comparison.saved import Arrays
from saliency_jax.metrics import box_accuracy, map_boxes, pixel_precision, pointing
from saliency_jax.metrics.complexity import complexity, sparseness
from saliency_jax.metrics.ilsvrc import box_hits, localisation_errors
from saliency_jax.metrics.intervals import bootstrap_interval
from saliency_jax.metrics.localisation import casm_scores, rectangle_scores, tight_box
from saliency_jax.metrics.raw_maps import min_max_normalised
from saliency_jax.report.comparison import Figure, Metric
from saliency_jax.segmentation import graph_cut

RULES = (*map_boxes.RULES, *map_boxes.CUTS)

IMAGES_PER_TASK = 8  # a few MB at 224 pixels, near the cores
THUMBNAILS = 1000  # images whose maps are kept for the report
THUMBNAIL = 112  # pixels of their sides

METRICS = {
    "gt_known": Metric(
        "GT-known error %",
        "lower",
        "per_cent",
        "localisation",
        "share of images whose predicted box misses every filed box",
    ),
    "top1": Metric(
        "top-1 error %",
        "lower",
        "per_cent",
        "localisation",
        "the box misses, or the classifier's first class is wrong",
    ),
    "top5": Metric(
        "top-5 error %",
        "lower",
        "per_cent",
        "localisation",
        "the box misses, or the true class is not among the classifier's first five",
    ),
    "om": Metric(
        "OM, own classifier %",
        "lower",
        "per_cent",
        "localisation",
        "the box misses, or the classifier trained beside the masker is wrong",
    ),
    "f1": Metric(
        "F1 %",
        "higher",
        "per_cent",
        "localisation",
        "of the map, from 0 to 1, with the best filed box, by CASM's scorer",
    ),
    "iou": Metric(
        "box IoU %",
        "higher",
        "per_cent",
        "localisation",
        "intersection over union of the predicted with the best filed box",
    ),
    "max_box_acc": Metric(
        "MaxBoxAcc %",
        "higher",
        "per_cent",
        "contours",
        "box of the largest contour, IoU of one half, at the best threshold of all",
    ),
    "max_box_acc_v2": Metric(
        "MaxBoxAccV2 %",
        "higher",
        "per_cent",
        "contours",
        "any contour's box, mean over IoU of 0.3, 0.5 and 0.7, each at its best "
        "threshold",
    ),
    "pointing": Metric(
        "pointing %",
        "higher",
        "per_cent",
        "localisation",
        "the greatest value is nearer than 15 pixels to a filed box; mean over classes",
    ),
    "energy_pointing": Metric(
        "energy in boxes %",
        "higher",
        "per_cent",
        "localisation",
        "share of the positive mass that lies in filed boxes",
    ),
    "pxap": Metric(
        "PxAP %",
        "higher",
        "per_cent",
        "localisation",
        "area under precision over recall of all pixels, against exact masks",
    ),
    "mask_iou": Metric(
        "mask IoU %",
        "higher",
        "per_cent",
        "localisation",
        "intersection over union of what the box's rule keeps with the exact mask",
    ),
    "sparseness": Metric(
        "sparseness", "", "number", "maps", "Gini index of the absolute values"
    ),
    "complexity": Metric(
        "complexity", "", "number", "maps", "entropy of the absolute values' shares"
    ),
    "box_area": Metric(
        "box area %", "", "per_cent", "maps", "share of the image in the predicted box"
    ),
}

CONTOURS = ("max_box_acc", "max_box_acc_v2")


class BoxRule(NamedTuple):
    """How a map becomes a box.

    Attributes:
      name: one of `RULES`.
      convention: of a hit, one of `metrics.ilsvrc.CONVENTIONS`.
      contours: whether the boxes of contours are wanted as well, for `CONTOURS`. At a
        hundred thresholds those of a grainy map take a second.
    """

    name: str
    convention: str
    contours: bool


def measure(contestant: Contestant, setting: Setting, rule: BoxRule) -> Arrays:
    """Measures a contestant's maps of all images.

    Threads measure one batch while a GPU computes the next.

    Returns:
      Arrays with a leading axis of images; but "cost" is what the maps took, and
      "thumbnails" are small maps of the first images alone.

    Raises:
      InputError: its maps are not finite, or there is not one for each image.
    """
    cv2.setNumThreads(1)  # the pool's threads are enough
    cost = Cost()
    tasks: list[Future] = []
    pending: list[Future] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for part in mapped(contestant, setting, setting.count):
            cost = part.cost
            wait(pending)  # bounds the maps that are kept
            pending = [
                threads.submit(_measured, contestant, _some(part, first), rule)
                for first in range(0, len(part.maps), IMAGES_PER_TASK)
            ]
            tasks += pending
            if jax.default_backend() == "cpu":
                wait(pending)  # or they would slow the maps, whose time is told
        parts = [task.result() for task in tasks]
    return joined(parts) | {"cost": np.asarray(cost, np.float64)}


def _some(part: Mapped, first: int) -> Mapped:
    chosen = slice(first, first + IMAGES_PER_TASK)
    own = None if part.own_correct is None else part.own_correct[chosen]
    batch = {name: values[chosen] for name, values in part.batch.items()}
    return part._replace(batch=batch, maps=part.maps[chosen], own_correct=own)


def _measured(contestant: Contestant, part: Mapped, rule: BoxRule) -> Arrays:
    maps, batch = part.maps, part.batch
    size = maps.shape[1]
    filed = batch["boxes_pixels"], batch["original_size"]
    inclusive = filed_boxes(batch, "inclusive"), batch["original_size"]
    by_rule = filed_boxes(batch, rule.convention), batch["original_size"]
    masks = maps if contestant.is_mask else min_max_normalised(maps)
    cut = None
    if rule.name in map_boxes.CUTS and not contestant.is_box:
        variant = map_boxes.CUTS[rule.name]
        cut = graph_cut(batch["image"], maps, variant=variant)
    boxes = _boxes(contestant, maps, cut, rule.name)
    hits = box_hits(boxes, *by_rule, size, rule.convention)
    regions = pointing.box_regions(*inclusive, size)
    scores = (
        rectangle_scores(boxes[:, 0], *filed, size)
        if contestant.is_box
        else casm_scores(masks, *filed)
    )
    measured = {
        "scored": hits.scored,
        "boxes": boxes.astype(np.int16),
        "iou": hits.iou.astype(np.float32),
        "hit": hits.hit,
        "f1": scores.f1,
        "points": pointing.pointing_hits(pointing.peaks(maps), regions),
        "energy": pointing.energy_inside(maps, regions),
        "sparseness": sparseness(maps),
        "complexity": complexity(maps),
    }
    side = min(size, THUMBNAIL)
    small = [
        cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA)
        for values in maps[batch["place"] < THUMBNAILS]
    ]
    shape = len(small), side, side
    # Of no more range than half precision has; only the report looks at them.
    small = np.asarray(small, np.float32).reshape(shape)
    most = np.abs(small).max(axis=(1, 2), keepdims=True, initial=1e-30)
    measured["thumbnails"] = (small / most).astype(np.float16)
    if rule.contours:
        contours = box_accuracy.contour_hits(masks, *inclusive)
        middle = box_accuracy.LEVELS.index(0.5)
        measured["largest"] = contours.largest[..., middle]
        measured["every"] = contours.every
    if "object_mask" in batch:
        exact = batch["object_mask"]
        counts = pixel_precision.pixel_counts(masks, exact)
        measured["pixels"] = np.stack(counts, axis=1).astype(np.uint32)
        regions = _regions(contestant, maps, cut, rule.name)
        overlaps = [pixel_precision.mask_iou(region, exact) for region in regions]
        measured["mask_iou"] = np.stack(overlaps, axis=1).astype(np.float32)
    if part.own_correct is not None:
        measured["own_correct"] = part.own_correct
    return measured


def _boxes(
    contestant: Contestant,
    maps: Float[np.ndarray, "B S S"],
    cut: Bool[np.ndarray, "B S S"] | None,
    rule: str,
) -> Int[np.ndarray, "B A 4"]:
    if contestant.is_box:
        tight = [tight_box(mask > 0) or map_boxes.NO_BOX for mask in maps]
        return np.asarray(tight, int)[:, None]
    if cut is not None:
        return map_boxes.component_boxes(cut)[:, None]
    return map_boxes.grid_boxes(maps, rule, normalise=not contestant.is_mask)


def _regions(
    contestant: Contestant,
    maps: Float[np.ndarray, "B S S"],
    cut: Bool[np.ndarray, "B S S"] | None,
    rule: str,
) -> Iterator[Bool[np.ndarray, "B S S"]]:
    """What a rule keeps of each map, one after the other for each alpha of its grid."""
    if contestant.is_box:
        yield maps > 0
    elif cut is not None:
        yield cut
    else:
        for alpha in map_boxes.ALPHAS[rule]:
            alphas = np.full(len(maps), alpha)
            yield map_boxes.binary_masks(
                maps, rule, alphas, normalise=not contestant.is_mask
            )


def chosen_boxes(arrays: Arrays) -> tuple[Int[np.ndarray, "n 4"], np.ndarray]:
    """Returns the box of each image at the alpha that other images chose, and it.

    Args:
      arrays: of `measure`.

    Returns:
      The boxes, and which of the grid's alphas each image got.
    """
    chosen = map_boxes.choose_alphas(arrays["hit"], arrays["scored"])
    each = np.arange(len(chosen))
    return arrays["boxes"][each, chosen].astype(int), chosen


def figures(arrays: Arrays, answers: Arrays, size: int) -> dict[str, Figure]:
    """Returns the figures of a row, each with its bootstrap interval.

    Args:
      arrays: of `measure`.
      answers: of the classifier to the same images.
      size: side in pixels of the maps.
    """
    boxes, chosen = chosen_boxes(arrays)
    each, scored = np.arange(len(chosen)), arrays["scored"]
    found = {name: mean_figure(arrays[name]) for name in ("sparseness", "complexity")}
    if "pixels" in arrays:
        found["pxap"] = _figure(arrays["pixels"], _pixel_precision(len(each)))
        found["mask_iou"] = mean_figure(arrays["mask_iou"][each, chosen])
    if not scored.any():
        return found
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / size**2
    found["box_area"] = mean_figure(area[scored])
    hit = arrays["hit"][each, chosen]
    ranks = answers["rank"][: len(each), None] == np.arange(5)
    errors = localisation_errors(hit, ranks)
    means = {
        **errors._asdict(),
        "f1": arrays["f1"],
        "iou": arrays["iou"][each, chosen],
        "energy_pointing": arrays["energy"],
    }
    if "own_correct" in arrays:
        means["om"] = ~(hit & arrays["own_correct"])
    found |= {name: mean_figure(values[scored]) for name, values in means.items()}
    if "largest" in arrays:
        found["max_box_acc"] = _figure(
            arrays["largest"][scored], box_accuracy.best_shares
        )
        found["max_box_acc_v2"] = _figure(
            arrays["every"][scored],
            lambda means: box_accuracy.best_shares(means).mean(axis=1),
        )
    labels = answers["label"][: len(each)][scored]
    by_class = pointing.by_class(arrays["points"][scored], labels)
    found["pointing"] = _figure(by_class, pointing.class_mean)
    return found


def _pixel_precision(
    count: int,
) -> Callable[[Float[np.ndarray, "R 2 T"]], Float[np.ndarray, "R"]]:
    def of_means(means: Float[np.ndarray, "R 2 T"]) -> Float[np.ndarray, "R"]:
        counts = np.rint(means * count).astype(int)
        return pixel_precision.average_precision(counts[:, 0], counts[:, 1])

    return of_means


def mean_figure(values: np.ndarray) -> Figure:
    """The mean over images, `[n]`, with its interval."""
    return _figure(values, lambda means: means)


def _figure(values: np.ndarray, statistic: Callable[..., np.ndarray]) -> Figure:
    value, interval = bootstrap_interval(values, statistic)
    return Figure(value, interval, len(values))


def rule_in_words(arrays: Arrays, rule: BoxRule, contestant: Contestant) -> str:
    """Returns how a row's boxes came about, with the alphas that were chosen."""
    if contestant.is_box:
        return "its own box"
    if not arrays["scored"].any():
        return "no image has a box to be scored by"
    hit = f"hit at IoU {'>= 0.5' if rule.convention == 'inclusive' else '> 0.5'}"
    if rule.name in ("quantile", *map_boxes.CUTS):
        return f"{rule.name}; {hit}"
    _, chosen = chosen_boxes(arrays)
    alphas = sorted({map_boxes.ALPHAS[rule.name][index] for index in chosen})
    told = " and ".join(f"{alpha:g}" for alpha in alphas)
    return f"{rule.name}, alpha {told} by the other half of the images; {hit}"


def settings(rule: BoxRule, setting: Setting) -> Mapping[str, Any]:
    """What else the arrays depend on."""
    return rule._asdict() | {"count": setting.count}
