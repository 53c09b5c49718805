"""Class activation maps without gradients: what each channel keeps of the image.

Wang et al.: Score-CAM (arXiv 1910.01279).
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

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
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.layers import (
    AskedLayer,
    Layer,
    Targets,
    Unit,
    as_layer,
    cut,
)
from saliency_jax.attribution.maps import Maps, Upsampling, upsampled
from saliency_jax.attribution.scores import scores_of
from saliency_jax.errors import InputError
from saliency_jax.masking import mean_infill
from saliency_jax.models.classifier import Classifier

Channels = Float[Array, "B D h w"]


def score_cam(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    layer: Layer = None,
    variant: Literal["paper", "author"] = "paper",
    max_channels: int | None = None,
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """Channels weighted by the score of the image where they are active.

    Wang et al. (arXiv 1910.01279), algorithm 1: channel k, made as large as the image
    (bilinear) and stretched to [0, 1], is a mask; `s_k` is the score of the image
    times the mask, in the classifier's normalised space: a mask of 0 shows the mean
    colour. The map is `ReLU(sum_k softmax(s)_k A_k)`. The score of a baseline that the
    paper subtracts cancels in the softmax. The variant "author", the author's code,
    weighs channels by the class's probability, without a softmax over channels, and
    takes the ReLU after upsampling. Constant channels make no mask, and are left out.

    It costs as many forward passes as the layer has channels.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: a class, or one for each image; a function from an image's logits `[K]`
        (of "author": its probabilities) to a number; a `Unit` of a layer, for "paper";
        None for the predicted class.
      key: not used; all methods take one.
      batch_size: how many images and masked images go through the classifier at once;
        None means 32, or all images if they are more.
      layer: see `attribution.layers`; None: the activation after the last convolution.
      variant: "paper" or "author".
      max_channels: how many channels of each image are scored, those of greatest
        standard deviation, as Faster Score-CAM in tf-keras-vis does; None: all.
      upsampling: to the images' size: "bilinear", "nearest", or None, which leaves the
        layer's size.

    Returns:
      float32 maps, not negative, in units of the activations.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_option("variant", variant, ("paper", "author"))
    if max_channels is not None:
        check_at_least(1, max_channels=max_channels)
    if variant == "author" and isinstance(targets, Unit):
        raise InputError(
            "variant='author' weighs channels by a probability, which a hidden unit "
            "has not: use variant='paper'"
        )
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    return in_batches(
        _of_images,
        asked.batch_size,
        (asked.classifier, as_layer(layer)),
        asked.images,
        asked.targets,
        variant=variant,
        max_channels=max_channels,
        upsampling=upsampling,
        at_once=asked.batch_size,
    )


def _of_images(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    targets: Targets,
    variant: str,
    max_channels: int | None,
    upsampling: Upsampling,
    at_once: int,
) -> Maps:
    """Maps of no more images than go through the classifier at once."""
    channels = _channels(asked, images, max_channels=max_channels)
    scores = over_samples(
        _with_scores,
        jnp.zeros(channels.shape[:2]),
        *channels.shape[:2],
        at_once,
        channels,
        asked[0],
        images,
        targets,
        output="probability" if variant == "author" else "logit",
    )
    return _summed(
        channels,
        scores,
        size=images.shape[1:3],
        variant=variant,
        upsampling=upsampling,
    )


@partial(jax.jit, static_argnames="max_channels")
def _channels(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    max_channels: int | None,
) -> Channels:
    """The channels that are scored, in float32."""
    classifier, layer = asked
    maps = cut(classifier, images, layer).activations(images).astype(jnp.float32)
    channels = jnp.transpose(maps, (0, 3, 1, 2))
    if max_channels is None or max_channels >= channels.shape[1]:
        return channels
    _, greatest = jax.lax.top_k(jnp.std(channels, axis=(2, 3)), max_channels)
    return jnp.take_along_axis(channels, greatest[:, :, None, None], axis=1)


@partial(jax.jit, static_argnames=("size", "samples", "output"))
def _with_scores(
    scores: Float[Array, "B D"],
    i: Int[Array, ""],
    channels: Channels,
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    targets: Targets,
    size: int,
    samples: int,
    output: str,
) -> Float[Array, "B D"]:
    """Fills in the scores of the i-th chunk of pairs of an image and a channel."""
    chunk = chunk_of(i, size, len(images), samples)
    images, targets = chunk.of((images, targets))
    chosen = channels[chunk.rows, chunk.samples]
    masks = upsampled(chosen, images.shape[1:3], "bilinear")
    masks = masks - jnp.min(masks, axis=(1, 2), keepdims=True)
    masks = quotient(masks, jnp.max(masks, axis=(1, 2), keepdims=True))
    mean = mean_infill(classifier.mean)
    masked = mean + masks[..., None] * (images - mean)
    return chunk.put(scores, scores_of(classifier, masked, targets, output))


@partial(jax.jit, static_argnames=("size", "variant", "upsampling"))
def _summed(
    channels: Channels,
    scores: Float[Array, "B D"],
    size: tuple[int, int],
    variant: str,
    upsampling: Upsampling,
) -> Maps:
    varies = jnp.max(channels, axis=(2, 3)) > jnp.min(channels, axis=(2, 3))
    if variant == "author":
        weights = jnp.where(varies, scores, 0.0)
    else:
        shown = jnp.where(varies, scores, -jnp.inf)
        weights = jnp.where(varies, jax.nn.softmax(shown, axis=-1), 0.0)
    summed = jnp.einsum("bd,bdhw->bhw", weights, channels, precision="highest")
    if variant == "author":
        return jax.nn.relu(upsampled(summed, size, upsampling))
    return upsampled(jax.nn.relu(summed), size, upsampling)
