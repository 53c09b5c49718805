"""What methods share that look for a mask: scores of edited images, and lengths."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from saliency_jax.attribution.layers import INPUT, NamedLayer, Targets, Unit, cut
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.removal import REFERENCE_SIZE
from saliency_jax.types import PyTree


def edited_scores(
    classifier: Classifier,
    edited: Float[Array, "B H W C"],
    targets: Targets,
    of_classes: Callable[
        [Float[Array, "B H W C"], Int[Array, "B ..."]], Float[Array, "B"]
    ],
) -> Float[Array, "B"]:
    """The number that each edited image is judged by, in float32.

    Args:
      classifier: the black box.
      edited: in [0, 1].
      targets: not None, since what is predicted changes with the edits. A function or a
        hidden unit speaks for itself.
      of_classes: from edited images and classes.
    """
    if isinstance(targets, Unit):
        parts = cut(classifier, edited, NamedLayer(INPUT), targets)
        return parts.scores(edited, edited, targets).astype(jnp.float32)
    if callable(targets):
        return jax.vmap(targets)(classifier(edited).astype(jnp.float32))
    return of_classes(edited, targets)


def of_each_image(function: Callable[[Array], Array], tree: PyTree) -> PyTree:
    """Applies a function to arrays with an axis of images, such as those of targets.

    A target that is a function is for all images, and is left as it is.
    """
    is_function = lambda x: isinstance(x, Partial)
    return jax.tree.map(
        lambda x: x if is_function(x) else function(x), tree, is_leaf=is_function
    )


def classes_only(method: str, targets: Targets) -> Int[Array, "B"]:
    """Returns targets that must be classes.

    Raises:
      InputError: they are a function or a hidden unit.
    """
    if callable(targets) or isinstance(targets, Unit):
        raise InputError(
            f"{method} explains the probability of a class: pass a class, or one for "
            f"each image, not a function or a Unit"
        )
    return targets


def scaled(length: int | float, size: tuple[int, int]) -> float:
    """A length in an image of `size`, given in pixels of a 224x224 image.

    Published lengths are for such images; the shorter side counts.
    """
    return length * min(size) / REFERENCE_SIZE


def at_least(smallest: int, **options: int | float) -> None:
    """Checks options that must not be too small.

    Raises:
      InputError: one of them is below `smallest`.
    """
    for name, value in options.items():
        if value < smallest:
            raise InputError(f"{name} is {value}: it must be at least {smallest}")
