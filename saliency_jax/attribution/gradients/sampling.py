"""Sums over samples: many edited images of each image, a chunk at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from saliency_jax.attribution.batching import (
    chunks,
    even_size,
    pairs_of_chunk,
    repeat,
    rows_of,
)
from saliency_jax.attribution.layers import INPUT, AskedLayer, cut
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.types import PyTree


class Chunk(NamedTuple):
    """Some of the pairs of an image and a sample.

    Attributes:
      rows: of each item the image.
      samples: of each item the number of the sample. Items beyond the last sample
        repeat that one.
      places: of each item where in an array of all images its value is added; for
        items beyond the last sample nowhere.
    """

    rows: Int[Array, "I"]
    samples: Int[Array, "I"]
    places: Int[Array, "I"]

    def of(self, tree: PyTree) -> PyTree:
        """What is of each image, item by item. A `Partial` is for all images."""
        return rows_of(tree, self.rows)

    def add(self, sums: Float[Array, "B ..."], values: Array) -> Float[Array, "B ..."]:
        """The sums of each image, with the items' values."""
        return sums.at[self.places].add(values.astype(sums.dtype), mode="drop")


def chunk_of(i: jax.Array, size: int, images: int, samples: int) -> Chunk:
    """The i-th chunk of `over_samples`.

    Args:
      i: the chunk.
      size: items in a chunk.
      images: B.
      samples: of each image.
    """
    rows, numbers = pairs_of_chunk(i, size, images)
    places = jnp.where(numbers < samples, rows, images)
    return Chunk(rows, jnp.minimum(numbers, samples - 1), places)


def over_samples(
    step: Callable[..., PyTree],
    carry: PyTree,
    images: int,
    samples: int,
    batch_size: int,
    *arguments: PyTree,
    **options: Any,
) -> PyTree:
    """Returns `carry` after a step for every chunk of pairs of an image and a sample.

    Args:
      step: called as `step(carry, i, *arguments, size=size, samples=samples,
        **options)`, jitted, with all that is named as static arguments.
      carry: a pytree of arrays.
      images: B.
      samples: of each image.
      batch_size: the most pairs in a chunk.
      *arguments: passed as they are.
      **options: passed as they are.
    """
    size = even_size(images * samples, batch_size)
    times = chunks(images, samples, size)
    return repeat(step, carry, times, *arguments, size=size, samples=samples, **options)


def activations(
    asked: tuple[Classifier, AskedLayer], images: Float[Array, "B H W C"]
) -> Float[Array, "B h w D"]:
    """What a layer gives; of the input the images themselves."""
    return images if _is_input(asked[1]) else _activations(asked, images)


def activations_shape(
    asked: tuple[Classifier, AskedLayer], images: Float[Array, "B H W C"]
) -> tuple[int, ...]:
    """The shape of what a layer gives, `[B, h, w, D]`."""
    if _is_input(asked[1]):
        return images.shape
    return _activations.eval_shape(asked, images).shape


def _is_input(layer: AskedLayer) -> bool:
    return getattr(layer, "name", None) == INPUT


@jax.jit  # keeps what it has traced, also where only the shape is asked for
def _activations(
    asked: tuple[Classifier, AskedLayer], images: Float[Array, "B H W C"]
) -> Float[Array, "B h w D"]:
    return cut(asked[0], images, asked[1]).activations(images)


def check_count(name: str, value: int, least: int = 1) -> None:
    """Checks how many samples or steps are asked for.

    Raises:
      InputError: they are too few.
    """
    if value < least:
        raise InputError(f"{name} is {value}: it must be at least {least}")
