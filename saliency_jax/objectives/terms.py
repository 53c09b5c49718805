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


def binary_cross_entropy(
    logits: Logits, present: Bool[Array, "B K"], label_smoothing: float = 0.0
) -> Float[Array, "B"]:
    """Sum over the classes of each one's own cross-entropy, in nats.

    Args:
      logits: of each class by itself.
      present: the classes that are there, any number.
      label_smoothing: the share of each target that is 1/K instead.
    """
    targets = (1.0 - label_smoothing) * present + label_smoothing / logits.shape[-1]
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)


def log_probability(logits: Logits, labels: Labels, output: str) -> Float[Array, "B"]:
    """Of the true class, by a softmax over all or a sigmoid of its own."""
    logs = jax.nn.log_sigmoid if output == "sigmoid" else jax.nn.log_softmax
    return jnp.take_along_axis(logs(logits), labels[:, None], axis=-1)[:, 0]


def negative_entropy(logits: Logits) -> Float[Array, "B"]:
    """`sum_c p_c log p_c` of each example's softmax, in nats, in [-ln K, 0]."""
    log_probabilities = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_probabilities) * log_probabilities, axis=-1)


def entropy(logits: Logits, output: str) -> Float[Array, "B"]:
    """Of each example's answer in nats: of its softmax, or the sum of its sigmoids'."""
    if output == "softmax":
        return -negative_entropy(logits)
    probabilities = jax.nn.sigmoid(logits)
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, probabilities), axis=-1)


def is_correct(
    logits: Logits, labels: Labels, output: str = "softmax"
) -> Bool[Array, "B"]:
    """Whether the highest logit is the true class; of a sigmoid, its own is above 0."""
    if output == "sigmoid":
        return jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0] > 0
    return jnp.argmax(logits, axis=-1) == labels


def is_present(logits: Logits, present: Bool[Array, "B K"]) -> Bool[Array, "B"]:
    """Whether the highest logit is one of the classes that are there."""
    highest = jnp.argmax(logits, axis=-1, keepdims=True)
    return jnp.take_along_axis(present, highest, axis=-1)[:, 0]
