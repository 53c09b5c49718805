"""Whether examples that were made against one classifier fool another."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from saliency_jax.metrics.intervals import wilson_interval
from saliency_jax.models.classifier import Classifier

Attack = Callable[[Classifier, Array, Array], Float[Array, "B H W 3"]]
"""Called as `attack(classifier, images, labels)`."""


class Outcome(NamedTuple):
    """What became of some images.

    Attributes:
      right: whether each of J classifiers has the image right as it is.
      fooled: whether it is wrong about the image that was made against each of the J.
      attacked: the images that were made against each.
    """

    right: Bool[np.ndarray, "J B"]
    fooled: Bool[np.ndarray, "J J B"]
    attacked: Float[np.ndarray, "J B H W 3"]


def try_on_all(
    classifiers: Sequence[Classifier],
    images: UInt8[np.ndarray, "B H W 3"],
    labels: Int[np.ndarray, "B"],
    attack: Attack,
) -> Outcome:
    """Attacks each classifier, and shows what was made to all of them.

    Args:
      classifiers: J of them, of the same classes and the same size of image.
      images: in bytes.
      labels: their true classes.
      attack: away from the labels.
    """
    true = jnp.asarray(labels)
    is_wrong = partial(_is_wrong, labels=true)
    attacked = [attack(model, jnp.asarray(images), true) for model in classifiers]
    return Outcome(
        ~np.stack([is_wrong(model, images) for model in classifiers]),
        np.stack([[is_wrong(m, made) for m in classifiers] for made in attacked]),
        np.stack(attacked),
    )


@jax.jit
def _is_wrong(
    classifier: Classifier, images: Array | np.ndarray, labels: Int[Array, "B"]
) -> Bool[Array, "B"]:
    return jnp.argmax(classifier(images), axis=-1) != labels


def rates(
    names: Sequence[str],
    right: Bool[np.ndarray, "J n"],
    fooled: Bool[np.ndarray, "J J n"],
) -> dict[str, Mapping[str, dict[str, object]]]:
    """The share of its right answers that each classifier loses to each attack.

    Args:
      names: of the classifiers.
      right: see `Outcome`, of all images.
      fooled: likewise.

    Returns:
      Of the classifier that was attacked and the one that was asked `{"share",
      "interval", "images"}`, with Wilson's interval of 95 %; the share is None where
      the one that was asked has no image right.
    """
    table: dict[str, dict[str, dict[str, object]]] = {}
    for made, of_made in zip(names, fooled, strict=True):
        table[made] = {}
        for asked, had, wrong in zip(names, right, of_made, strict=True):
            count, hits = int(had.sum()), int((had & wrong).sum())
            share = hits / count if count else None
            interval = list(wilson_interval(hits, count)) if count else None
            table[made][asked] = {"share": share, "interval": interval, "images": count}
    return table
