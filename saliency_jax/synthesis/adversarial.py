"""Images that differ by as little as `epsilon` and that a classifier takes for others.

Goodfellow, Shlens and Szegedy: Explaining and harnessing adversarial examples (arXiv
1412.6572): FGSM. Madry et al.: Towards deep learning models resistant to adversarial
attacks (arXiv 1706.06083): PGD.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    LogitsFn,
    Question,
    ask,
    check_at_least,
    check_option,
    classes_only,
    key_or_default,
    keys_of,
    with_targets,
)
from saliency_jax.attribution.batching import in_batches
from saliency_jax.closures import as_partial
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.objectives.terms import log_probability

Norm = Literal["linf", "l2"]

Loss = Callable[[Float[Array, "B K"], Int[Array, "B"]], Float[Array, "B"]]
"""From logits and classes to what an attack raises (lowers, if it is targeted)."""

Bounds = tuple[float, float] | None

GivenLabels = int | Int[Array | np.ndarray, "..."] | None

SMALLEST_NORM = 1e-12


class Constants(NamedTuple):
    """What is static in jitted code."""

    targeted: bool
    bounds: Bounds
    norm: str


def fgsm(
    logits_fn: LogitsFn,
    images: GivenImages,
    labels: GivenLabels = None,
    *,
    batch_size: int | None = None,
    epsilon: float = 1 / 255,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    loss: Loss | None = None,
) -> Float[Array, "B H W C"]:
    """One step of `epsilon` in every pixel, up or down, as the loss's gradient says.

    Goodfellow et al. (arXiv 1412.6572), section 4: `x + epsilon * sign(dJ/dx)`; with
    `targeted` minus, and J of the class that is wanted. A pixel without a gradient does
    not move.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      labels: the true class of each image, or the wanted one, or one for all. None: the
        predicted class, which a targeted attack cannot want.
      batch_size: how many images go through the classifier at once; None means all.
      epsilon: in units of [0, 1], whatever the classifier's normalisation.
      targeted: whether `labels` are what the images are to be taken for.
      bounds: of what is returned; None for none.
      loss: of logits and labels, for each image; None: the cross-entropy of the
        classifier's softmax, or of the class's own sigmoid.

    Returns:
      float32 images.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_at_least(0, epsilon=epsilon)
    asked, constants, loss = _asked(
        logits_fn, images, labels, batch_size, targeted, bounds, "linf", loss
    )
    return in_batches(
        _fgsm,
        asked.batch_size,
        (asked.classifier, loss, jnp.float32(epsilon)),
        asked.images,
        asked.targets,
        constants=constants,
    )


def pgd(
    logits_fn: LogitsFn,
    images: GivenImages,
    labels: GivenLabels = None,
    *,
    key: Key[Array, ""] | None = None,
    places: Int[Array | np.ndarray, "B"] | None = None,
    batch_size: int | None = None,
    epsilon: float = 1 / 255,
    norm: Norm = "linf",
    steps: int = 10,
    step_size: float | None = None,
    random_start: bool = True,
    targeted: bool = False,
    bounds: Bounds = (0.0, 1.0),
    loss: Loss | None = None,
) -> Float[Array, "B H W C"]:
    """Steps up the loss within a ball around the image, from a random point of it.

    Madry et al. (arXiv 1706.06083), section 2.1. After every step the difference
    to the image is brought back into the ball, and the image into its bounds.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      labels: as for `fgsm`.
      key: of the start; None means `jax.random.key(0)`.
      places: a number of each image, such as its place in a data set, that its start
        depends on; None: its place in `images`.
      batch_size: how many images go through the classifier at once; None means all.
      epsilon: radius of the ball, in units of [0, 1].
      norm: "linf", the greatest difference of a pixel's channel, whose steps go by the
        gradient's sign; "l2", the root of the sum of squares over the whole image,
        whose steps go along the gradient.
      steps: how many.
      step_size: in the same norm; None: 2.5 epsilon / steps, so that any point of the
        ball can be reached from any other.
      random_start: whether to begin at a point drawn uniformly from the ball, or at the
        image.
      targeted: as for `fgsm`.
      bounds: as for `fgsm`.
      loss: as for `fgsm`.

    Returns:
      float32 images.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    check_at_least(0, epsilon=epsilon)
    check_at_least(1, steps=steps)
    if step_size is None:
        step_size = 2.5 * epsilon / steps
    check_at_least(0, step_size=step_size)
    check_option("norm", norm, get_args(Norm))
    asked, constants, loss = _asked(
        logits_fn, images, labels, batch_size, targeted, bounds, norm, loss
    )
    numbers = jnp.arange(len(asked.images)) if places is None else places
    keys = keys_of(key_or_default(key), jnp.asarray(numbers))
    return in_batches(
        _pgd,
        asked.batch_size,
        (asked.classifier, loss, jnp.float32(epsilon), jnp.float32(step_size)),
        asked.images,
        asked.targets,
        keys,
        steps=steps,
        random_start=random_start,
        constants=constants,
    )


def _asked(
    logits_fn: LogitsFn,
    images: GivenImages,
    labels: GivenLabels,
    batch_size: int | None,
    targeted: bool,
    bounds: Bounds,
    norm: str,
    loss: Loss | None,
) -> tuple[Question, Constants, jax.tree_util.Partial | None]:
    if targeted and labels is None:
        raise InputError(
            "a targeted attack needs labels: the class that each image is to be taken "
            "for"
        )
    if bounds is not None and not bounds[0] < bounds[1]:
        raise InputError(f"bounds={bounds}: expected the lower and the upper one")
    asked = with_targets(ask(logits_fn, images, labels, batch_size))
    classes_only("an attack", asked.targets)
    return asked, Constants(targeted, bounds, norm), loss and as_partial(loss)


@partial(jax.jit, static_argnames="constants")
def _fgsm(
    shared: tuple[Classifier, Loss | None, Float[Array, ""]],
    images: Float[Array, "B H W C"],
    labels: Int[Array, "B"],
    constants: Constants,
) -> Float[Array, "B H W C"]:
    classifier, loss, epsilon = shared
    uphill = _uphill(classifier, loss, images, labels, constants.targeted)
    return _within(images + epsilon * jnp.sign(uphill), constants.bounds)


@partial(jax.jit, static_argnames=("steps", "random_start", "constants"))
def _pgd(
    shared: tuple[Classifier, Loss | None, Float[Array, ""], Float[Array, ""]],
    images: Float[Array, "B H W C"],
    labels: Int[Array, "B"],
    keys: Key[Array, "B"],
    steps: int,
    random_start: bool,
    constants: Constants,
) -> Float[Array, "B H W C"]:
    classifier, loss, epsilon, step_size = shared

    def step(
        attacked: Float[Array, "B H W C"], _: None
    ) -> tuple[Float[Array, "B H W C"], None]:
        uphill = _uphill(classifier, loss, attacked, labels, constants.targeted)
        if constants.norm == "linf":
            direction = jnp.sign(uphill)
        else:
            direction = uphill / jnp.maximum(lengths(uphill), SMALLEST_NORM)
        moved = attacked + step_size * direction - images
        return _within(
            images + into_ball(moved, epsilon, constants.norm), constants.bounds
        ), None

    start = images
    if random_start:
        draws = jax.vmap(
            partial(from_ball, shape=images.shape[1:], norm=constants.norm)
        )
        start = _within(images + epsilon * draws(keys), constants.bounds)
    return jax.lax.scan(step, start, length=steps)[0]


def _uphill(
    classifier: Classifier,
    loss: Loss | None,
    images: Float[Array, "B H W C"],
    labels: Int[Array, "B"],
    targeted: bool,
) -> Float[Array, "B H W C"]:
    """The direction that makes each image's attack succeed."""

    def total(images: Float[Array, "B H W C"]) -> Float[Array, ""]:
        logits = classifier(images).astype(jnp.float32)
        if loss is None:
            losses = -log_probability(logits, labels, classifier.output)
        else:
            losses = loss(logits, labels)
        return jnp.sum(losses)

    gradients = jax.grad(total)(images)
    return -gradients if targeted else gradients


def _within(images: Float[Array, "B H W C"], bounds: Bounds) -> Float[Array, "B H W C"]:
    return images if bounds is None else jnp.clip(images, *bounds)


def lengths(x: Float[Array, "B H W C"]) -> Float[Array, "B 1 1 1"]:
    """The root of the sum of squares of each."""
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=(1, 2, 3), keepdims=True))


def into_ball(
    differences: Float[Array, "B H W C"], epsilon: Float[Array, ""], norm: Norm
) -> Float[Array, "B H W C"]:
    """The nearest differences whose norm is at most `epsilon`."""
    if norm == "linf":
        return jnp.clip(differences, -epsilon, epsilon)
    factors = epsilon / jnp.maximum(lengths(differences), SMALLEST_NORM)
    return differences * jnp.minimum(factors, 1.0)


def from_ball(
    key: Key[Array, ""], shape: tuple[int, int, int], norm: Norm
) -> Float[Array, "H W C"]:
    """A point drawn uniformly from the ball of radius 1."""
    if norm == "linf":
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
    direction_key, radius_key = jax.random.split(key)
    direction = jax.random.normal(direction_key, shape)
    # Of the ball a share of radius^dimension lies within a radius.
    radius = jax.random.uniform(radius_key) ** (1 / direction.size)
    return radius * direction / jnp.linalg.norm(direction)
