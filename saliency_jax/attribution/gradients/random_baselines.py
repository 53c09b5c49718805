"""Gradients at random points between an image and random baselines.

Erion, Janizek, Sturmfels, Lundberg and Lee: expected gradients (arXiv 1906.10670).
"""

from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from saliency_jax import prng
from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    by_channel,
    check_at_least,
    check_option,
    key_or_default,
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
from saliency_jax.errors import InputError
from saliency_jax.masking import to_float
from saliency_jax.models.classifier import Classifier

Points = Literal["stratified", "independent"]
"""How samples choose their places on the lines."""

_Random = tuple[
    Classifier,
    AskedLayer,
    Key[Array, ""],
    Num[Array, "R H W C"] | None,
    Float[Array, "C"] | None,
]


def expected_gradients(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    samples: int = 50,
    references: GivenImages | None = None,
    points: Points = "stratified",
    sigma: float | Float[Array | np.ndarray, "_"] | None = None,
    layer: Layer = None,
    reduction: Reduction = "sum",
    upsampling: Upsampling = "bilinear",
    return_aux: bool = False,
) -> MapsAndGap:
    """Integrated gradients in expectation over baselines, by random points of lines.

    Erion et al. (arXiv 1906.10670): the mean of `(x - x') * dS/dx (x' + a (x - x'))`
    over reference images x' and a in [0, 1]. In expectation the shares add up to
    S(x) less the mean score of the references. At a layer the lines are between what it
    gives, as in captum's `LayerGradientShap`.

    Each sample has its own reference. Captum's `GradientShap(stdevs)` has the law of
    `points="independent"` and `sigma=stdevs * std`, with std of the normalisation.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`.
      key: of the draws, which are the same for all images of a batch; None is
        `jax.random.key(0)`.
      batch_size: how many points of lines go through the classifier at once; None means
        32, or all images if they are more.
      samples: random points for each image.
      references: `[R, H, W, C]`, from which each sample draws one, such as training
        images; None: images of uniform noise in [0, 1].
      points: "stratified": each sample has an a of its own part of [0, 1], uniform in
        it: as a whole uniform, with less noise than "independent" draws.
      sigma: the standard deviation of normal noise on the image, other noise for each
        sample: one number, or one for each channel, of images in [0, 1]. None: no
        noise.
      layer: as for `gradient`.
      reduction: as for `gradient`.
      upsampling: as for `gradient`.
      return_aux: whether the completeness gap is returned too.

    Returns:
      float32 maps, signed unless the reduction takes absolute values; in logits. With
      `return_aux` also `{"completeness_gap": [B]}`: the sum of an image's shares at the
      layer, of all channels, less the mean difference of the score between the image,
      with its noise, and the references that were drawn; 0 in expectation.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_at_least(1, samples=samples)
    check_option("points", points, get_args(Points))
    if references is not None:
        if references.shape[1:] != images.shape[1:] or not len(references):
            raise InputError(
                f"references of shape {references.shape} for images of shape "
                f"{images.shape}: expected at least one, of the same size"
            )
        references = jnp.asarray(references)
    if sigma is not None:
        sigma = by_channel("sigma", sigma, images.shape[-1])
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    random = key_or_default(key), references, sigma
    maps, aux = in_batches(
        _from_references,
        asked.batch_size,
        (asked.classifier, as_layer(layer or INPUT), *random),
        asked.images,
        asked.targets,
        samples=samples,
        points=points,
        at_once=asked.batch_size,
        reduction=reduction,
        upsampling=upsampling,
        return_aux=return_aux,
    )
    return (maps, aux) if return_aux else maps


def _from_references(
    asked: _Random,
    images: Float[Array, "B H W C"],
    targets: Targets,
    samples: int,
    points: Points,
    at_once: int,
    return_aux: bool,
    **options: Any,
) -> tuple[Maps, Aux]:
    noisy = asked[-1] is not None
    ends = None if noisy else activations(asked[:2], images)
    shares, difference = over_samples(
        _add_references,
        (jnp.zeros(activations_shape(asked[:2], images)), jnp.zeros(len(images))),
        len(images),
        samples,
        at_once,
        asked,
        images,
        ends,
        targets,
        points=points,
        with_scores=return_aux,
    )
    if return_aux and not noisy:
        difference += scores(asked[:2], images, ends, targets)
    difference = difference if return_aux else None
    return maps_and_gap(shares, difference, size=images.shape[1:3], **options)


@partial(jax.jit, static_argnames=("size", "samples", "points", "with_scores"))
def _add_references(
    means: tuple[Float[Array, "B h w D"], Float[Array, "B"]],
    i: Int[Array, ""],
    asked: _Random,
    images: Float[Array, "B H W C"],
    ends: Float[Array, "B h w D"] | None,
    targets: Targets,
    size: int,
    samples: int,
    points: Points,
    with_scores: bool,
) -> tuple[Float[Array, "B h w D"], Float[Array, "B"]]:
    """Adds shares and scores: less those of references, plus those of noisy images."""
    classifier, layer, key, references, sigma = asked
    chunk = chunk_of(i, size, len(images), samples)

    def drawn(sample: Int[Array, ""]) -> tuple[Array, Array]:
        of_reference, of_node = jax.random.split(jax.random.fold_in(key, sample))
        node = jax.random.uniform(of_node)
        if points == "stratified":
            node = (sample + node) / samples
        if references is None:
            return jax.random.uniform(of_reference, images.shape[1:]), node
        return references[
            jax.random.randint(of_reference, (), 0, len(references))
        ], node

    def noise(sample: Int[Array, ""]) -> Float[Array, "H W C"]:
        of_noise = prng.stream_key(key, "noise", sample)
        return jax.random.normal(of_noise, images.shape[1:])

    baselines, nodes = jax.vmap(drawn)(chunk.samples)
    if sigma is not None:
        shown, targets = chunk.of((images, targets))
        shown = shown + sigma[None, None, None] * jax.vmap(noise)(chunk.samples)
    else:
        shown, ends, targets = chunk.of((images, ends, targets))
    parts = cut(classifier, shown, layer, targets)
    starts = parts.activations(to_float(baselines).astype(jnp.float32))
    if sigma is not None:
        ends = parts.activations(shown)
    nodes = nodes[:, None, None, None]
    values = share(parts, nodes, shown, starts, ends, targets)
    shares = chunk.add(means[0], values / samples)
    if not with_scores:
        return shares, means[1]
    change = -parts.scores(shown, starts, targets).astype(jnp.float32)
    if sigma is not None:
        change += parts.scores(shown, ends, targets).astype(jnp.float32)
    return shares, chunk.add(means[1], change / samples)
