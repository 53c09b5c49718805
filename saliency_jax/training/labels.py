"""Which classes an image shows, and which of them a step asks about."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from saliency_jax.types import Batch, Labels


def present_classes(batch: Batch, num_classes: int) -> Bool[Array, "B K"]:
    """The classes of each image: all that the data tell of, or its label alone."""
    if "present" in batch:
        return jnp.asarray(batch["present"])
    return jax.nn.one_hot(batch["label"], num_classes, dtype=bool)


def draw_classes(
    key: Key[Array, ""],
    labels: Labels,
    present: Bool[Array, "B K"],
    fake_probability: float,
) -> tuple[Labels, Labels, Bool[Array, "B"]]:
    """Draws which class each mask is asked for.

    Args:
      key: of this draw.
      labels: classes that are present.
      present: all classes that are.
      fake_probability: how often it is a class that is not, all of them alike, where
        there is one. (The authors' code never draws the last of the others.)

    Returns:
      The classes that are asked for; those of the present ones, all alike, that are
      otherwise; and whether the two are the same.
    """
    key_coin, key_fake = jax.random.split(key)
    key_true = jax.random.fold_in(key, 2)
    absent = jnp.sum(~present, axis=-1)
    is_real = jax.random.uniform(key_coin, labels.shape) >= fake_probability
    is_real |= absent == 0
    count = lambda key, most: jax.random.randint(key, labels.shape, 1, most + 1)
    true = _nth_after(labels - 1, present, count(key_true, jnp.sum(present, axis=-1)))
    fake = _nth_after(labels, ~present, count(key_fake, absent))
    return jnp.where(is_real, true, fake), true, is_real


def _nth_after(
    labels: Labels, chosen: Bool[Array, "B K"], n: Int[Array, "B"]
) -> Labels:
    """The n-th of the chosen classes after a label, the first of all after the last."""
    num_classes = chosen.shape[-1]
    steps = jnp.arange(1, num_classes + 1, dtype=labels.dtype)
    following = (labels[:, None] + steps[None]) % num_classes
    counted = jnp.cumsum(jnp.take_along_axis(chosen, following, axis=-1), axis=-1)
    place = jnp.argmax(counted >= n[:, None], axis=-1, keepdims=True)
    return jnp.take_along_axis(following, place, axis=-1)[:, 0]
