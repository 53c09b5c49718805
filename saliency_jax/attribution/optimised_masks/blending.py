"""What methods share that look for a mask: edited images, their scores, and lengths."""

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

Asked = Targets | Int[Array, "B n"]
"""What edited images are judged by: also several classes of each image."""


def edited_scores(
    classifier: Classifier,
    edited: Float[Array, "B H W C"],
    targets: Asked,
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


def mixed(
    images: Float[Array, "B H W C"],
    references: Float[Array, "B H W C"],
    masks: Float[Array, "#B H W"],
) -> Float[Array, "B H W C"]:
    """Where the mask is 1 the images, where it is 0 the references."""
    keep = masks[..., None]
    return keep * images + (1.0 - keep) * references


def blurred_by(
    pyramid: Float[Array, "B L H W C"], masks: Float[Array, "B H W"]
) -> Float[Array, "B H W C"]:
    """Images that are blurred the more the lower the mask: 0 takes the first level.

    Between two levels it is linear; at a mask of 1 the slope is that from below.
    """
    levels = pyramid.shape[1]
    places = masks * (levels - 1)
    below = jnp.clip(jnp.floor(jax.lax.stop_gradient(places)), 0, levels - 2)
    above = places - below
    which = jnp.arange(levels)[None, :, None, None] - below[:, None]
    weights = jnp.where(which == 0, 1.0 - above[:, None], 0.0)
    weights = weights + jnp.where(which == 1, above[:, None], 0.0)
    return jnp.einsum("blhw,blhwc->bhwc", weights, pyramid)


def median_blur(images: Float[Array, "B H W C"], reach: int) -> Float[Array, "B H W C"]:
    """The median of the square around each pixel; edge pixels are repeated outwards.

    Args:
      images: of any range.
      reach: the square has `2 * reach + 1` pixels a side.
    """
    side = 2 * reach + 1
    padding = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded = jnp.pad(images, padding, "edge")
    width = images.shape[2]

    def row(y: Int[Array, ""]) -> Float[Array, "B W C"]:
        near = jax.lax.dynamic_slice_in_dim(padded, y, side, axis=1)
        near = jnp.stack([near[:, :, x : x + width] for x in range(side)], axis=1)
        return jnp.median(near, axis=(1, 2))

    # A row at a time: all windows at once would be 121 times the images.
    return jnp.moveaxis(jax.lax.map(row, jnp.arange(images.shape[1])), 0, 1)


def shifted(
    images: Float[Array, "B H W C"], shift: Int[Array, "2"], shifts: int
) -> Float[Array, "B H W C"]:
    """Images mirrored outwards and cut out again, 0 to `shifts - 1` pixels on."""
    before = shifts // 2
    sides = (before, shifts - 1 - before)
    padded = jnp.pad(images, ((0, 0), sides, sides, (0, 0)), "symmetric")
    return jax.lax.dynamic_slice(padded, (0, *shift, 0), images.shape)
