"""Average drop, increase and gain: the class's probability for image times map.

Drop and increase: Chattopadhay et al., Grad-CAM++ (arXiv 1710.11063). With half of the
pixels muted: Wang et al., Score-CAM (arXiv 1910.01279).
"""

import math
from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    check_option,
    classes_only,
)
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.perturbation.edits import (
    scores_of_edits,
    scores_of_images,
)
from saliency_jax.metrics.faithfulness.questions import GivenMaps, ask_about, ranks

Variant = Literal["whole", "upper_half"]


class Confidence(NamedTuple):
    """Of each image; with p of the class for the image and q for what the map keeps.

    Attributes:
      drop: max(0, p - q) / p. In [0, 1]; lower is better.
      increase: whether q > p; the share of such images, higher is better.
      gain: max(0, q - p) / (1 - p). In [0, 1]; higher is better.
    """

    drop: Float[Array, "B"]
    increase: Bool[Array, "B"]
    gain: Float[Array, "B"]


def confidence(
    logits_fn: LogitsFn,
    images: GivenImages,
    maps: GivenMaps,
    targets: GivenTargets = None,
    *,
    batch_size: int | None = None,
    variant: Variant = "whole",
) -> Confidence:
    """How the class's probability changes when the map fades the image.

    A map is stretched to [0, 1]; where it is 0 the image has the mean colour, and in
    between it is between them. A constant map keeps nothing.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      maps: `[B, H, W]`, higher where a pixel counts more.
      targets: a class, or one for each image; None: the predicted class.
      batch_size: how many images go through the classifier at once; None means 32, or
        all images if they are more.
      variant: "upper_half" also removes the half of the pixels where the map is lowest,
        as in Score-CAM's experiments; equal ones from the last in raster order.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_option("variant", variant, get_args(Variant))
    asked, maps = ask_about(logits_fn, images, maps, targets, batch_size)
    classes_only("confidence", asked.targets)
    masks = _masks(maps, variant=variant)
    before = scores_of_images(asked, "probability")
    colour = jnp.asarray(asked.classifier.mean, jnp.float32)
    after = scores_of_edits(asked, _kept, (), 1, "probability", masks, colour)
    return _summary(before, after)


@partial(jax.jit, static_argnames="variant")
def _masks(maps: Float[Array, "B H W"], variant: Variant) -> Float[Array, "B H W"]:
    # The range of finite float32 need not be one.
    maps = quotient(maps, jnp.max(jnp.abs(maps), axis=(1, 2), keepdims=True))
    low = jnp.min(maps, axis=(1, 2), keepdims=True)
    range_ = jnp.max(maps, axis=(1, 2), keepdims=True) - low
    masks = quotient(maps - low, range_)
    if variant == "whole":
        return masks
    kept = -(-math.prod(maps.shape[1:]) // 2)
    return jnp.where(ranks(maps) < kept, masks, 0)


@jax.jit
def _summary(before: Float[Array, "B"], after: Float[Array, "B 1"]) -> Confidence:
    after = after[:, 0]
    return Confidence(
        drop=quotient(jnp.maximum(0, before - after), before),
        increase=after > before,
        gain=quotient(jnp.maximum(0, after - before), 1 - before),
    )


def _kept(
    static: tuple[()],
    sample: Int[Array, ""],
    image: Float[Array, "H W C"],
    mask: Float[Array, "H W"],
    colour: Float[Array, "C"],
) -> Float[Array, "H W C"]:
    colour = colour[None, None]
    return colour + mask[..., None] * (image - colour)
