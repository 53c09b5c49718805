"""One mask for each image, optimised against the black box itself.

Dabkowski and Gal: Real time image saliency for black box classifiers (arXiv
1705.07857): the baseline that their masker saves the time of, with the constants of
the authors' code (PiotrDabkowski/pytorch-saliency, iterative_saliency.py).
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, Num

from saliency_jax import prng
from saliency_jax.errors import InputError
from saliency_jax.masking import to_float
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.masker import upsample
from saliency_jax.objectives.black_box import (
    BlackBoxOptions,
    black_box_loss,
    published,
)
from saliency_jax.removal import RemovalOptions, remove_evidence
from saliency_jax.types import Labels, Masks

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
        for name in ("iterations", "mask_size"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"{name} is {value}: it must be at least 1")


def iterative_masks(
    classifier: Classifier | Callable,
    images: Num[Array | np.ndarray, "..."],
    targets: int | Int[Array | np.ndarray, "..."] | None = None,
    *,
    key: Key[Array, ""],
    places: Int[Array | np.ndarray, "..."] | None = None,
    options: IterativeOptions = IterativeOptions(),
    batch_size: int | None = None,
) -> Float[Array, "B H W"]:
    """Optimises a mask for each image: what shows the class, and without which it goes.

    Every iteration draws anew what stands in the place of the removed part. Images do
    not affect each other; the authors' code takes the mean of a batch's losses, and so
    smaller steps in a larger batch.

    Args:
      classifier: the black box; or a function from images in [0, 1] to logits, as for
        `Classifier.from_function`.
      images: RGB `[B, H, W, 3]`, `uint8` or floats in [0, 1].
      targets: the class that each mask explains, or one class for all. None: the class
        that the classifier predicts.
      key: an image's draws depend on it and on the image's place.
      places: of the images, where they are a part of more; with these an image has the
        mask that it has among all of them. None: those among `images`, from 0.
      options: the objective, the removal and the descent.
      batch_size: how many masks to optimise at once, to bound memory; None means all.

    Returns:
      Masks in [0, 1], 1 = salient; `float32`.

    Raises:
      InputError: the images, the targets or the places have another shape, the
        classifier does not know such a class, or `batch_size` is below 1.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or not len(images):
        raise InputError(
            f"images of shape {images.shape}: expected [B, H, W, 3], RGB, at least one"
        )
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: it must be at least 1, or None")
    if not isinstance(classifier, Classifier):
        classifier = Classifier.from_function(classifier)
    images = jnp.asarray(images)
    if targets is not None:
        targets = _checked(targets, classifier, images)
    places = jnp.arange(len(images)) if places is None else jnp.asarray(places)
    if places.shape != images.shape[:1]:
        raise InputError(
            f"places of shape {places.shape} for {len(images)} images: expected one "
            f"for each, {images.shape[:1]}"
        )
    if batch_size is not None and batch_size >= len(images):
        batch_size = None  # the same program
    return _jitted(classifier, images, targets, key, places, options, batch_size)


def _checked(
    targets: int | Int[Array | np.ndarray, "..."],
    classifier: Classifier,
    images: Num[Array, "B H W 3"],
) -> Labels:
    """One class for each image; refuses what indexing would silently clip or wrap."""
    if jnp.shape(targets) not in ((), images.shape[:1]):
        raise InputError(
            f"targets of shape {jnp.shape(targets)} for {len(images)} images: expected "
            f"one class for each, {images.shape[:1]}, or one number"
        )
    if not isinstance(targets, jax.core.Tracer):  # inside somebody's jit: not known yet
        num_classes = jax.eval_shape(classifier, images[:1]).shape[-1]
        given = np.atleast_1d(targets)
        wrong = given[(given < 0) | (given >= num_classes)]
        if wrong.size:
            raise InputError(
                f"target {wrong[0]}: the classifier knows classes 0 to "
                f"{num_classes - 1}"
            )
    return jnp.broadcast_to(jnp.asarray(targets), images.shape[:1])


@partial(jax.jit, static_argnames=("options", "batch_size"))
def _jitted(
    classifier: Classifier,
    images: Num[Array, "B H W 3"],
    targets: Labels | None,
    key: Key[Array, ""],
    places: Int[Array, "B"],
    options: IterativeOptions,
    batch_size: int | None,
) -> Masks:
    count = len(images)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
    inputs = (images, targets, keys)
    optimise = lambda inputs: _optimised(classifier, *inputs, options)
    if batch_size is None:
        return optimise(inputs)
    batches = -(-count // batch_size)
    # Copies of the last image fill the last batch.
    rows = jnp.minimum(jnp.arange(batches * batch_size), count - 1)
    rows = rows.reshape(batches, batch_size)
    masks = jax.lax.map(
        lambda chosen: optimise(jax.tree.map(lambda x: x[chosen], inputs)), rows
    )
    return masks.reshape(-1, *masks.shape[2:])[:count]


def _optimised(
    classifier: Classifier,
    images: Num[Array, "B H W 3"],
    targets: Labels | None,
    keys: Key[Array, "B"],
    options: IterativeOptions,
) -> Masks:
    images = to_float(images).astype(jnp.float32)
    if targets is None:
        targets = jnp.argmax(classifier(images), axis=-1)
    count, *size = images.shape[:3]
    rows, columns = (min(options.mask_size, side) for side in size)
    optimiser = optax.sgd(options.learning_rate, options.momentum, nesterov=True)

    def drawn(channels: Float[Array, "B h w 2"]) -> Masks:
        first, second = jnp.moveaxis(jnp.abs(channels), -1, 0)
        return upsample(first / (first + second + EPSILON), tuple(size), "bilinear")

    def loss(
        channels: Float[Array, "B h w 2"], iteration: Int[Array, ""]
    ) -> Float[Array, ""]:
        masks = drawn(channels)

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
        logits = logits.reshape(count, 2, -1)
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

    def step(
        iteration: Int[Array, ""], carry: tuple[Array, optax.OptState]
    ) -> tuple[Array, optax.OptState]:
        channels, state = carry
        gradient = jax.grad(loss)(channels, iteration)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(channels, updates), state

    start = jnp.full((count, rows, columns, 2), START)
    channels, _ = jax.lax.fori_loop(
        0, options.iterations, step, (start, optimiser.init(start))
    )
    return drawn(channels)
