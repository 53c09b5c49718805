"""Acceptable variations: what else may stand in the salient part of an image.

Thakur and Fischmeister: A generalizable saliency map-based interpretation of model
outcome (arXiv 2006.09504), with the constants of their code
(shailja-thakur/generalizable-saliency). They vary the *salient* part of an image: the
content of the region B, which a map calls important, is generated, and the rest is
kept,

    X' = X * (1 - B) + B * G(z').

The generator is one of images, not of classes. The latent point z' is searched for so
that G(z') fits what is kept, B' = 1 - B, as in semantic inpainting (arXiv 1607.07539):

    z' = argmin  sum |W * B' * (G(z) - X)|  +  lambda * BCE(D(G(z)), 1),

where pixels run from -1 to 1 (in their code for 224 pixels the image is in other units
than the generator's), from many starts. Neither the search nor what is counted asks the
classifier: the share of the variations that it still calls the same class is taken over
all starts.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_at_least,
    classes_only,
    key_or_default,
    keys_of,
    with_targets,
)
from saliency_jax.attribution.batching import in_batches
from saliency_jax.errors import InputError
from saliency_jax.masking import check_images
from saliency_jax.metrics.baselines import rectangle_masks
from saliency_jax.metrics.map_boxes import grid_boxes
from saliency_jax.metrics.raw_maps import GivenMaps
from saliency_jax.models.generator import Generator, draw_latents
from saliency_jax.objectives.generator import generator_loss
from saliency_jax.objectives.terms import is_correct

GivenRegions = Num[np.ndarray | Array, "..."] | Bool[np.ndarray | Array, "..."]
"""What is generated of each image: boxes, integers `[B, 4]` as `ymin, xmin, ymax, xmax`
in pixels, half-open; or masks, bool `[B, H, W]`."""


class SearchOptions(NamedTuple):
    """The search for latent points.

    Attributes:
      steps: how many.
      realism_weight: lambda.
      window: side in pixels of the square over which the region's share makes W, so
        that what is near the region counts most; None: W is 1.
      step_size: of the descent.
      momentum: Nesterov's.
    """

    steps: int
    realism_weight: float
    window: int | None
    step_size: float = 0.01
    momentum: float = 0.9


PUBLISHED = {
    64: SearchOptions(steps=10_000, realism_weight=0.1, window=None),
    224: SearchOptions(steps=1000, realism_weight=0.005, window=70),
}
"""The authors' options, by the side of their images in pixels."""


def published_options(image_size: int) -> SearchOptions:
    """The authors' options for the size that is nearest to an image's."""
    return PUBLISHED[min(PUBLISHED, key=lambda size: abs(size - image_size))]


class Variations(NamedTuple):
    """The variations of some images.

    Attributes:
      images: the variations X', in [0, 1].
      regions: B.
      targets: the class of each image.
      predicted: the class that each variation is called.
      is_same: whether that is the target; of a classifier of several labels, whether
        the target is one of them.
      latents: z', in [-1, 1].
      context: the first term of the loss at z'.
      realism: the second, without lambda, in nats.
      losses: before each step of the search.
    """

    images: Float[Array, "B R H W 3"]
    regions: Bool[np.ndarray, "B H W"]
    targets: Int[Array, "B"]
    predicted: Int[Array, "B R"]
    is_same: Bool[Array, "B R"]
    latents: Float[Array, "B R Z"]
    context: Float[Array, "B R"]
    realism: Float[Array, "B R"]
    losses: Float[Array, "B R T"]

    @property
    def shares(self) -> Float[np.ndarray, "B"]:
        """Of each image the share of all its variations that keep the class."""
        return np.asarray(self.is_same).mean(axis=1)


def acceptable_variations(
    logits_fn: LogitsFn,
    generator: Generator,
    images: GivenImages,
    regions: GivenRegions,
    targets: GivenTargets = None,
    *,
    restarts: int = 64,
    options: SearchOptions | None = None,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
) -> Variations:
    """Generates the content of a region of each image anew, from many starts.

    Args:
      logits_fn: the classifier that is asked about the results, and about nothing else.
      generator: see `loading.load_generator`; of images of this size.
      images: `[B, H, W, 3]`, `uint8` or floats in [0, 1].
      regions: see `GivenRegions`; from a map, see `salient_regions`.
      targets: the class of each image, or one for all; None: the predicted one. The
        share is of the variations that are called so.
      restarts: R, variations of each image.
      options: None: see `published_options`.
      key: of the starts; that of a start depends on its number alone.
      batch_size: the most searches at once; None: 32, or one for each image.

    Returns:
      All variations, whatever the classifier calls them.

    Raises:
      InputError: the images have another size than the generator's, a region is empty,
        sticks out or leaves nothing to fit, or something else has another shape.
    """
    check_images(images, 3)
    check_at_least(1, restarts=restarts)
    size, (height, width) = generator.module.image_size, images.shape[1:3]
    if (height, width) != (size, size):
        raise InputError(
            f"images of {height}x{width} pixels, but the generator makes {size}x{size}:"
            " resize them, or train a generator of their size"
        )
    options = options or published_options(size)
    check_at_least(0, steps=options.steps)
    question = with_targets(ask(logits_fn, images, targets, batch_size))
    classes = classes_only("acceptable_variations", question.targets)
    masks = checked_regions(regions, len(images), size)
    pairs = jnp.arange(len(images) * restarts)
    shared = (
        question.classifier,
        generator,
        question.images,
        jnp.asarray(masks),
        classes,
        key_or_default(key),
    )
    found = in_batches(
        _varied,
        question.batch_size,
        shared,
        pairs // restarts,
        pairs % restarts,
        options=options,
    )
    found = jax.tree.map(
        lambda x: x.reshape(len(images), restarts, *x.shape[1:]), found
    )
    return Variations(regions=masks, targets=classes, **found)


@partial(jax.jit, static_argnames="options")
def _varied(
    shared: tuple,
    rows: Int[Array, "I"],
    numbers: Int[Array, "I"],
    *,
    options: SearchOptions,
) -> dict[str, Array]:
    """The variations of pairs of an image and a start."""
    classifier, generator, images, regions, targets, key = shared
    images, regions, targets = images[rows], regions[rows], targets[rows]
    start = lambda key: draw_latents(key, 1, generator.module.latent_size)[0]
    starts = jax.vmap(start)(keys_of(key, numbers))
    found = search(generator, images, regions, starts, options)
    varied = composite(images, regions, generator(found["latents"]))
    logits = classifier(varied)
    return found | {
        "images": varied,
        "predicted": jnp.argmax(logits, axis=-1),
        "is_same": is_correct(logits, targets, classifier.output),
    }


def search(
    generator: Generator,
    images: Float[Array, "I H W 3"],
    regions: Bool[Array, "I H W"],
    starts: Float[Array, "I Z"],
    options: SearchOptions,
) -> dict[str, Array]:
    """Descends from each start to a latent point whose image fits what is kept.

    Args:
      generator: whose latent points they are.
      images: in [0, 1], one for each start.
      regions: B of each.
      starts: latent points in [-1, 1].
      options: of the descent.

    Returns:
      `latents`, `context`, `realism` and `losses`, as `Variations` has them, with one
      leading axis.
    """
    weights = context_weights(~regions, options.window)

    def terms(
        latent: Float[Array, "Z"], image: Array, weight: Array
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        generated = generator(latent[None])
        # Twice: in [-1, 1] pixels differ by twice as much as in [0, 1].
        differences = 2.0 * jnp.abs(generated[0] - image)
        realism = generator_loss(generator.realism(generated))[0]
        return jnp.sum(weight[..., None] * differences), realism

    def loss(latent: Array, image: Array, weight: Array) -> Float[Array, ""]:
        context, realism = terms(latent, image, weight)
        return context + options.realism_weight * realism

    losses_and_gradients = jax.vmap(jax.value_and_grad(loss))

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        latents, velocities = carry
        losses, gradients = losses_and_gradients(latents, images, weights)
        moved = nesterov_step(
            latents, velocities, gradients, options.step_size, options.momentum
        )
        return moved, losses

    begin = starts, jnp.zeros_like(starts)
    (latents, _), losses = jax.lax.scan(step, begin, length=options.steps)
    context, realism = jax.vmap(terms)(latents, images, weights)
    return {
        "latents": latents,
        "context": context,
        "realism": realism,
        "losses": losses.T,
    }


def nesterov_step(
    latents: Float[Array, "*S"],
    velocities: Float[Array, "*S"],
    gradients: Float[Array, "*S"],
    step_size: float,
    momentum: float,
) -> tuple[Float[Array, "*S"], Float[Array, "*S"]]:
    """One step of Nesterov's descent in PyTorch's form, then clipped to [-1, 1].

    The velocity starts at zero and is not clipped. Sutskever et al. (2013) write the
    same with the step size in the velocity.

    Returns:
      The latent points and the velocities.
    """
    velocities = momentum * velocities + gradients
    latents = latents - step_size * (gradients + momentum * velocities)
    return jnp.clip(latents, -1.0, 1.0), velocities


def context_weights(
    kept: Bool[Array, "I H W"], window: int | None
) -> Float[Array, "I H W"]:
    """Returns `W * B'`: how much each pixel that is kept counts.

    Args:
      kept: B'.
      window: W is the share of the region in a square of that side around the pixel,
        images continued as in a mirror; of an even side the square reaches one pixel
        further up and left. None: W is 1.
    """
    context = kept.astype(jnp.float32)
    if window is None:
        return context
    before = window // 2
    pads = (before, window - 1 - before)
    padded = jnp.pad(1.0 - context, ((0, 0), pads, pads), mode="symmetric")
    share = nn.avg_pool(padded[..., None], (window, window))[..., 0]
    return context * share


def composite(
    images: Float[Array, "I H W 3"],
    regions: Bool[Array, "I H W"],
    generated: Float[Array, "I H W 3"],
) -> Float[Array, "I H W 3"]:
    """Returns `X * (1 - B) + B * G(z)`; outside of B every bit is the image's."""
    return jnp.where(regions[..., None], generated, images)


def salient_regions(
    maps: GivenMaps, rule: str = "quantile", alpha: float = 0.5
) -> Bool[np.ndarray, "B H W"]:
    """Returns the box of each map of any method, as a mask; empty where it has none.

    Args:
      maps: `[B, H, W]`, raw and possibly signed, high where the image is salient.
      rule: how a map becomes a box, one of `metrics.map_boxes.RULES`.
      alpha: of the rule; "quantile" has none.

    Raises:
      InputError: see `metrics.map_boxes.grid_boxes`.
    """
    boxes = grid_boxes(maps, rule, (alpha,))[:, 0]
    return rectangle_masks(boxes, maps.shape[1:])


def checked_regions(
    regions: GivenRegions, count: int, size: int
) -> Bool[np.ndarray, "B S S"]:
    """Returns regions as masks.

    Args:
      regions: see `GivenRegions`.
      count: B.
      size: side of the images in pixels.

    Raises:
      InputError: they have another shape or type, or one is empty, sticks out or is the
        whole image.
    """
    regions = np.asarray(regions)
    is_boxes = regions.shape == (count, 4) and np.issubdtype(regions.dtype, np.integer)
    if is_boxes:
        low, high = regions[:, :2], regions[:, 2:]
        fits = ((low >= 0) & (low < high) & (high <= size)).all(axis=1)
        if not fits.all():
            number = int(np.flatnonzero(~fits)[0])
            raise InputError(
                f"box {number} of {count}, {regions[number].tolist()}: expected "
                f"ymin, xmin, ymax, xmax with 0 <= min < max <= {size}, in pixels"
            )
        regions = rectangle_masks(regions, size)
    if regions.shape != (count, size, size) or regions.dtype != bool:
        raise InputError(
            f"regions of shape {regions.shape} and type {regions.dtype} for {count} "
            f"images of {size}x{size}: expected integer boxes {(count, 4)} in pixels, "
            f"or bool masks {(count, size, size)}"
        )
    areas = regions.mean(axis=(1, 2))
    for number, area in enumerate(areas):
        if area in (0, 1):
            what = "is empty" if area == 0 else "is the whole image"
            raise InputError(
                f"region {number} of {count} {what}: expected a part of it, to be "
                "generated from the rest"
            )
    return regions
