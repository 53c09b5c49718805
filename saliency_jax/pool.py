"""The pool of past classifiers that a masker plays against.

Pure functions on a stacked pytree. A classifier's parameters and batch statistics go
in together and come out together; entries are copies and never change afterwards.

The stack may lie in the host's memory, which is larger than the device's. The type of
an array says where it lies (that of a shape from `jax.eval_shape` does not), and an
entry is copied to the device before anything is computed with it. Each device of a mesh
may hold a part of every entry, as the arrays' shardings say: one that is drawn is put
together from all of them, which costs its size in traffic.
"""

from typing import no_type_check

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from saliency_jax.types import PyTree

DTYPES = ("float32", "bfloat16")


@no_type_check  # JAX fills it with shardings and shapes, too
@flax.struct.dataclass
class ClassifierPool:
    """Frozen past classifiers, stacked on a leading axis `P`.

    Attributes:
      params: every leaf `[P, ...]`, of one of `DTYPES`.
      batch_stats: every leaf `[P, ...]`.
      saved_at: the step whose classifier a slot holds, counted from 1; 0 is the one
        at the start of training, -1 marks an empty slot.
      count: slots filled so far, 0..P.
    """

    params: PyTree
    batch_stats: PyTree
    saved_at: Int[Array, "P"]
    count: Int[Array, ""]


def init_pool(
    params: PyTree, batch_stats: PyTree, slots: int, dtype: str = "float32"
) -> ClassifierPool:
    """An empty pool of `slots` entries shaped like the given classifier.

    Args:
      params: the classifier's parameters.
      batch_stats: its batch statistics, which are few and keep their type.
      slots: the entries that the pool can hold.
      dtype: that parameters are stored in, one of `DTYPES`.
    """

    def empty(leaf: Array, dtype: str | None = None) -> Array:
        return jnp.zeros((slots, *leaf.shape), dtype or leaf.dtype)

    return ClassifierPool(
        params=jax.tree.map(lambda leaf: empty(leaf, dtype), params),
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
        then, which is cheaper than a `lax.cond` that copies the whole pool; from and to
        the host's memory where the pool lies there.
      keep_first: never replace slot 0, the first iterate.
    """
    slots = pool.saved_at.shape[0]
    if keep_first and slots == 1:
        when = when & (pool.count == 0)  # there is nothing else to replace
    lowest = min(int(keep_first), slots - 1)
    random_slot = jax.random.randint(key, (), lowest, slots)
    slot = jnp.where(pool.count < slots, pool.count, random_slot)

    def write(stack: Array, new: Array) -> Array:
        old = _take(stack, slot)
        # Or what makes the new classifier would be split as the stack is.
        new = _whole(new.astype(stack.dtype))
        kept = jnp.where(when, new, old)
        kept = _moved(kept, jax.typeof(stack).memory_space)
        # Not `.at[slot].set`: XLA offloads this operation, but computes a scatter.
        return jax.lax.dynamic_update_index_in_dim(stack, kept, slot, axis=0)

    return ClassifierPool(
        params=jax.tree.map(write, pool.params, params),
        batch_stats=jax.tree.map(write, pool.batch_stats, batch_stats),
        saved_at=write(pool.saved_at, jnp.asarray(step, jnp.int32)),
        count=jnp.where(when, jnp.minimum(pool.count + 1, slots), pool.count),
    )


def draw(pool: ClassifierPool, key: Key[Array, ""]) -> tuple[PyTree, PyTree]:
    """Returns `(params, batch_stats)` of a uniformly drawn filled slot.

    An index, not a branch, so that no draw recompiles. The parameters are float32,
    however they are stored. An empty pool gives slot 0.
    """
    slot = jax.random.randint(key, (), 0, jnp.maximum(pool.count, 1))

    past = entry(pool, slot)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), past["params"])
    return params, past["batch_stats"]


def entry(pool: ClassifierPool, slot: int | Int[Array, ""]) -> dict[str, PyTree]:
    """The variables of one slot as they are stored, whole in each device's memory."""
    stacks = {"params": pool.params, "batch_stats": pool.batch_stats}
    return jax.tree.map(lambda stack: _whole(_take(stack, slot)), stacks)


def _whole(array: Array) -> Array:
    if jax.sharding.get_abstract_mesh().empty:
        return array
    return jax.lax.with_sharding_constraint(array, jax.sharding.PartitionSpec())


def _take(stack: Array, slot: int | Int[Array, ""]) -> Array:
    taken = jax.lax.dynamic_index_in_dim(stack, slot, keepdims=False)
    return _moved(taken, jax.memory.Space.Device)


def _moved(array: Array, space: jax.memory.Space) -> Array:
    if jax.typeof(array).memory_space == space:
        return array
    return jax.device_put(array, space)
