"""What a classifier answers: the scores that are explained, of any images."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from saliency_jax.attribution.layers import (
    INPUT,
    NamedLayer,
    Targets,
    Unit,
    cut,
    target_scores,
)
from saliency_jax.masking import to_float
from saliency_jax.models.classifier import Classifier, logits_of


def probabilities(
    classifier: Classifier, images: Num[Array | np.ndarray, "B H W C"]
) -> Float[Array, "B K"]:
    """What the classifier's logits mean: of a softmax or of a sigmoid, in float32."""
    logits = logits_of(classifier, to_float(jnp.asarray(images))).astype(jnp.float32)
    return {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[classifier.output](
        logits
    )


def scores_of(
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    targets: Targets,
    output: Literal["logit", "probability", "sigmoid"],
) -> Float[Array, "B"]:
    """The score of each image, in float32.

    Args:
      classifier: any.
      images: such as edited ones.
      targets: a hidden unit's activation is as it is; a function is of the output.
      output: "sigmoid" whatever the classifier's logits mean.
    """
    if isinstance(targets, Unit):
        parts = cut(classifier, images, NamedLayer(INPUT), targets)
        return parts.scores(images, images, targets).astype(jnp.float32)
    if output == "probability":
        return target_scores(probabilities(classifier, images), targets)
    logits = classifier(images).astype(jnp.float32)
    if output == "sigmoid":
        logits = jax.nn.sigmoid(logits)
    return target_scores(logits, targets)
