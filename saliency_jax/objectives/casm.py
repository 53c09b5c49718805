"""CASM: the masker's objective and the published settings.

Zolna, Geras and Cho, "Classifier-agnostic saliency map extraction", 2018
(arXiv 1805.08249), with the constants of the authors' code (kondiz/casme).
"""

import dataclasses
import math
import re

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saliency_jax.errors import InputError
from saliency_jax.masking import mask_area
from saliency_jax.objectives import terms
from saliency_jax.types import Labels, Logits, Masks

SCORES = ("entropy", "classification")
VARIANTS = ("author", "paper")


@dataclasses.dataclass(frozen=True)
class Thinning:
    """Which past classifiers are kept, how often one is the critic, and the weights.

    Attributes:
      fixed_classifier: the classifier is never updated (the paper's Baseline).
      historic_probability: the chance that a step's critic comes from the pool.
      save_every: a classifier joins the pool every so many steps; 0 keeps only the
        first one (with a pool) or none (without).
      area_weight: the lambda of each score for 1,000 classes.
    """

    fixed_classifier: bool
    historic_probability: float
    save_every: int
    area_weight: dict[str, float]


def thinning(name: str) -> Thinning:
    """Returns the published settings of a thinning strategy.

    Args:
      name: "F" (fixed classifier), "L" (only the last), "FL" (first and last) or
        "Ln", such as "L100": the last and every n-th.

    Raises:
      InputError: for any other name.
    """
    if name == "F":
        return Thinning(True, 0.0, 0, {"entropy": 2.5, "classification": 9.0})
    if name == "L":
        return Thinning(False, 0.0, 0, {"entropy": 14.0, "classification": 18.0})
    if name == "FL":
        return Thinning(False, 0.5, 0, {"entropy": 7.5, "classification": 11.0})
    if match := re.fullmatch(r"L([1-9]\d*)", name):
        every = int(match[1])
        return Thinning(False, 0.5, every, {"entropy": 10.0, "classification": 17.0})
    raise InputError(
        f"unknown thinning strategy {name!r}: expected F, L, FL or L followed by a "
        "number of steps, such as L100"
    )


def published_area_weight(name: str, score: str) -> float:
    """The authors' lambda of a thinning strategy and a score, for 1,000 classes.

    Raises:
      InputError: for an unknown strategy or score.
    """
    if score not in SCORES:
        raise InputError(f"unknown score {score!r}: expected one of {SCORES}")
    return thinning(name).area_weight[score]


def scaled_area_weight(weight: float, num_classes: int) -> float:
    """A lambda for 1,000 classes, scaled to `num_classes` K: `weight * ln K / ln 1000`.

    The lambdas balance the area against an entropy, which is at most ln K.
    """
    return weight * math.log(num_classes) / math.log(1000)


def area_term(
    masks: Masks, counted: Bool[Array, "B"], weight: float
) -> Float[Array, "B"]:
    """`-weight * relu(counted - area)`: pushes the area down where `counted`.

    The author's code counts only the images that are classified correctly when clean
    and wrongly when masked out; elsewhere the area has no gradient. With every image
    counted this is the plain area penalty, less a constant.
    """
    return -weight * jnp.maximum(counted.astype(masks.dtype) - mask_area(masks), 0.0)


def score_term(
    critic_logits: Logits, labels: Labels, clean_correct: Bool[Array, "B"], score: str
) -> Float[Array, "B"]:
    """What the masker minimises on the critic's answer to the masked-out image.

    Args:
      critic_logits: of the masked-out images.
      labels: the true classes.
      clean_correct: the examples that count for the entropy score.
      score: "entropy" makes the critic uncertain (zero where not `clean_correct`);
        "classification" makes it wrong, on every example, as in the author's code.
    """
    if score == "entropy":
        return terms.negative_entropy(critic_logits) * clean_correct
    return -terms.cross_entropy(critic_logits, labels)


def masker_loss(
    critic_logits: Logits,
    masks: Masks,
    labels: Labels,
    clean_correct: Bool[Array, "B"],
    *,
    score: str,
    weight: float,
    variant: str,
) -> tuple[Float[Array, "B"], Float[Array, "B"], Bool[Array, "B"]]:
    """The two terms that the masker minimises, and which images counted for the area.

    Args:
      critic_logits: the critic's logits of the masked-out images.
      masks: in [0, 1], 1 = removed from the critic's view.
      labels: the true classes.
      clean_correct: whether the current classifier is right on the clean image.
      score: see `score_term`.
      weight: lambda, see `area_weight`.
      variant: "author" gates both terms as the authors' code does; "paper" is
        Algorithm 1 as printed, where every image counts.

    Returns:
      `(score_term, area_term, counted)`, each `[B]`.
    """
    masked_wrong = ~terms.is_correct(critic_logits, labels)
    everyone = jnp.ones_like(clean_correct)
    gate = clean_correct if variant == "author" else everyone
    counted = clean_correct & masked_wrong if variant == "author" else everyone
    return (
        score_term(critic_logits, labels, gate, score),
        area_term(masks, counted, weight),
        counted,
    )
