"""Gradients summed up while an image grows out of its blur.

Xu, Venugopalan and Sundararajan: Attribution in scale and space (arXiv 2004.03383).
"""

import math
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_at_least,
    check_option,
    check_positive,
    with_targets,
)
from saliency_jax.attribution.batching import chunk_of, in_batches, over_samples
from saliency_jax.attribution.gradients.at_layers import (
    activations,
    activations_shape,
)
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
from saliency_jax.masking import mean_infill
from saliency_jax.models.classifier import Classifier

Spacing = Literal["linear", "square_root"]
"""How the blur's standard deviation grows with the steps."""


def blur_integrated_gradients(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    steps: int = 50,
    max_sigma: float = 50.0,
    spacing: Spacing = "linear",
    layer: Layer = None,
    reduction: Reduction = "sum",
    upsampling: Upsampling = "bilinear",
    return_aux: bool = False,
) -> MapsAndGap:
    """Integrated gradients on the path of an image's Gaussian blurs.

    Xu et al. (arXiv 2004.03383): with L(s) the image blurred by a standard deviation
    of s pixels, the integral of `dS/dL * dL/ds` over s from `max_sigma` to 0. The
    shares add up to the score of the image less that of its blur, but for the error of
    the sum in the place of the integral. Beyond its border an image goes on in the mean
    colour of the classifier, to which a wide blur tends: as in PAIR's `saliency`, whose
    border is 0, where images are normalised.

    A step's share is the difference between its two blurs, times the gradient half-way
    between them, so that a linear model has its exact shares whatever the steps. PAIR
    takes the derivative of the blur at the beginning of each step, times its width.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`.
      key: not used; all methods take one.
      batch_size: how many blurred images go through the classifier at once; None means
        32, or all images if they are more.
      steps: parts of the path.
      max_sigma: of the first blur, in pixels.
      spacing: of the standard deviations: "linear", or "square_root", in equal steps of
        the variance.
      layer: as for `gradient`; the path is that of what the layer gives for the blurs.
      reduction: as for `gradient`.
      upsampling: as for `gradient`.
      return_aux: whether the completeness gap is returned too.

    Returns:
      float32 maps, signed unless the reduction takes absolute values; in logits. With
      `return_aux` also `{"completeness_gap": [B]}`: the sum of an image's shares at the
      layer, of all channels, less the difference of the score between the path's ends.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_at_least(1, steps=steps)
    check_positive(max_sigma=max_sigma)
    sigmas(steps, max_sigma, spacing)
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    maps, aux = in_batches(
        _along_blurs,
        asked.batch_size,
        (asked.classifier, as_layer(layer or INPUT)),
        asked.images,
        asked.targets,
        steps=steps,
        max_sigma=max_sigma,
        spacing=spacing,
        at_once=asked.batch_size,
        reduction=reduction,
        upsampling=upsampling,
        return_aux=return_aux,
    )
    return (maps, aux) if return_aux else maps


def sigmas(
    steps: int, max_sigma: float, spacing: str
) -> Float[np.ndarray, "{steps}+1"]:
    """The standard deviations between the steps, from 0 to `max_sigma`.

    Raises:
      InputError: the spacing is unknown.
    """
    check_option("spacing", spacing, get_args(Spacing))
    parts = np.linspace(0, 1, steps + 1, dtype=np.float32)
    return max_sigma * (parts if spacing == "linear" else np.sqrt(parts))


def _along_blurs(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    targets: Targets,
    steps: int,
    max_sigma: float,
    spacing: Spacing,
    at_once: int,
    return_aux: bool,
    **options: Any,
) -> tuple[Maps, Aux]:
    shares = over_samples(
        _add_steps,
        jnp.zeros(activations_shape(asked, images)),
        len(images),
        steps,
        at_once,
        asked,
        images,
        targets,
        max_sigma=max_sigma,
        spacing=spacing,
    )
    difference = None
    if return_aux:
        blurs = _blurred(asked[0], images, jnp.full(len(images), max_sigma), max_sigma)
        difference = scores(asked, images, activations(asked, images), targets)
        difference -= scores(asked, images, activations(asked, blurs), targets)
    return maps_and_gap(shares, difference, size=images.shape[1:3], **options)


@partial(jax.jit, static_argnames=("size", "samples", "max_sigma", "spacing"))
def _add_steps(
    shares: Float[Array, "B h w D"],
    i: Int[Array, ""],
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    targets: Targets,
    size: int,
    samples: int,
    max_sigma: float,
    spacing: Spacing,
) -> Float[Array, "B h w D"]:
    classifier, layer = asked
    chunk = chunk_of(i, size, len(images), samples)
    images, targets = chunk.of((images, targets))
    parts = cut(classifier, images, layer, targets)
    edges = jnp.asarray(sigmas(samples, max_sigma, spacing))
    ends, starts = (
        parts.activations(
            _blurred(classifier, images, edges[chunk.samples + more], max_sigma)
        )
        for more in (0, 1)
    )
    return chunk.add(shares, share(parts, 0.5, images, starts, ends, targets))


@partial(jax.jit, static_argnames="max_sigma")
def _blurred(
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    sigmas: Float[Array, "B"],
    max_sigma: float,
) -> Float[Array, "B H W C"]:
    """Each image blurred by its standard deviation; the mean colour is around it."""
    mean = mean_infill(classifier.mean)
    rows, columns = (
        jax.vmap(lambda sigma, side=side: _blur_matrix(side, sigma, max_sigma))(sigmas)
        for side in images.shape[1:3]
    )
    product = partial(jnp.einsum, precision="highest")
    down = product("bhy,byxc->bhxc", rows, images - mean)
    return product("bwx,bhxc->bhwc", columns, down) + mean


def _blur_matrix(
    side: int, sigma: Float[Array, ""], max_sigma: float
) -> Float[Array, "side side"]:
    """The Gaussian blur of a line of pixels, with zeros around it."""
    weight = lambda offset: jnp.exp(-0.5 * (offset / jnp.maximum(sigma, 0.01)) ** 2)
    reach = math.ceil(4 * max_sigma)  # as far as SciPy's kernels
    total = jnp.sum(weight(jnp.arange(-reach, reach + 1)))
    places = jnp.arange(side)
    return weight(places[:, None] - places[None]) / total
