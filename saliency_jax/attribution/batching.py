"""Bounded memory: work goes through the classifier a part at a time.

Outside of a user's `jax.jit` the parts are a Python loop over one compiled program,
because XLA's CPU backend is slow at convolutions inside its own loops; inside one they
are a `jax.lax` loop. The results are the same up to rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from saliency_jax.types import PyTree


def is_traced(*trees: PyTree) -> bool:
    """Whether this runs inside somebody's `jax.jit`, `jax.grad` or `jax.vmap`."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def in_batches(
    function: Callable[..., PyTree],
    batch_size: int,
    shared: PyTree,
    *per_image: PyTree,
    **options: Any,
) -> PyTree:
    """Returns `function(shared, *per_image, **options)`, `batch_size` images at a time.

    Args:
      function: of each image by itself; jitted, or it jits what is worth it.
      batch_size: the most images at a time.
      shared: passed as it is, such as a classifier.
      *per_image: see `rows_of`.
      **options: static, passed as they are.
    """
    count = len(jax.tree.leaves(per_image)[0])
    if batch_size >= count:
        return function(shared, *per_image, **options)
    batch_size = even_size(count, batch_size)
    batches = -(-count // batch_size)
    # Copies of the last image fill the last batch, so that there is one shape.
    rows = jnp.minimum(jnp.arange(batches * batch_size), count - 1)
    rows = rows.reshape(batches, batch_size)

    def part(chosen: Int[Array, "I"]) -> PyTree:
        return function(shared, *rows_of(per_image, chosen), **options)

    if is_traced(shared, per_image):
        parts = jax.lax.map(part, rows)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], parts)
    parts = [part(chosen) for chosen in rows]
    return jax.tree.map(lambda *x: jnp.concatenate(x)[:count], *parts)


def rows_of(per_image: PyTree, chosen: Int[Array, "I"]) -> PyTree:
    """What belongs to some of the images.

    Args:
      per_image: see `of_each_image`.
      chosen: which images.
    """
    return of_each_image(lambda x: x[chosen], per_image)


def of_each_image(function: Callable[[Array], Array], per_image: PyTree) -> PyTree:
    """Applies a function to all that belongs to single images.

    Args:
      function: of an array.
      per_image: arrays with a leading axis of images, pytrees of them, or None. A
        `Partial`, such as a target that is a function, is for all images, and is left
        as it is.
    """
    is_for_all = lambda x: isinstance(x, Partial)
    return jax.tree.map(
        lambda x: x if is_for_all(x) else function(x), per_image, is_leaf=is_for_all
    )


def even_size(count: int, batch_size: int) -> int:
    """The size of parts as few as `batch_size` allows, and as equal as can be."""
    return -(-count // -(-count // batch_size))


def repeat(
    step: Callable[..., PyTree],
    carry: PyTree,
    times: int,
    *arguments: PyTree,
    **options: Any,
) -> PyTree:
    """Returns `carry` after `carry = step(carry, i, *arguments, **options)` for each i.

    Args:
      step: jitted, with `options` as its static arguments.
      carry: a pytree of arrays.
      times: how often; i counts from 0 and is an array, so that it does not recompile.
      *arguments: passed as they are.
      **options: static, passed as they are.
    """
    if is_traced(carry, arguments):
        return jax.lax.fori_loop(
            0, times, lambda i, carry: step(carry, i, *arguments, **options), carry
        )
    for i in range(times):
        carry = step(carry, jnp.asarray(i), *arguments, **options)
    return carry


class Chunk(NamedTuple):
    """Some of the pairs of an image and a sample.

    Attributes:
      rows: of each item the image.
      samples: of each item the number of the sample. Items beyond the last sample
        repeat that one.
      places: of each item where in an array of all images its value belongs; for
        items beyond the last sample nowhere.
    """

    rows: Int[Array, "I"]
    samples: Int[Array, "I"]
    places: Int[Array, "I"]

    def of(self, per_image: PyTree) -> PyTree:
        """What is of each image, item by item; see `of_each_image`."""
        return rows_of(per_image, self.rows)

    def add(self, sums: Float[Array, "B ..."], values: Array) -> Float[Array, "B ..."]:
        """The sums of each image, with the items' values."""
        return sums.at[self.places].add(values.astype(sums.dtype), mode="drop")

    def put(
        self, kept: Float[Array, "B N ..."], values: Array
    ) -> Float[Array, "B N ..."]:
        """The values of each image and sample, with the items' values."""
        return kept.at[self.places, self.samples].set(values, mode="drop")


def chunk_of(i: Int[Array, ""], size: int, images: int, samples: int) -> Chunk:
    """The i-th chunk of `over_samples`: the first sample of all images comes first.

    Args:
      i: the chunk.
      size: items in a chunk.
      images: B.
      samples: of each image.
    """
    items = i * size + jnp.arange(size)
    rows, numbers = items % images, items // images
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

    For methods that make many edited images of each image.

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
    pairs = images * samples
    size = even_size(pairs, batch_size)
    times = -(-pairs // size)
    return repeat(step, carry, times, *arguments, size=size, samples=samples, **options)
