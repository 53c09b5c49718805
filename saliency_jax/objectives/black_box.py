"""The real-time masker's objective, as the paper states it and as the code has it.

Dabkowski and Gal: Real time image saliency for black box classifiers (arXiv
1705.07857). "paper" is its equation 3 with the constants that it names; "author" is
the code (PiotrDabkowski/pytorch-saliency), which differs in every term. Whether the
paper's total variation is a sum or a mean is open; it is a mean here, as in a later
use of its constants (NN-Explainer), which had to raise lambda 2 to one.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saliency_jax.errors import InputError
from saliency_jax.objectives.terms import log_probability
from saliency_jax.types import Labels, Logits, Masks

VARIANTS = ("author", "paper")
FAKES = ("inverted", "area_only")


@dataclasses.dataclass(frozen=True)
class BlackBoxOptions:
    """The constants of the objective; see `author_defaults` and `paper_defaults`.

    Attributes:
      variant: "author" or "paper".
      fake: what a mask of a class that is not there is asked for: "inverted", that its
        removal does not hurt the true class and what it keeps does not show it, or
        "area_only", that it is small.
      area_weight: lambda 2.
      area_power: of each pixel of the mask.
      area_offset: what is added to each pixel first, unless the power is one.
      smoothness_weight: lambda 1.
      border_weight: of the mask's squares at the image's border, within the smoothness;
        the code's only.
      preserver_weight: of the picture of the object alone.
      destroyer_weight: lambda 3, of the picture without the object.
      destroyer_power: lambda 4; the paper's only.
      strong_margin: that the true class should lose by; the code's only.
      weak_margin: of the other three margins; the code's only.

    Raises:
      InputError: for an unknown variant or fake.
    """

    variant: str
    fake: str
    area_weight: float
    area_power: float
    smoothness_weight: float
    border_weight: float
    preserver_weight: float
    destroyer_weight: float
    destroyer_power: float = 0.3
    strong_margin: float = 5.0
    weak_margin: float = 1.0
    area_offset: float = 0.0005

    def __post_init__(self) -> None:
        known = {"variant": VARIANTS, "fake": FAKES}
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                raise InputError(f"unknown {name} {value!r}: expected one of {values}")


AUTHOR = {
    "fake": "inverted",
    "area_weight": 8.0,
    "area_power": 0.3,
    "smoothness_weight": 0.005,
    "border_weight": 0.3,
    "preserver_weight": 0.3,
    "destroyer_weight": 1.0,
}
PAPER = {
    "fake": "area_only",
    "area_weight": 1e-3,
    "area_power": 1.0,
    "smoothness_weight": 10.0,
    "border_weight": 0.0,
    "preserver_weight": 1.0,
    "destroyer_weight": 5.0,
}


def published(variant: str) -> BlackBoxOptions:
    """The constants of the code that trained ("author") or of the paper.

    Raises:
      InputError: for an unknown variant.
    """
    constants = PAPER if variant == "paper" else AUTHOR
    return BlackBoxOptions(variant=variant, **constants)


def area(masks: Masks, power: float, offset: float) -> Float[Array, "B"]:
    """`mean((m + offset)^power)`; the plain mean where the power is one.

    A power below one makes the first pixels of a mask the dearest, and the offset keeps
    its gradient finite at zero.
    """
    if power == 1.0:
        return jnp.mean(masks, axis=(1, 2))
    return jnp.mean((masks + offset) ** power, axis=(1, 2))


def smoothness(masks: Masks, border_weight: float) -> Float[Array, "B"]:
    """Half the sum of squared differences of neighbours, and of squares at the border.

    A sum, not a mean, as in the code: it grows with the resolution. The corners count
    for both of their sides.
    """
    squares = lambda x: jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim)))
    differences = squares(masks[:, 1:] - masks[:, :-1]) + squares(
        masks[:, :, 1:] - masks[:, :, :-1]
    )
    borders = (masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1])
    return (differences + border_weight * sum(map(squares, borders))) / 2


def total_variation(masks: Masks) -> Float[Array, "B"]:
    """Mean squared difference of vertical neighbours plus that of horizontal ones."""
    mean = lambda x: jnp.mean(jnp.square(x), axis=(1, 2))
    return mean(masks[:, 1:] - masks[:, :-1]) + mean(masks[:, :, 1:] - masks[:, :, :-1])


def margin(logits: Logits, labels: Labels, output: str) -> Float[Array, "B"]:
    """By how much the true class wins: over the best other one, or over 0 (sigmoid)."""
    true = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    if output == "sigmoid":
        return true
    return true - jnp.max(_of_other_classes(logits, labels), axis=-1)


def _of_other_classes(logits: Logits, labels: Labels) -> Logits:
    """The logits with minus infinity for the true class."""
    classes = jnp.arange(logits.shape[-1])
    return jnp.where(classes[None] == labels[:, None], -jnp.inf, logits)


def log_other_probability(
    logits: Logits, labels: Labels, output: str
) -> Float[Array, "B"]:
    """log(1 - p) of the true class, exact also where p is nearly one."""
    if output == "sigmoid":
        return log_probability(-logits, labels, output)
    others = _of_other_classes(logits, labels)
    return jax.nn.logsumexp(others, axis=-1) - jax.nn.logsumexp(logits, axis=-1)


def black_box_loss(
    masks: Masks,
    kept_logits: Logits,
    removed_logits: Logits,
    labels: Labels,
    is_real: Bool[Array, "B"],
    options: BlackBoxOptions,
    output: str = "softmax",
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """The loss of each image, and its terms before they are weighted.

    Args:
      masks: in [0, 1], 1 = salient, as the masker drew them for the asked class.
      kept_logits: of the black box for the salient part alone.
      removed_logits: of the black box for the image without it.
      labels: the true classes, also where another class was asked for; of several in an
        image, the one that was asked for, or any.
      is_real: whether the true class was asked for.
      options: variant and constants.
      output: of the black box, one of `models.classifier.OUTPUTS`.

    Returns:
      The weighted sum `[B]`; "area", "smoothness", "preserver" and "destroyer", `[B]`
      each. With `fake="area_only"` only area and smoothness count for fakes.
    """
    if options.variant == "author":
        kept = margin(kept_logits, labels, output)
        removed = margin(removed_logits, labels, output)
        toward = lambda d: jax.nn.relu(options.weak_margin - d)
        away = lambda d, by: jax.nn.relu(by + d)
        weak, strong = options.weak_margin, options.strong_margin
        preserver = jnp.where(is_real, toward(kept), away(kept, weak))
        destroyer = jnp.where(is_real, away(removed, strong), toward(removed))
    else:
        kept = log_probability(kept_logits, labels, output)
        removed = log_probability(removed_logits, labels, output)
        # Exponents of logarithms: the power of a probability of 0 has no gradient.
        faded = jnp.exp(options.destroyer_power * removed)
        not_kept = -log_other_probability(kept_logits, labels, output)
        others = log_other_probability(removed_logits, labels, output)
        present = jnp.exp(options.destroyer_power * others)
        preserver = jnp.where(is_real, -kept, not_kept)
        destroyer = jnp.where(is_real, faded, present)
    counted = is_real | (options.fake == "inverted")
    if options.variant == "author":
        smooth = smoothness(masks, options.border_weight)
    else:
        smooth = total_variation(masks)
    terms = {
        "area": area(masks, options.area_power, options.area_offset),
        "smoothness": smooth,
        "preserver": preserver * counted,
        "destroyer": destroyer * counted,
    }
    loss = (
        options.area_weight * terms["area"]
        + options.smoothness_weight * terms["smoothness"]
        + options.preserver_weight * terms["preserver"]
        + options.destroyer_weight * terms["destroyer"]
    )
    return loss, terms
