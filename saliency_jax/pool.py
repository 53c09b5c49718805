"""The pool of past classifiers that a masker plays against.

Pure functions on a stacked pytree. A classifier's parameters and batch statistics go
in together and come out together; entries are copies and never change afterwards.
"""

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from saliency_jax.types import PyTree


@flax.struct.dataclass
class ClassifierPool:
    """Frozen past classifiers, stacked on a leading axis `P`.

    Attributes:
      params: every leaf `[P, ...]`.
      batch_stats: every leaf `[P, ...]`.
      saved_at: the step whose classifier a slot holds, counted from 1; 0 is the one
        at the start of training, -1 marks an empty slot.
      count: slots filled so far, 0..P.
    """

    params: PyTree
    batch_stats: PyTree
    saved_at: Int[Array, "P"]
    count: Int[Array, ""]


def init_pool(params: PyTree, batch_stats: PyTree, slots: int) -> ClassifierPool:
    """An empty pool of `slots` entries shaped like the given classifier."""

    def empty(leaf: Array) -> Array:
        return jnp.zeros((slots, *leaf.shape), leaf.dtype)

    return ClassifierPool(
        params=jax.tree.map(empty, params),
        batch_stats=jax.tree.map(empty, batch_stats),
        saved_at=jnp.full((slots,), -1, jnp.int32),
        count=jnp.zeros((), jnp.int32),
    )


def push(
    pool: ClassifierPool,
    params: PyTree,
    batch_stats: PyTree,
    *,
    step: int | Int[Array, ""],
    key: Key[Array, ""],
    when: bool | Bool[Array, ""] = True,
    keep_first: bool = False,
) -> ClassifierPool:
    """Copies a classifier into the next empty slot, or a uniformly random full one.

    Args:
      pool: donated by the caller's jit, it is updated in place.
      params: the classifier's parameters.
      batch_stats: its batch statistics.
      step: the training step, kept in `saved_at`.
      key: chooses the slot of a full pool.
      when: False leaves the pool as it is. One slot is rewritten with its own content
        then, which is cheaper than a `lax.cond` that copies the whole pool.
      keep_first: never replace slot 0, the first iterate.
    """
    slots = pool.saved_at.shape[0]
    if keep_first and slots == 1:
        when = when & (pool.count == 0)  # there is nothing else to replace
    lowest = min(int(keep_first), slots - 1)
    random_slot = jax.random.randint(key, (), lowest, slots)
    slot = jnp.where(pool.count < slots, pool.count, random_slot)

    def write(stack: Array, new: Array) -> Array:
        old = jax.lax.dynamic_index_in_dim(stack, slot, keepdims=False)
        return stack.at[slot].set(jnp.where(when, new, old))

    return ClassifierPool(
        params=jax.tree.map(write, pool.params, params),
        batch_stats=jax.tree.map(write, pool.batch_stats, batch_stats),
        saved_at=write(pool.saved_at, jnp.asarray(step, jnp.int32)),
        count=jnp.where(when, jnp.minimum(pool.count + 1, slots), pool.count),
    )


def draw(pool: ClassifierPool, key: Key[Array, ""]) -> tuple[PyTree, PyTree]:
    """Returns `(params, batch_stats)` of a uniformly drawn filled slot.

    An index, not a branch, so that no draw recompiles. An empty pool gives slot 0.
    """
    slot = jax.random.randint(key, (), 0, jnp.maximum(pool.count, 1))

    def take(stack: Array) -> Array:
        return jax.lax.dynamic_index_in_dim(stack, slot, keepdims=False)

    return jax.tree.map(take, pool.params), jax.tree.map(take, pool.batch_stats)
