"""Scores of images of which a part is replaced: what perturbation methods ask for."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from saliency_jax.attribution.asking import Question, by_channel
from saliency_jax.attribution.batching import chunk_of, in_batches, over_samples
from saliency_jax.attribution.layers import Targets
from saliency_jax.attribution.scores import scores_of
from saliency_jax.masking import colour_to_float
from saliency_jax.models.classifier import Classifier
from saliency_jax.types import PyTree

Output = Literal["logit", "probability"]
"""Which score of a class is explained. A function as target is of these; a hidden
unit's activation is as it is."""

Colour = float | int | Sequence[float] | Num[Array | np.ndarray, "..."] | None
"""What stands in the place of what is removed: a number or one for each channel, in
[0, 1]; None for the classifier's mean colour, which it sees as zero."""


def as_colour(
    value: Colour, classifier: Classifier, images: Float[Array, "B H W C"]
) -> Float[Array, "C"]:
    """The colour that the option `value` stands for.

    Raises:
      InputError: it is neither a number nor one for each channel.
    """
    value = classifier.mean if value is None else value
    return by_channel("value", colour_to_float("value", value), images.shape[-1])


def scores_of_images(asked: Question, output: Output) -> Float[Array, "B"]:
    """The scores of the images that were asked about, in float32."""
    return in_batches(
        _jitted_scores,
        asked.batch_size,
        asked.classifier,
        asked.images,
        asked.targets,
        output=output,
    )


_jitted_scores = jax.jit(scores_of, static_argnames="output")


def scores_of_edits(
    asked: Question,
    edit: Callable[..., Float[Array, "H W C"]],
    static: Hashable,
    samples: int,
    output: Output,
    details: PyTree,
    shared: PyTree,
) -> Float[Array, "B N"]:
    """The scores of `samples` edited images of each image.

    Args:
      asked: with targets.
      edit: a function of a module, so that it is the same at every call:
        `edit(static, sample, image, details, shared)` returns the edited image.
      static: what it needs to know when it is compiled.
      samples: N.
      output: which scores.
      details: what it needs of each image, arrays `[B, ...]`.
      shared: what it needs for all images.
    """
    images = len(asked.images)
    return over_samples(
        _chunk_of_edits,
        jnp.zeros((images, samples)),
        images,
        samples,
        asked.batch_size,
        asked.classifier,
        asked.images,
        asked.targets,
        details,
        shared,
        edit=edit,
        static=static,
        output=output,
    )


@partial(jax.jit, static_argnames=("size", "samples", "edit", "static", "output"))
def _chunk_of_edits(
    scores: Float[Array, "B N"],
    i: Int[Array, ""],
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    targets: Targets,
    details: PyTree,
    shared: PyTree,
    size: int,
    samples: int,
    edit: Callable[..., Float[Array, "H W C"]],
    static: Hashable,
    output: Output,
) -> Float[Array, "B N"]:
    chunk = chunk_of(i, size, len(images), samples)
    edited = jax.vmap(partial(edit, static), (0, 0, 0, None))(
        chunk.samples, *chunk.of((images, details)), shared
    )
    found = scores_of(classifier, edited, chunk.of(targets), output)
    return chunk.put(scores, found)
