"""Bounded memory: work goes through the classifier a part at a time.

Outside of a user's `jax.jit` the parts are a Python loop over one compiled program,
because XLA's CPU backend is slow at convolutions inside its own loops; inside one they
are a `jax.lax` loop. The results are the same up to rounding.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Int

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
      batch_size: of images.
      shared: passed as it is, such as a classifier.
      *per_image: see `rows_of`.
      **options: static, passed as they are.
    """
    count = len(jax.tree.leaves(per_image)[0])
    if batch_size >= count:
        return function(shared, *per_image, **options)
    batches = -(-count // batch_size)
    # Copies of the last image fill the last batch, so that there is one shape.
    rows = jnp.minimum(jnp.arange(batches * batch_size), count - 1)
    rows = rows.reshape(batches, batch_size)

    def part(chosen: jax.Array) -> PyTree:
        return function(shared, *rows_of(per_image, chosen), **options)

    if is_traced(shared, per_image):
        parts = jax.lax.map(part, rows)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], parts)
    parts = [part(chosen) for chosen in rows]
    return jax.tree.map(lambda *x: jnp.concatenate(x)[:count], *parts)


def rows_of(per_image: PyTree, chosen: Int[jax.Array, "I"]) -> PyTree:
    """What belongs to some of the images.

    Args:
      per_image: arrays with a leading axis of images, pytrees of them, or None. A
        `Partial`, such as a target that is a function, is for all images.
      chosen: which images.
    """
    return jax.tree.map(
        lambda x: x if isinstance(x, Partial) else x[chosen],
        per_image,
        is_leaf=lambda x: isinstance(x, Partial),
    )


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


def pairs_of_chunk(
    i: jax.Array, size: int, images: int
) -> tuple[Int[jax.Array, "I"], Int[jax.Array, "I"]]:
    """Which image and which sample are item by item in the i-th chunk of all pairs.

    A method that makes `samples` edited images of each image runs `chunks(...)` such
    chunks; the first sample of all images comes first. In the last chunk items may
    belong to a sample number that does not exist: leave those out.

    Args:
      i: the chunk.
      size: items in a chunk.
      images: B.

    Returns:
      For each item the image, and the number of the sample.
    """
    items = i * size + jnp.arange(size)
    return items % images, items // images


def chunks(images: int, samples: int, size: int) -> int:
    """How many chunks of that size hold all pairs of an image and a sample."""
    return -(-images * samples // size)
