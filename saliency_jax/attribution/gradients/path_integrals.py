"""Gradients summed up on a straight line from a baseline to the image.

Sundararajan, Taly and Yan: Axiomatic attribution for deep networks (arXiv 1703.01365).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_at_least,
    check_option,
    with_targets,
)
from saliency_jax.attribution.batching import chunk_of, in_batches, over_samples
from saliency_jax.attribution.gradients.at_layers import activations
from saliency_jax.attribution.gradients.shares import (
    Aux,
    MapsAndGap,
    maps_and_gap,
    scores,
    share,
)
from saliency_jax.attribution.layers import (
    INPUT,
    AskedLayer,
    Layer,
    Targets,
    as_layer,
    cut,
)
from saliency_jax.attribution.maps import Maps, Reduction, Upsampling
from saliency_jax.errors import InputError
from saliency_jax.masking import colour_to_float
from saliency_jax.models.classifier import Classifier

Quadrature = Literal["midpoint", "gauss_legendre", "trapezoid", "captum_trapezoid"]
"""Where on the way gradients are taken, and their weights."""

Baseline = float | Sequence[float] | Num[Array | np.ndarray, "..."] | None
"""A number, a colour `[C]`, an image `[H, W, C]` or one for each image; floats in
[0, 1], images may be `uint8`. None: the mean colour of the classifier."""


def integrated_gradients(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    steps: int = 50,
    baseline: Baseline = None,
    quadrature: Quadrature = "midpoint",
    layer: Layer = None,
    reduction: Reduction = "sum",
    upsampling: Upsampling = "bilinear",
    return_aux: bool = False,
) -> MapsAndGap:
    """The gradient all the way from a baseline, times the way: shares of a score.

    Sundararajan et al. (arXiv 1703.01365), equation 1: with x the image, b the baseline
    and S the score, `(x - b) * integral of dS/dx (b + a (x - b)) da` over a in [0, 1].
    The shares add up to S(x) - S(b), but for the error of the sum in the place of the
    integral. At a layer, as in captum's `LayerIntegratedGradients`, the line is that
    between what the layer gives for the baseline and for the image.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`.
      key: not used; all methods take one.
      batch_size: how many points of lines go through the classifier at once; None means
        32, or all images if they are more.
      steps: points on each line; at least 2 for the trapezoid rules.
      baseline: what counts as nothing; see `Baseline`.
      quadrature: "midpoint" of equal parts; "gauss_legendre" as captum's default;
        "trapezoid" with both ends at half weight, as xplique's; "captum_trapezoid" the
        same but for weights that add up to (steps - 1) / steps, as captum's
        `riemann_trapezoid`, whose shares miss that part of the score.
      layer: as for `gradient`.
      reduction: as for `gradient`.
      upsampling: as for `gradient`.
      return_aux: whether the completeness gap is returned too.

    Returns:
      float32 maps, signed unless the reduction takes absolute values; in logits. With
      `return_aux` also `{"completeness_gap": [B]}`: the sum of an image's shares at the
      layer, of all channels, less the difference of the score between the line's ends.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    nodes_and_weights(steps, quadrature)
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    maps, aux = in_batches(
        _on_lines,
        asked.batch_size,
        (asked.classifier, as_layer(layer or INPUT)),
        asked.images,
        _baselines(asked.classifier, asked.images, baseline),
        asked.targets,
        steps=steps,
        quadrature=quadrature,
        at_once=asked.batch_size,
        reduction=reduction,
        upsampling=upsampling,
        return_aux=return_aux,
    )
    return (maps, aux) if return_aux else maps


def nodes_and_weights(
    steps: int, quadrature: str
) -> tuple[Float[np.ndarray, "{steps}"], Float[np.ndarray, "{steps}"]]:
    """Points in [0, 1], and weights that add up to 1, of "captum_trapezoid" to less.

    Raises:
      InputError: there are too few steps, or the rule is unknown.
    """
    check_option("quadrature", quadrature, get_args(Quadrature))
    check_at_least(1, steps=steps)
    if quadrature == "midpoint":
        nodes, weights = (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    elif quadrature == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        nodes, weights = (nodes + 1) / 2, weights / 2
    else:
        if steps < 2:
            raise InputError(
                "steps of the trapezoid rule is 1: it must be at least 2, since both "
                "ends of the line are among them"
            )
        parts = steps if quadrature == "captum_trapezoid" else steps - 1
        nodes, weights = np.linspace(0, 1, steps), np.full(steps, 1 / parts)
        weights[[0, -1]] /= 2
    return nodes.astype(np.float32), weights.astype(np.float32)


def _baselines(
    classifier: Classifier, images: Float[Array, "B H W C"], baseline: Baseline
) -> Float[Array, "B _ _ C"]:
    """A baseline of each image; of one pixel where it has one colour."""
    baseline = classifier.mean if baseline is None else baseline
    given = colour_to_float("baseline", baseline)
    channels = images.shape[-1]
    if given.shape not in ((), (channels,), images.shape[1:], images.shape):
        raise InputError(
            f"baseline of shape {given.shape} for images of shape {images.shape}: "
            f"expected a number, a colour ({channels},), an image, or one for each"
        )
    given = given.reshape((1,) * (4 - given.ndim) + given.shape)
    return jnp.broadcast_to(given, (len(images), *given.shape[1:3], channels))


def _on_lines(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    baselines: Float[Array, "B _ _ C"],
    targets: Targets,
    steps: int,
    quadrature: Quadrature,
    at_once: int,
    return_aux: bool,
    **options: Any,
) -> tuple[Maps, Aux]:
    starts = activations(asked, jnp.broadcast_to(baselines, images.shape))
    ends = activations(asked, images)
    shares = over_samples(
        _add_points,
        jnp.zeros(ends.shape),
        len(images),
        steps,
        at_once,
        asked,
        images,
        (starts, ends),
        targets,
        quadrature=quadrature,
    )
    difference = None
    if return_aux:
        difference = scores(asked, images, ends, targets)
        difference -= scores(asked, images, starts, targets)
    return maps_and_gap(shares, difference, size=images.shape[1:3], **options)


@partial(jax.jit, static_argnames=("size", "samples", "quadrature"))
def _add_points(
    shares: Float[Array, "B h w D"],
    i: Int[Array, ""],
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    lines: tuple[Float[Array, "B h w D"], Float[Array, "B h w D"]],
    targets: Targets,
    size: int,
    samples: int,
    quadrature: Quadrature,
) -> Float[Array, "B h w D"]:
    chunk = chunk_of(i, size, len(images), samples)
    nodes, weights = (
        jnp.asarray(x)[chunk.samples][:, None, None, None]
        for x in nodes_and_weights(samples, quadrature)
    )
    images, (starts, ends), targets = chunk.of((images, lines, targets))
    parts = cut(asked[0], images, asked[1], targets)
    values = share(parts, nodes, images, starts, ends, targets)
    return chunk.add(shares, weights * values)
