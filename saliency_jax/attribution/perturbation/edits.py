"""Scores of images of which a part is replaced: what perturbation methods ask for."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Num

from saliency_jax.attribution.asking import Question, probabilities
from saliency_jax.attribution.batching import (
    chunks,
    even_size,
    in_batches,
    pairs_of_chunk,
    repeat,
)
from saliency_jax.attribution.layers import (
    INPUT,
    Targets,
    Unit,
    as_layer,
    cut,
    target_scores,
)
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.types import PyTree

OUTPUTS = ("logit", "probability")
Output = Literal["logit", "probability"]
"""Which score of a class is explained. A function as target is of these; a hidden
unit's activation is as it is."""

Colour = float | int | Sequence[float] | Num[Array | np.ndarray, "..."] | None
"""What stands in the place of what is removed: a number or one for each channel, in
[0, 1]; None for the classifier's mean colour, which it sees as zero."""


def as_colour(
    value: Colour, classifier: Classifier, images: Float[Array, "B H W C"]
) -> Float[Array, "C"]:
    """The colour of each channel.

    Raises:
      InputError: neither a number nor one for each channel.
    """
    channels = images.shape[-1]
    colour = jnp.asarray(classifier.mean if value is None else value, jnp.float32)
    if colour.shape not in ((), (channels,)):
        raise InputError(
            f"a colour of shape {colour.shape} for images of {channels} channels: "
            f"expected a number, or one for each channel"
        )
    return jnp.broadcast_to(colour, (channels,))


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises `InputError` where a user's choice is not among the possible ones."""
    if value not in choices:
        raise InputError(f"{name}={value!r} is unknown: use one of {tuple(choices)}")


def check_samples(samples: int, name: str = "samples") -> None:
    """Raises `InputError` where there are none."""
    if samples < 1:
        raise InputError(f"{name} is {samples}: it must be at least 1")


def scores_of(
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    targets: Targets,
    output: Literal["logit", "probability", "sigmoid"],
) -> Float[Array, "B"]:
    """What is explained, of any images; "sigmoid" whatever the classifier's output."""
    if isinstance(targets, Unit):
        parts = cut(classifier, images, as_layer(INPUT), targets)
        return parts.scores(images, images, targets).astype(jnp.float32)
    if output == "probability":
        return target_scores(probabilities(classifier, images), targets)
    logits = classifier(images).astype(jnp.float32)
    if output == "sigmoid":
        logits = jax.nn.sigmoid(logits)
    return target_scores(logits, targets)


def of_rows(arrays: PyTree, rows: Int[Array, "I"]) -> PyTree:
    """Of arrays `[B, ...]` those of some images; a target's function is of all."""
    return jax.tree.map(
        lambda x: x if isinstance(x, Partial) else x[rows],
        arrays,
        is_leaf=lambda x: isinstance(x, Partial),
    )


def scores_of_images(question: Question, output: Output) -> Float[Array, "B"]:
    """The scores of the images that were asked about, in float32."""
    return in_batches(
        _jitted_scores,
        question.batch_size,
        question.classifier,
        question.images,
        question.targets,
        output=output,
    )


_jitted_scores = jax.jit(scores_of, static_argnames="output")


def scores_of_edits(
    question: Question,
    edit: Callable[..., Float[Array, "H W C"]],
    static: Hashable,
    samples: int,
    output: Output,
    details: PyTree,
    shared: PyTree,
) -> Float[Array, "B N"]:
    """The scores of `samples` edited images of each image.

    Args:
      question: with targets.
      edit: a function of a module, so that it is the same at every call:
        `edit(static, sample, image, details, shared)` returns the edited image.
      static: what it needs to know when it is compiled.
      samples: N.
      output: which scores.
      details: what it needs of each image, arrays `[B, ...]`.
      shared: what it needs for all images.
    """
    images = len(question.images)
    size = even_size(images * samples, question.batch_size)
    return repeat(
        _chunk_of_edits,
        jnp.zeros((images, samples)),
        chunks(images, samples, size),
        question.classifier,
        question.images,
        question.targets,
        details,
        shared,
        edit=edit,
        static=static,
        size=size,
        output=output,
    )


@partial(jax.jit, static_argnames=("edit", "static", "size", "output"))
def _chunk_of_edits(
    scores: Float[Array, "B N"],
    i: Int[Array, ""],
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    targets: Targets,
    details: PyTree,
    shared: PyTree,
    edit: Callable[..., Float[Array, "H W C"]],
    static: Hashable,
    size: int,
    output: Output,
) -> Float[Array, "B N"]:
    rows, samples = pairs_of_chunk(i, size, len(images))
    edited = jax.vmap(partial(edit, static), (0, 0, 0, None))(
        samples, images[rows], of_rows(details, rows), shared
    )
    answers = scores_of(classifier, edited, of_rows(targets, rows), output)
    return scores.at[rows, samples].set(answers, mode="drop")
