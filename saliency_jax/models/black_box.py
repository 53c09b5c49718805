"""The classifier that the stage `black_box` explains: one of ours, or any function."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier, logits_of
from saliency_jax.models.create import create_classifier
from saliency_jax.models.own_network import find_function


def create_black_box(config: Mapping[str, Any] | ConfigDict) -> Classifier:
    """Returns the black box of a run's config.

    With `classifier.function` it is that function, complete; else a network without
    variables, to be filled in by `replace`.

    Args:
      config: of a run of the stage `black_box`.

    Raises:
      InputError: there is no such function or network.
    """
    section, data = config["classifier"], config["data"]
    if section["function"]:
        return own_black_box(section["function"], section["output"])
    return Classifier(
        {},
        create_classifier(section),
        data["mean"],
        data["std"],
        data["class_names"],
        section["output"],
    )


def own_black_box(
    name: str, output: str = "softmax", flag: str = "config.classifier.function"
) -> Classifier:
    """Returns the user's function, or `Classifier`, of that name as a classifier.

    Args:
      name: `package.module:function`, of a function from float32 images in [0, 1] to
        logits.
      output: what the logits mean, one of `models.classifier.OUTPUTS`. A `Classifier`
        says it itself.
      flag: what a message calls the name.

    Raises:
      InputError: there is nothing of that name.
    """
    function = find_function(name, flag)
    if isinstance(function, Classifier):
        return function
    return Classifier.from_function(function, output=output)


def count_classes(classifier: Classifier, name: str, image_size: int) -> int:
    """How many logits a user's function gives.

    Raises:
      InputError: it gives no logits `[B, K]` for images `[B, H, W, 3]`, or only one.
    """
    one = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    logits = logits_of.eval_shape(classifier, one)
    if logits.shape[1] < 2:
        raise InputError(
            f"{name} gives one logit for each image: expected one for each of two or "
            "more classes"
        )
    return logits.shape[1]
