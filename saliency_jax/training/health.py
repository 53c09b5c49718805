"""Runs that go on and lead nowhere: what the figures of some steps say of it."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ml_collections import ConfigDict

from saliency_jax.objectives import casm

EMPTY, FULL = 0.005, 0.995  # mean masks that hide nothing, or everything
GUESSING = 1.05  # times the loss of equal probabilities
CERTAIN = 0.02  # how near to 0 and 1 a discriminator's mean answers are
PATIENCE = 3  # how often in a row the figures have to say so


class Sign(NamedTuple):
    """What figures may say.

    Attributes:
      is_there: whether they do, by their names.
      words: for a person: what it is, and what to do.
    """

    is_there: Callable[[Mapping[str, float]], bool]
    words: str


def watch(config: ConfigDict) -> Callable[[Mapping[str, float]], list[str]]:
    """Returns a function that is told the figures of each interval, and warns.

    It says a thing once, when it has been so for `PATIENCE` intervals, and again only
    after it has been otherwise.

    Args:
      config: of the run, resolved.
    """
    signs = signs_of(config)
    in_a_row = [0] * len(signs)

    def warnings(values: Mapping[str, float]) -> list[str]:
        for number, sign in enumerate(signs):
            in_a_row[number] = in_a_row[number] + 1 if sign.is_there(values) else 0
        pairs = zip(signs, in_a_row, strict=True)
        return [sign.words for sign, count in pairs if count == PATIENCE]

    return warnings


def signs_of(config: ConfigDict) -> tuple[Sign, ...]:
    """What can go wrong without a figure that is not finite, in a stage."""
    if config.stage == "generator":
        return (
            Sign(
                lambda values: (
                    values.get("fake_probability", 1) < CERTAIN
                    and values.get("real_probability", 0) > 1 - CERTAIN
                ),
                "the discriminator tells all images from the generator's, which learns "
                "little from it: lower config.discriminator.optimiser.learning_rate",
            ),
        )
    signs = []
    if config.classifier.output == "softmax":
        limit = GUESSING * math.log(config.classifier.num_classes)
        name = {"classifier": "loss", "casm": "clean_loss"}.get(config.stage, "")
        signs.append(
            Sign(
                lambda values: values.get(name, 0) > limit,
                f"the classifier's loss is above {limit:.2f}, worse than giving each "
                "of the classes the same probability: lower "
                "config.classifier.optimiser.learning_rate",
            )
        )
    if config.stage != "classifier":
        field = f"config.{config.stage}"
        field += ".area_factor" if config.stage == "casm" else ".area_weight"
        signs += [
            Sign(
                lambda values: values.get("mask_mean", 1) < EMPTY,
                f"the masks are empty and hide nothing: lower {field}",
            ),
            Sign(
                lambda values: values.get("mask_mean", 0) > FULL,
                f"the masks are full and hide the whole image: raise {field}",
            ),
        ]
    return tuple(signs)


def pool_outlook(config: ConfigDict) -> str | None:
    """Says how full a run's pool will be, where it will never be full.

    Args:
      config: of a run of the stage casm, resolved.
    """
    every = casm.thinning(config.casm.thinning).save_every
    slots = config.casm.pool_slots
    kept = 1 + config.total_steps // every if every else slots
    if kept >= slots:
        return None
    return (
        f"the pool has room for {slots} past classifiers and one joins every {every} "
        f"steps, so that this run of {config.total_steps} steps never has more than "
        f"{kept}: choose a smaller n of thinning Ln to have more"
    )
