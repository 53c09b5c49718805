"""Whether examples that were made against one classifier fool another."""

from collections.abc import Callable, Mapping, Sequence
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
      hit: whether it takes that image for the target; None: there was none.
      attacked: the images that were made against each.
    """

    right: Bool[np.ndarray, "J B"]
    fooled: Bool[np.ndarray, "J J B"]
    hit: Bool[np.ndarray, "J J B"] | None
    attacked: Float[np.ndarray, "J B H W 3"]


def try_on_all(
    classifiers: Sequence[Classifier],
    images: UInt8[np.ndarray, "B H W 3"],
    labels: Int[np.ndarray, "B"],
    attack: Attack,
    targeted: bool = False,
) -> Outcome:
    """Attacks each classifier, and shows what was made to all of them.

    Args:
      classifiers: J of them, of the same classes and the same size of image.
      images: in bytes.
      labels: their true classes.
      attack: away from the labels that it is given, or towards them.
      targeted: whether towards; each attack is then given the wrong classes that the
        attacked classifier holds least likely (Kurakin et al., arXiv 1607.02533).
    """
    x, true = jnp.asarray(images), jnp.asarray(labels)
    given = [_least_likely(m, x, true) if targeted else true for m in classifiers]
    attacked = [attack(m, x, of) for m, of in zip(classifiers, given, strict=True)]
    before = np.stack([_answers(m, x) for m in classifiers])
    after = np.stack([[_answers(m, made) for m in classifiers] for made in attacked])
    hit = after == np.stack(given)[:, None] if targeted else None
    return Outcome(before == labels, after != labels, hit, np.stack(attacked))


@jax.jit
def _answers(classifier: Classifier, images: Array) -> Int[Array, "B"]:
    return jnp.argmax(classifier(images), axis=-1)


@jax.jit
def _least_likely(
    classifier: Classifier, images: Array, labels: Int[Array, "B"]
) -> Int[Array, "B"]:
    logits = classifier(images)
    true = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.argmin(jnp.where(true, jnp.inf, logits), axis=-1)


def rates(
    names: Sequence[str],
    right: Bool[np.ndarray, "J n"],
    fooled: Bool[np.ndarray, "J J n"],
    hit: Bool[np.ndarray, "J J n"] | None = None,
) -> dict[str, Mapping[str, dict[str, object]]]:
    """The share of its right answers that each classifier loses to each attack.

    Args:
      names: of the classifiers.
      right: see `Outcome`, of all images.
      fooled: likewise.
      hit: likewise.

    Returns:
      Of the classifier that was attacked and the one that was asked `{"share",
      "interval", "images"}`, with Wilson's interval of 95 %; the share is None where
      the one that was asked has no image right. With targets also `"target_share"` and
      `"target_interval"`, of the same images: those that it takes for the target.
    """
    table: dict[str, dict[str, dict[str, object]]] = {}
    for i, made in enumerate(names):
        table[made] = {}
        for j, (asked, had) in enumerate(zip(names, right, strict=True)):
            share, interval = _share(had, fooled[i, j])
            of = {"share": share, "interval": interval, "images": int(had.sum())}
            if hit is not None:
                of["target_share"], of["target_interval"] = _share(had, hit[i, j])
            table[made][asked] = of
    return table


def _share(
    had: Bool[np.ndarray, "n"], holds: Bool[np.ndarray, "n"]
) -> tuple[float | None, list[float] | None]:
    count, hits = int(had.sum()), int((had & holds).sum())
    if not count:
        return None, None
    return hits / count, list(wilson_interval(hits, count))
