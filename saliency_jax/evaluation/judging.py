"""The pass that shows edited images to classifiers.

As in the evaluation of CASM (arXiv 1805.08249; casme, eval.py) the masks are binarised
and an image is shown clean, masked-in, masked-out, and masked-out with the hole
inpainted. There the removed pixels are black; here they are the mean colour, as they
are in training, in pictures and everywhere else.
"""

import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Num
from tqdm import tqdm

from saliency_jax.errors import InputError
from saliency_jax.evaluation.judges import Judge
from saliency_jax.evaluation.timing import call_timed, timed
from saliency_jax.inpainting import inpaint_telea
from saliency_jax.masking import masked_in, masked_out, mean_infill, to_float
from saliency_jax.metrics import judgement
from saliency_jax.metrics.baselines import rectangle_masks, rectangles
from saliency_jax.metrics.localisation import binarise, is_filed
from saliency_jax.models.classifier import Classifier
from saliency_jax.objectives import terms
from saliency_jax.saliency import Masker, saliency_fn
from saliency_jax.training import sharding
from saliency_jax.types import Batch, Images, Labels

CLEAN = ("image", "clean")

keep_masked = jax.jit(masked_in)
remove_masked = jax.jit(masked_out)

Picture = tuple[str, str]  # whose mask, which edit
Answered = dict[Picture, dict[str, judgement.Answers]]  # of each judge


class Judged(NamedTuple):
    """What a pass over the images gave.

    Attributes:
      answers: to each picture of all images.
      areas: of each binary mask, the share of its image that it keeps.
      has_box: which images have a box, so that its mask means something.
      outputs: of the judges, see `models.classifier.OUTPUTS`.
      seconds: what took how long.
    """

    answers: Answered
    areas: dict[str, Float[np.ndarray, "B"]]
    has_box: Bool[np.ndarray, "B"]
    outputs: dict[str, str]
    seconds: dict[str, float]


def judge_masks(
    masker: Masker,
    judges: Mapping[str, Judge],
    batches: Iterable[Batch],
    count: int,
    batch_size: int,
    *,
    variant: str,
    row: str,
    mean: tuple[float, ...],
) -> Judged:
    """Shows all images and their edits to the judges.

    Threads inpaint the images of a batch while the device computes the judges' answers
    to the others.

    Args:
      masker: whose masks are judged, beside the rectangles of `metrics.baselines`. One
        that shows the evidence of a class is asked for the true one.
      judges: by name, at least one.
      batches: finite, in order; padding is ignored.
      count: how many images there are.
      batch_size: of each batch.
      variant: of the binarisation, one of `metrics.localisation.VARIANTS`.
      row: the name of the masks' row.
      mean: the colour in [0, 1] of removed pixels.

    Raises:
      InputError: when a judge's answers are not finite.
    """
    mesh = sharding.evaluation_mesh(batch_size)
    place = functools.partial(jax.device_put, device=sharding.by_batch(mesh))
    everywhere = sharding.replicated(mesh)
    masker = jax.device_put(masker, everywhere)
    judges = {
        name: judge._replace(classifier=jax.device_put(judge.classifier, everywhere))
        for name, judge in judges.items()
    }

    cv2.setNumThreads(1)  # the pool's threads are enough
    seconds = dict.fromkeys(("inpainting", "wait"), 0.0)
    parts, areas, has_box = [], [], []
    start = time.perf_counter()
    with (
        ThreadPoolExecutor(os.cpu_count() or 1) as threads,
        tqdm(total=count, disable=None, unit="image") as bar,
    ):
        for batch in batches:
            labels, valid = place(batch["label"]), batch["valid"]
            masks = np.asarray(saliency_fn(masker, place(batch["image"]), labels))
            binary = binary_masks(masks, batch, variant, row)
            pictures = edited(batch["image"], binary, mean, place, threads, seconds)
            parts.append(ask(judges, pictures, labels, valid))
            areas.append(
                {of: kept[valid].mean(axis=(1, 2)) for of, kept in binary.items()}
            )
            has_box.append(is_filed(batch["boxes_pixels"][valid]).any(axis=1))
            bar.update(int(valid.sum()))
    return Judged(
        {
            picture: {
                name: judgement.join([part[picture][name] for part in parts])
                for name in judges
            }
            for picture in parts[0]
        },
        {of: np.concatenate([part[of] for part in areas]) for of in areas[0]},
        np.concatenate(has_box),
        {name: judge.classifier.output for name, judge in judges.items()},
        {
            "judging_seconds": time.perf_counter() - start,
            "inpainting_seconds": seconds["inpainting"],
            "judging_waited_for_inpainting_seconds": seconds["wait"],
        },
    )


def binary_masks(
    masks: Float[np.ndarray, "B S S"], batch: Batch, variant: str, row: str
) -> dict[str, Bool[np.ndarray, "B S S"]]:
    """The binary masks of a batch: of the masker and of the naive rectangles."""
    size = masks.shape[1]
    boxes = rectangles(batch["boxes_pixels"], batch["original_size"], size)
    drawn = {name: rectangle_masks(boxes[name], size) for name in boxes}
    return {row: binarise(masks, variant), **drawn}


def edited(
    images: Num[np.ndarray, "B S S 3"],
    masks: Mapping[str, Bool[np.ndarray, "B S S"]],
    mean: tuple[float, ...],
    place: Callable[[Any], Array],
    threads: ThreadPoolExecutor,
    seconds: dict[str, float],
) -> Iterator[tuple[Picture, Float[Array, "B S S 3"]]]:
    """Yields the pictures of a batch in [0, 1], those that wait for threads last.

    Args:
      images: uint8.
      masks: by whose they are; True = salient.
      mean: the colour in [0, 1] of removed pixels.
      place: puts an array of a batch on the device.
      threads: that inpaint.
      seconds: of "inpainting" in processor time and of the "wait" for it; added to.
    """
    inpainting = {
        name: threads.map(
            functools.partial(call_timed, inpaint_telea),
            images,
            binary,
            itertools.repeat(mean),
        )
        for name, binary in masks.items()
    }
    clean, infill = to_float(place(images)), mean_infill(mean)
    yield CLEAN, clean
    for name, binary in masks.items():
        mask = place(binary.astype(np.float32))
        yield (name, "masked_in"), keep_masked(clean, mask, infill)
        yield (name, "masked_out"), remove_masked(clean, mask, infill)
    for name, results in inpainting.items():
        with timed(seconds, "wait"):
            filled, busy = zip(*results, strict=True)
        seconds["inpainting"] += sum(busy)
        yield (name, "inpainted"), to_float(place(np.stack(filled)))


def ask(
    judges: Mapping[str, Judge],
    pictures: Iterable[tuple[Picture, Images]],
    labels: Labels,
    valid: Bool[np.ndarray, "B"],
) -> Answered:
    """Returns the judges' answers to the pictures of a batch, without its padding.

    Raises:
      InputError: when a judge's answers are not finite.
    """
    pending = {
        picture: {
            name: answer(judge.classifier, images, labels, image_size=judge.image_size)
            for name, judge in judges.items()
        }
        for picture, images in pictures
    }
    answered = {}
    for picture, of_judges in pending.items():
        answered[picture] = {}
        for name, answers in of_judges.items():
            answers = judgement.keep(jax.device_get(answers), valid)
            if not np.isfinite(answers.cross_entropy).all():
                raise InputError(
                    f"the logits of judge {name} are not finite: its training "
                    "diverged; name another"
                )
            answered[picture][name] = answers
    return answered


@functools.partial(jax.jit, static_argnames="image_size")
def answer(
    classifier: Classifier, images: Images, labels: Labels, *, image_size: int
) -> judgement.Answers:
    """Returns a classifier's answers to the images of a batch.

    Args:
      classifier: other weights of one architecture do not recompile.
      images: uint8, or floats in [0, 1].
      labels: the true classes.
      image_size: side in pixels to which the images are resized, bilinearly.
    """
    shape = (len(images), image_size, image_size, 3)
    if images.shape != shape:
        images = jax.image.resize(images, shape, "linear")
    logits = classifier(images)
    return judgement.Answers(
        terms.is_correct(logits, labels, classifier.output),
        -terms.log_probability(logits, labels, classifier.output),
        terms.entropy(logits, classifier.output),
    )


def tabulate(judged: Judged, num_classes: int) -> dict[str, Any]:
    """Returns `{judge: {mask: {edit: figures}}}`; `judgement.summarise` names those.

    Beside them stands the mean `mask_area`, without which they say little. The clean
    images stand under "image", "clean", and have no mask. Every image counts, but under
    the mask of the ground-truth box, which is left out where no image has one, only
    those that have a box.
    """
    table: dict[str, Any] = {}
    everything = np.ones_like(judged.has_box)
    for (row, edit), of_judges in judged.answers.items():
        counted = judged.has_box if row == "ground_truth_box" else everything
        if not counted.any():
            continue
        for name, answers in of_judges.items():
            is_sigmoid = judged.outputs[name] == "sigmoid"
            most = num_classes * math.log(2) if is_sigmoid else math.log(num_classes)
            figures = judgement.summarise(answers, counted, most)
            if row in judged.areas:
                figures["mask_area"] = float(judged.areas[row][counted].mean())
            table.setdefault(name, {}).setdefault(row, {})[edit] = figures
    return table
