"""The pass that shows edited images to other classifiers.

What a map keeps of each image, what it leaves, and what it leaves with the hole
inpainted, as in the evaluation of CASM (arXiv 1805.08249): a map is binarised at the
quantile of its mean, a rectangle is taken as it is, maps are of the true class.
"""

import functools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import cv2
import jax
import numpy as np

from saliency_jax.evaluation.comparison.contestants import Contestant
from saliency_jax.evaluation.comparison.localisation_pass import mean_figure
from saliency_jax.evaluation.comparison.passes import Setting, joined, mapped
from saliency_jax.evaluation.comparison.saved import Arrays
from saliency_jax.evaluation.judges import Judge
from saliency_jax.evaluation.judging import CLEAN, ask, edited
from saliency_jax.metrics.localisation import binarise_quantile
from saliency_jax.metrics.raw_maps import min_max_normalised
from saliency_jax.report.comparison import Figure, Metric
from saliency_jax.report.results import EDIT_NAMES
from saliency_jax.training import sharding

GROUP = "judges"

EDITS = {"masked_in": "higher", "masked_out": "lower", "inpainted": "lower"}
"""What is better of each picture's accuracy, between masks of one area."""


def metrics(judges: Mapping[str, Judge]) -> dict[str, Metric]:
    """The columns: of each judge one for each picture, and the area of the masks."""
    columns = {
        _name(judge, edit): Metric(
            f"{judge}, {EDIT_NAMES[edit]} %",
            better,
            "per_cent",
            GROUP,
            "accuracy of a classifier on edited images; only masks of one area compare",
        )
        for judge in judges
        for edit, better in EDITS.items()
    }
    if columns:
        columns["mask_area"] = Metric(
            "mask area %", "", "per_cent", GROUP, "share of the image that a mask keeps"
        )
    return columns


def _name(judge: str, edit: str) -> str:
    return f"{judge} {edit}"


def measure(
    contestant: Contestant, setting: Setting, judges: Mapping[str, Judge], count: int
) -> Arrays:
    """Has the judges answer to the first images, edited by a contestant's masks.

    Args:
      contestant: any.
      setting: what all share.
      judges: by name.
      count: how many images.

    Raises:
      InputError: the maps or the answers are not finite.
    """
    cv2.setNumThreads(1)  # the pool's threads are enough
    seconds = dict.fromkeys(("inpainting", "wait"), 0.0)
    size, parts = setting.batch_size, []
    mesh = sharding.evaluation_mesh(size)
    place = functools.partial(jax.device_put, device=sharding.by_batch(mesh))
    everywhere = functools.partial(jax.device_put, device=sharding.replicated(mesh))
    judges = {
        name: judge._replace(classifier=everywhere(judge.classifier))
        for name, judge in judges.items()
    }
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for part in mapped(contestant, setting, count, doing="judged"):
            masks = part.maps
            if not contestant.is_mask:
                masks = min_max_normalised(masks)
            binary = masks > 0 if contestant.is_box else binarise_quantile(masks)
            # One compilation for all batches, the last one too.
            missing = (0, size - len(binary))
            filled = np.pad(binary, (missing, (0, 0), (0, 0)), mode="edge")
            images = np.pad(part.batch["image"], (missing, *3 * ((0, 0),)), mode="edge")
            labels = np.pad(part.batch["label"], missing, mode="edge")
            valid = np.arange(size) < len(binary)
            pictures = edited(
                images,
                {GROUP: filled},
                tuple(setting.classifier.mean),
                place,
                threads,
                seconds,
            )
            wanted = (each for each in pictures if each[0] != CLEAN)
            answers = ask(judges, wanted, place(labels), valid)
            parts.append(
                {
                    _name(judge, edit): of_judge.correct
                    for (_, edit), answered in answers.items()
                    for judge, of_judge in answered.items()
                }
                | {"mask_area": binary.mean(axis=(1, 2))}
            )
    return joined(parts)


def figures(arrays: Arrays) -> dict[str, Figure]:
    """Returns the figures of a row.

    Args:
      arrays: of `measure`.
    """
    return {name: mean_figure(values) for name, values in arrays.items()}
