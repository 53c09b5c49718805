"""Terms that several objectives share."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from saliency_jax.types import Labels, Logits


def cross_entropy(
    logits: Logits, labels: Labels, label_smoothing: float = 0.0
) -> Float[Array, "B"]:
    """Cross-entropy of each example, in nats.

    Args:
      logits: unnormalised.
      labels: the true classes.
      label_smoothing: the share of the target spread evenly over all classes.
    """
    plain = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if label_smoothing == 0.0:
        return plain
    uniform = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
    return (1.0 - label_smoothing) * plain + label_smoothing * uniform


def negative_entropy(logits: Logits) -> Float[Array, "B"]:
    """`sum_c p_c log p_c` of each example's softmax, in nats, in [-ln K, 0]."""
    log_probabilities = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)


def is_correct(logits: Logits, labels: Labels) -> Bool[Array, "B"]:
    """Whether the highest logit is the true class."""
    return jnp.argmax(logits, axis=-1) == labels
