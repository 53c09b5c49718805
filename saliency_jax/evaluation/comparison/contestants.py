"""What stands in the rows of a comparison: methods, trained maskers, baselines."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from saliency_jax.attribution.named import method_of
from saliency_jax.attribution.registry import describe
from saliency_jax.errors import InputError
from saliency_jax.evaluation import fingerprints
from saliency_jax.evaluation.runs import Run
from saliency_jax.masking import to_float
from saliency_jax.metrics import baselines
from saliency_jax.models.classifier import Classifier, logits_of
from saliency_jax.report.figures import as_uint8
from saliency_jax.saliency import saliency_fn
from saliency_jax.training.evaluators import top_hits
from saliency_jax.types import Batch

Explain = Callable[..., Float[Array | np.ndarray, "B H W"]]
"""Called as `explain(classifier, batch, targets, key)`."""


class Contestant(NamedTuple):
    """A row.

    Attributes:
      title: its name in the table.
      kind: what it is.
      explain: what gives its maps.
      image_size: side in pixels of the images that it is shown.
      is_mask: whether its maps are masks in [0, 1], used as they are.
      asks: whether its maps depend on the classifier that is explained.
      of_class: whether they depend on the class that is asked for.
      is_random: whether they depend on the key.
      is_box: whether a map is a rectangle, which is its own box.
      knows_truth: whether it is made from filed boxes.
      sees_images: whether they depend on what an image shows.
      own_correct: says of the images of a batch, of its size, whether a masker's own
        classifier has their class right.
      trained_as: of a masker "casm", "baseline" (CASM against a classifier that never
        changes, without a pool) or "black_box".
      origin: what its figures go back to besides the classifier; where it changes, they
        are measured again.
    """

    title: str
    kind: Literal["method", "masker", "baseline"]
    explain: Explain
    image_size: int
    is_mask: bool = False
    asks: bool = True
    of_class: bool = True
    is_random: bool = False
    is_box: bool = False
    knows_truth: bool = False
    sees_images: bool = True
    own_correct: Callable[[Batch], Bool[np.ndarray, "B"]] | None = None
    trained_as: str = ""
    origin: tuple[str, ...] = ()


def methods(
    texts: Sequence[str], image_size: int, batch_size: int
) -> dict[str, Contestant]:
    """The methods that a user names, by their texts.

    Args:
      texts: see `attribution.named.method_of`.
      image_size: side in pixels of the images.
      batch_size: how many images go through the classifier at once.

    Raises:
      InputError: there is no such method or option, or a text comes twice.
    """
    rows = {}
    for text in texts:
        if text in rows:
            raise InputError(f"the method {text} is named twice: name each row once")
        method = method_of(text)
        rows[text] = Contestant(
            title=text,
            kind="method",
            explain=functools.partial(_explain, method, batch_size),
            image_size=image_size,
            is_random=describe(method.func.__name__, method.func).stochastic,
        )
    return rows


def _explain(
    method: Callable[..., Array],
    batch_size: int,
    classifier: Classifier,
    batch: Batch,
    targets: Int[Array | np.ndarray, "B"],
    key: Array,
) -> Float[Array, "B H W"]:
    return method(classifier, batch["image"], targets, key=key, batch_size=batch_size)


def maskers(runs: Mapping[str, Run]) -> dict[str, Contestant]:
    """The maskers of runs, by name; each is shown images of its own size."""
    return {
        name: Contestant(
            title=name,
            kind="masker",
            explain=functools.partial(_mask, run),
            image_size=run.image_size,
            is_mask=True,
            asks=False,
            of_class=run.stage == "black_box",
            own_correct=functools.partial(_own_correct, run),
            trained_as=_trained_as(run),
            origin=(str(run.step), fingerprints.of_variables(run.masker)),
        )
        for name, run in runs.items()
    }


def _mask(
    run: Run,
    classifier: Classifier,
    batch: Batch,
    targets: Int[Array | np.ndarray, "B"],
    key: Array,
) -> Float[Array, "B H W"]:
    return saliency_fn(run.masker, batch["image"], targets)


def _own_correct(run: Run, batch: Batch) -> Bool[np.ndarray, "B"]:
    images = to_float(jnp.asarray(batch["image"]))
    logits = logits_of(run.masker.classifier, images)
    hits = top_hits(np.asarray(logits), batch["label"], batch.get("present"))
    return hits[:, 0]


def _trained_as(run: Run) -> str:
    """CASM, its Baseline without a pool or a training classifier, or a black box's."""
    thinning = run.config.get("casm", {}).get("thinning")
    return "baseline" if thinning == "F" else run.stage


def filed_boxes(batch: Batch, convention: str) -> Int[np.ndarray, "B N 4"]:
    """The boxes of a batch of `Setting` as a convention of `metrics.ilsvrc` wants them.

    As filed for `casm`, which takes any edges literally; with inclusive edges else.
    """
    return batch["boxes_inclusive" if convention == "inclusive" else "boxes_pixels"]


def trivial(
    image_size: int, seed: int, convention: str = "inclusive"
) -> dict[str, Contestant]:
    """The baselines, which are always in the table.

    Args:
      image_size: side in pixels of the images.
      seed: of the random maps.
      convention: of filed boxes, one of `metrics.ilsvrc.CONVENTIONS`.
    """

    def rectangle(name: str, batch: Batch) -> Float[np.ndarray, "B S S"]:
        filed = filed_boxes(batch, convention), batch["original_size"]
        boxes = baselines.rectangles(*filed, image_size, convention)[name]
        return baselines.rectangle_masks(boxes, image_size).astype(np.float32)

    def count(batch: Batch) -> int:
        return len(batch["image"])

    maps = {
        "whole_image": functools.partial(rectangle, "whole_image"),
        "center_box": functools.partial(rectangle, "center_box"),
        "ground_truth_box": functools.partial(rectangle, "ground_truth_box"),
        "centre_gaussian": lambda b: baselines.centre_gaussian(count(b), image_size),
        "edges": lambda b: baselines.edges(as_uint8(np.asarray(b["image"]))),
        "random": lambda b: baselines.random_maps(b["place"], image_size, seed),
    }
    titles = {
        "whole_image": "whole image",
        "center_box": "centre box",
        "ground_truth_box": "ground-truth box",
        "centre_gaussian": "centre Gaussian",
    }
    boxes = ("whole_image", "center_box", "ground_truth_box")
    origins = {"random": (str(seed),), "ground_truth_box": (convention,)}
    return {
        name: Contestant(
            title=titles.get(name, name),
            kind="baseline",
            explain=functools.partial(_without_classifier, make),
            image_size=image_size,
            is_mask=name in boxes,
            asks=False,
            of_class=False,
            is_box=name in boxes,
            knows_truth=name == "ground_truth_box",
            sees_images=name == "edges",
            origin=origins.get(name, ()),
        )
        for name, make in maps.items()
    }


def _without_classifier(
    make: Callable[[Batch], Float[np.ndarray, "B S S"]],
    classifier: Classifier,
    batch: Batch,
    targets: Any,
    key: Array,
) -> Float[np.ndarray, "B S S"]:
    return make(batch)


def maps_of(
    contestant: Contestant,
    classifier: Classifier,
    batch: Batch,
    targets: Int[Array | np.ndarray, "B"],
    key: Array,
    size: int,
) -> Float[np.ndarray, "B S S"]:
    """Returns a contestant's maps of a batch, at the comparison's size.

    Raises:
      InputError: they are not finite, or not one map for each image.
    """
    maps = contestant.explain(classifier, batch, targets, key)
    if maps.shape[:1] != batch["label"].shape or maps.ndim != 3:
        raise InputError(
            f"{contestant.title} gives an array of shape {maps.shape} for "
            f"{len(batch['label'])} images: expected a map [B, H, W]"
        )
    if maps.shape[1:] != (size, size):
        maps = resized(jnp.asarray(maps), size)
        if contestant.is_mask:  # which interpolation leaves by rounding
            maps = jnp.clip(maps, 0.0, 1.0)
    maps = np.asarray(maps, np.float32)
    if not np.isfinite(maps).all():
        raise InputError(
            f"the maps of {contestant.title} are not finite: its masker's training, or "
            "the classifier's, diverged"
        )
    return maps


@functools.partial(jax.jit, static_argnames="size")
def resized(maps: Num[Array, "B h w"], size: int) -> Float[Array, "B S S"]:
    """Maps at another size, bilinearly."""
    return jax.image.resize(maps, (len(maps), size, size), "linear")
