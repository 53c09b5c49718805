"""What gives the masks of a row: a trained masker, or a descent for each image."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Int, Key

from saliency_jax import prng
from saliency_jax.attribution.optimised_masks.iterative_mask import (
    IterativeOptions,
    iterative_masks,
)
from saliency_jax.models.classifier import Classifier
from saliency_jax.removal import RemovalOptions
from saliency_jax.saliency import Masker
from saliency_jax.types import Images, Labels, Logits, Masks


class Explainer(NamedTuple):
    """What gives the masks of a row.

    Attributes:
      predict: from images, their true classes and their places in the data to masks and
        a classifier's logits. A pytree, whose arrays jitted code takes as arguments.
      image_size: side in pixels of the images that it is shown.
    """

    predict: Callable[..., tuple[Masks, Logits]]
    image_size: int


def trained(masker: Masker, image_size: int) -> Explainer:
    """A masker; one that shows the evidence of a class is asked for the true one.

    Args:
      masker: with a classifier.
      image_size: as for `Explainer`.
    """
    return Explainer(jax.tree_util.Partial(_predict, masker), image_size)


def _predict(
    masker: Masker, images: Images, labels: Labels, places: Int[Array, "B"]
) -> tuple[Masks, Logits]:
    return masker.predict(images, labels)


def iterative(
    classifier: Classifier, image_size: int, options: IterativeOptions, seed: int
) -> Explainer:
    """A descent for each image, without a masker, for the true class.

    Args:
      classifier: the black box.
      image_size: as for `Explainer`.
      options: of the descent.
      seed: of the draws; those of an image depend on its place in the data besides, not
        on its batch.
    """
    key = prng.stream_key(jax.random.key(seed), "iterative")
    optimise = functools.partial(_optimise, options)
    return Explainer(jax.tree_util.Partial(optimise, classifier, key), image_size)


def _optimise(
    options: IterativeOptions,
    classifier: Classifier,
    key: Key[Array, ""],
    images: Images,
    labels: Labels,
    places: Int[Array, "B"],
) -> tuple[Masks, Logits]:
    masks = iterative_masks(
        classifier, images, labels, key=key, places=places, options=options
    )
    return masks, classifier(images)


def iterative_options(config: Mapping[str, Any], iterations: int) -> IterativeOptions:
    """The authors' constants; but a black-box run says how evidence is removed.

    So its masker and the descent are asked the same; CASM's run has no such removal.

    Args:
      config: of the run, as it was filed.
      iterations: of each descent; the authors' code has 200.

    Raises:
      InputError: no iteration.
    """
    options = IterativeOptions(iterations=iterations)
    if config["stage"] != "black_box":
        return options
    return dataclasses.replace(options, removal=RemovalOptions(**config["removal"]))
