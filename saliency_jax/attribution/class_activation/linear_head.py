"""Class activation maps of a linear head: Zhou et al. (arXiv 1512.04150)."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.extend.core import Var
from jaxtyping import Array, Float, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_option,
)
from saliency_jax.attribution.batching import in_batches, is_traced
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.layers import (
    AskedLayer,
    Layer,
    Targets,
    as_layer,
    cut,
)
from saliency_jax.attribution.maps import Maps, Upsampling, upsampled
from saliency_jax.attribution.program import flattened, reached
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier

UNEVEN = 1e-3
"""How much the gradient may differ between positions, relative to its greatest value,
to be called constant: more than rounding."""

NEEDED = "cam needs a head of global average pooling and one linear layer"


def cam(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = None,
    variant: Literal["paper", "relu"] = "paper",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """Channels weighted by the last layer's weights for a class.

    Zhou et al. (arXiv 1512.04150), equation 2: `sum_k w_k A_k`, for a head of global
    average pooling and one linear layer of weights `w`. Its mean over positions and the
    bias make the logit. No layer needs to be named for the weights: they are the
    gradient with respect to the pooled activations.

    That the score is linear in the layer's maps is seen in the traced classifier. That
    all positions count alike is seen in the gradient; inside your own `jax.jit`, where
    its values are not known, it is not checked.

    Args:
      logits_fn: as for `grad_cam`.
      images: as for `grad_cam`.
      targets: as for `grad_cam`; a function must be linear.
      key: not used; all methods take one.
      batch_size: as for `grad_cam`.
      layer: as for `grad_cam`.
      variant: "paper", or "relu": without what is negative.
      upsampling: as for `grad_cam`.

    Returns:
      float32 maps in units of logits, signed; not negative for "relu".

    Raises:
      InputError: the head is another one, or as for `grad_cam`.
    """
    check_option("variant", variant, ("paper", "relu"))
    asked = ask(logits_fn, images, targets, batch_size)
    maps, unevenness = in_batches(
        _cam,
        asked.batch_size,
        (asked.classifier, as_layer(layer)),
        asked.images,
        asked.targets,
        variant=variant,
        upsampling=upsampling,
    )
    if not is_traced(unevenness) and float(jnp.max(unevenness)) > UNEVEN:
        raise InputError(
            f"{NEEDED}, but the layer's positions count differently: use grad_cam or "
            f"hires_cam"
        )
    return maps


@partial(jax.jit, static_argnames=("variant", "upsampling"))
def _cam(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    targets: Targets,
    variant: str,
    upsampling: Upsampling,
) -> tuple[Maps, Float[Array, "B"]]:
    """Returns the maps, and how far the head is from counting all positions alike."""
    classifier, layer = asked
    parts = cut(classifier, images, layer, targets)
    maps = parts.activations(images)
    if targets is None:
        targets = jnp.argmax(parts.logits(images, maps), axis=-1)
    score = lambda maps: jnp.sum(parts.scores(images, maps, targets))
    if not _is_linear(score, maps):
        raise InputError(
            f"{NEEDED}, but what is explained is not a linear function of the layer: "
            f"use the last layer before the pooling, or grad_cam"
        )
    gradients = jax.grad(score)(maps).astype(jnp.float32)
    mean = jnp.mean(gradients, axis=(1, 2), keepdims=True)
    greatest = jnp.max(jnp.abs(gradients), axis=(1, 2, 3))
    unevenness = jnp.max(jnp.abs(gradients - mean), axis=(1, 2, 3))
    weights = mean * maps.shape[1] * maps.shape[2]
    summed = jnp.sum(weights * maps.astype(jnp.float32), axis=-1)
    if variant == "relu":
        summed = jax.nn.relu(summed)
    maps = upsampled(summed, images.shape[1:3], upsampling)
    return maps, quotient(unevenness, greatest)


def _is_linear(function: Callable, at: Float[Array, "..."]) -> bool:
    """Whether a function's derivative is the same everywhere, whatever its constant.

    That is so if no equation of the derivative in a direction uses the place.
    """
    derivative = lambda at, direction: jax.jvp(function, (at,), (direction,))[1]
    jaxpr = flattened(jax.make_jaxpr(derivative)(at, at)).jaxpr
    (result,) = jaxpr.outvars
    of_place = reached(jaxpr.eqns, jaxpr.invars[0])
    return not (isinstance(result, Var) and result in of_place)
