"""One mask for each image, optimised against the black box itself.

Dabkowski and Gal: Real time image saliency for black box classifiers (arXiv
1705.07857): the baseline that their masker saves the time of, with the constants of
the authors' code (PiotrDabkowski/pytorch-saliency, iterative_saliency.py).
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from saliency_jax import prng
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
from saliency_jax.attribution.batching import in_batches, repeat
from saliency_jax.errors import InputError
from saliency_jax.masking import check_images
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.masker import upsample
from saliency_jax.objectives.black_box import (
    BlackBoxOptions,
    black_box_loss,
    published,
)
from saliency_jax.removal import RemovalOptions, remove_evidence
from saliency_jax.types import Images, Labels, Masks

START = 0.5
EPSILON = 0.001


@dataclasses.dataclass(frozen=True)
class IterativeOptions:
    """How a mask is optimised; the defaults are the authors' code's.

    Attributes:
      objective: what a mask is judged by.
      removal: what stands in the place of what it removes.
      iterations: steps of gradient descent.
      mask_size: cells of a mask along each side; the image's pixels if it has fewer.
      learning_rate: of the descent.
      momentum: Nesterov's.

    Raises:
      InputError: no iteration, or no cell.
    """

    objective: BlackBoxOptions = dataclasses.replace(
        published("author"),
        area_weight=11.0,
        smoothness_weight=0.5,
        preserver_weight=0.2,
    )
    removal: RemovalOptions = RemovalOptions()
    iterations: int = 200
    mask_size: int = 32
    learning_rate: float = 0.1
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_at_least(1, iterations=self.iterations, mask_size=self.mask_size)


def iterative_masks(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    places: Int[Array | np.ndarray, "..."] | None = None,
    options: IterativeOptions = IterativeOptions(),
) -> Masks:
    """Optimises a mask for each image: what shows the class, and without which it goes.

    Dabkowski and Gal (arXiv 1705.07857), with the constants of the authors' code. Every
    iteration draws anew what stands in the place of the removed part. Images do not
    affect each other; the authors' code takes the mean of a batch's losses, and so
    smaller steps in a larger batch.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: RGB `[B, H, W, 3]`, `uint8` or floats in [0, 1].
      targets: a class, or one for each image; None for the predicted class.
      key: an image's draws depend on it and on the image's place.
      batch_size: how many edited images go through the classifier at once, at least the
        two of one mask; None means 32, or all images if they are more.
      places: a number for each image, such as its place in a data set, so that each has
        draws of its own whatever it is in a batch with. None: all have the same draws.
      options: the objective, the removal and the descent.

    Returns:
      Masks in [0, 1], 1 = salient; `float32`.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_images(images, channels=3)
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    classes = classes_only("iterative_masks", asked.targets)
    count = len(asked.images)
    places = jnp.zeros(count, jnp.int32) if places is None else jnp.asarray(places)
    if places.shape != (count,):
        raise InputError(
            f"places of shape {places.shape} for {count} images: expected one for "
            f"each, {(count,)}"
        )
    return in_batches(
        _optimised,
        max(1, asked.batch_size // 2),
        (asked.classifier, key_or_default(key)),
        asked.images,
        classes,
        places,
        options=options,
    )


def _optimised(
    shared: tuple[Classifier, Key[Array, ""]],
    images: Images,
    targets: Labels,
    places: Int[Array, "B"],
    options: IterativeOptions,
) -> Masks:
    classifier, key = shared
    size = images.shape[1:3]
    cells = (min(options.mask_size, side) for side in size)
    start = jnp.full((len(images), *cells, 2), START)
    channels, _ = repeat(
        _step,
        (start, _optimiser(options).init(start)),
        options.iterations,
        classifier,
        images,
        targets,
        keys_of(key, places),
        options=options,
    )
    return _drawn(channels, size)


def _optimiser(options: IterativeOptions) -> optax.GradientTransformation:
    return optax.sgd(options.learning_rate, options.momentum, nesterov=True)


@partial(jax.jit, static_argnames="size")
def _drawn(channels: Float[Array, "B h w 2"], size: tuple[int, int]) -> Masks:
    first, second = jnp.moveaxis(jnp.abs(channels), -1, 0)
    return upsample(first / (first + second + EPSILON), size, "bilinear")


@partial(jax.jit, static_argnames="options")
def _step(
    carry: tuple[Float[Array, "B h w 2"], optax.OptState],
    iteration: Int[Array, ""],
    classifier: Classifier,
    images: Images,
    targets: Labels,
    keys: Key[Array, "B"],
    options: IterativeOptions,
) -> tuple[Float[Array, "B h w 2"], optax.OptState]:
    count, *size = images.shape[:3]

    def loss(channels: Float[Array, "B h w 2"]) -> Float[Array, ""]:
        masks = _drawn(channels, tuple(size))

        def both(
            key: Key[Array, ""], image: Float[Array, "H W 3"], mask: Float[Array, "H W"]
        ) -> Float[Array, "2 H W 3"]:
            kept, removed = (
                remove_evidence(
                    prng.stream_key(key, name, iteration),
                    image[None],
                    shown[None],
                    options.removal,
                )
                for name, shown in (("kept", mask), ("removed", 1.0 - mask))
            )
            return jnp.concatenate([kept, removed])

        edited = jax.vmap(both)(keys, images, masks)
        logits = classifier(edited.reshape(-1, *images.shape[1:]))
        logits = logits.astype(jnp.float32).reshape(count, 2, -1)
        losses, _ = black_box_loss(
            masks,
            logits[:, 0],
            logits[:, 1],
            targets,
            jnp.ones(count, bool),
            options.objective,
            classifier.output,
        )
        return jnp.sum(losses)

    channels, state = carry
    updates, state = _optimiser(options).update(jax.grad(loss)(channels), state)
    return optax.apply_updates(channels, updates), state
