"""What a layer gives, and the gradient of the scores there."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from saliency_jax.attribution.layers import INPUT, AskedLayer, Cut, Targets, cut
from saliency_jax.masking import mean_infill
from saliency_jax.models.classifier import Classifier


def layer_gradients(
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    targets: Targets,
    layer: AskedLayer,
) -> tuple[Float[Array, "B h w D"], Float[Array, "B h w D"]]:
    """What a layer gives, and the gradient of the scores with respect to it."""
    parts = cut(classifier, images, layer, targets)
    at = parts.activations(images)
    return at.astype(jnp.float32), gradients_at(parts, images, at, targets)


def gradients_at(
    parts: Cut,
    images: Float[Array, "B H W C"],
    at: Float[Array, "B h w D"],
    targets: Targets,
) -> Float[Array, "B h w D"]:
    """The gradient of the scores where the layer gives something else, in float32.

    Images do not meet in a classifier, so the gradient of the sum has that of each.
    """
    gradients = jax.grad(lambda at: jnp.sum(parts.scores(images, at, targets)))(at)
    return gradients.astype(jnp.float32)


def origin(classifier: Classifier, layer: AskedLayer) -> Float[Array, "1 1 1 _"]:
    """What counts as nothing: the mean colour of images, zero at a layer."""
    if is_input(layer):
        return mean_infill(classifier.mean)
    return jnp.zeros((1, 1, 1, 1))


def activations(
    asked: tuple[Classifier, AskedLayer], images: Float[Array, "B H W C"]
) -> Float[Array, "B h w D"]:
    """What a layer gives; of the input the images themselves."""
    return images if is_input(asked[1]) else _activations(asked, images)


def activations_shape(
    asked: tuple[Classifier, AskedLayer], images: Float[Array, "B H W C"]
) -> tuple[int, ...]:
    """The shape of what a layer gives, `[B, h, w, D]`."""
    if is_input(asked[1]):
        return images.shape
    return _activations.eval_shape(asked, images).shape


def is_input(layer: AskedLayer) -> bool:
    """Whether a layer is the images themselves."""
    return getattr(layer, "name", None) == INPUT


@jax.jit  # keeps what it has traced, also where only the shape is asked for
def _activations(
    asked: tuple[Classifier, AskedLayer], images: Float[Array, "B H W C"]
) -> Float[Array, "B h w D"]:
    return cut(asked[0], images, asked[1]).activations(images)
