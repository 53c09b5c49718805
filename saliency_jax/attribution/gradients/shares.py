"""Shares of pixels, or of a layer's activations, in a difference of two scores."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from saliency_jax.attribution.gradients.at_layers import gradients_at
from saliency_jax.attribution.layers import AskedLayer, Cut, Targets, cut
from saliency_jax.attribution.maps import Maps, Reduction, Upsampling, to_maps
from saliency_jax.models.classifier import Classifier

Aux = dict[str, Float[Array, "B"]]

MapsAndGap = Maps | tuple[Maps, Aux]
"""Maps, or with `return_aux` a pair of them and `{"completeness_gap": [B]}`."""


def share(
    parts: Cut,
    nodes: Float[Array, "B 1 1 1"] | float,
    images: Float[Array, "B H W C"],
    starts: Float[Array, "B h w D"],
    ends: Float[Array, "B h w D"],
    targets: Targets,
) -> Float[Array, "B h w D"]:
    """The way from start to end in a layer, times the gradient at a point of it.

    Args:
      parts: the classifier, cut at the layer.
      nodes: where on the way, in [0, 1].
      images: count where a connection skips the layer.
      starts: what the layer gives, in its own type.
      ends: likewise.
      targets: what is explained.
    """
    change = ends.astype(jnp.float32) - starts
    at = (starts + nodes * change).astype(starts.dtype)
    return change * gradients_at(parts, images, at, targets)


@jax.jit
def scores(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    at: Float[Array, "B h w D"],
    targets: Targets,
) -> Float[Array, "B"]:
    """The scores where the layer gives something else, in float32."""
    parts = cut(asked[0], images, asked[1], targets)
    return parts.scores(images, at, targets).astype(jnp.float32)


@partial(jax.jit, static_argnames=("size", "reduction", "upsampling"))
def maps_and_gap(
    shares: Float[Array, "B h w D"],
    difference: Float[Array, "B"] | None,
    size: tuple[int, int],
    reduction: Reduction,
    upsampling: Upsampling,
) -> tuple[Maps, Aux]:
    """Maps of an image's shares in a difference of scores, and what they lack of it."""
    maps = to_maps(shares, size, reduction, upsampling)
    if difference is None:
        return maps, {}
    return maps, {"completeness_gap": jnp.sum(shares, axis=(1, 2, 3)) - difference}
