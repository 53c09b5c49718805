"""Meaningful perturbation: the smallest smooth mask that takes the class away.

Fong and Vedaldi: Interpretable explanations of black boxes by meaningful perturbation
(arXiv 1704.03296), with the constants of the authors' code
(ruthcfong/perturb_explanations) or of a much used port to PyTorch
(jacobgil/pytorch-explain-black-box).
"""

from functools import partial
from typing import Literal, NamedTuple, get_args

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
    check_option,
    key_or_default,
)
from saliency_jax.attribution.batching import in_batches, repeat
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.layers import Targets, Unit
from saliency_jax.attribution.optimised_masks.blending import (
    median_blur,
    scaled,
    shifted,
)
from saliency_jax.attribution.optimised_masks.coarse_masks import (
    BLUR_REACH,
    circle,
    total_variation,
    upsampling,
)
from saliency_jax.attribution.scores import probabilities, scores_of
from saliency_jax.masking import masked_in
from saliency_jax.models.classifier import Classifier
from saliency_jax.removal import gaussian_blur

RADII = np.arange(0, 175, 5, dtype=np.float32)
"""Of the circles that are tried, in pixels of a 224x224 image, all of which the last
covers; but not the ends of a longer one."""
SUPPRESSED = 0.01
"""Which share of the score a circle may leave, to be the start."""

Start = Literal["random", "circle", "ones"]

Asked = Targets | Int[Array, "B n"]
"""What edited images are judged by: also several classes of each image."""


class Constants(NamedTuple):
    """What a variant is made of; lengths in pixels of a 224x224 image.

    Attributes:
      steps: of Adam.
      learning_rate: of Adam.
      mask_size: cells along each side.
      area_weight: of `|1 - m|`.
      smoothness_weight: of the total variation.
      smoothness_power: beta.
      means: whether both terms are means, and the total variation takes the axes one
        by one; else they are sums.
      upsampling: of the cells: "nearest", or "aligned", bilinear between the centres
        of the first and the last cell.
      mask_blur: standard deviation of the blur of the upsampled mask.
      reference: what stands for nothing: the image's "blur" or "median".
      reference_length: standard deviation of that blur, or side of the median's window.
      jitter: how many shifts along each axis there are.
      noise: standard deviation, for images as the classifier normalises them.
      start: the first mask.
      top: how many of the predicted classes are explained if none is named.
    """

    steps: int = 300
    learning_rate: float = 0.1
    mask_size: int = 28
    area_weight: float = 1e-4
    smoothness_weight: float = 1e-2
    smoothness_power: float = 3.0
    means: bool = False
    upsampling: str = "nearest"
    mask_blur: float = 5.0
    reference: str = "blur"
    reference_length: float = 10.0
    jitter: int = 4
    noise: float = 0.0
    start: str = "random"
    top: int = 1


VARIANTS = {
    "author": Constants(),
    "localisation": Constants(
        area_weight=1e-3, smoothness_power=2.0, start="circle", top=5
    ),
    "jacobgil": Constants(
        steps=500,
        area_weight=0.01,
        smoothness_weight=0.2,
        means=True,
        upsampling="aligned",
        mask_blur=0.0,
        reference="median",
        reference_length=11.0,
        jitter=0,
        noise=0.2,
        start="ones",
    ),
}


class Descent(NamedTuple):
    """A descent under way; of each image by itself."""

    masks: Float[Array, "B h w"]
    state: optax.OptState
    losses: Float[Array, "B T"]
    scores: Float[Array, "B T"]


def meaningful_perturbation(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    variant: Literal["author", "localisation", "jacobgil"] = "author",
    steps: int | None = None,
    learning_rate: float | None = None,
    mask_size: int | None = None,
    area_weight: float | None = None,
    smoothness_weight: float | None = None,
    smoothness_power: float | None = None,
    mask_blur: float | None = None,
    jitter: int | None = None,
    noise: float | None = None,
    start: Start | None = None,
    return_aux: bool = False,
) -> Float[Array, "B H W"] | tuple[Float[Array, "B H W"], dict[str, Array]]:
    """Optimises the smallest smooth mask whose removal lowers the class's probability.

    Fong and Vedaldi (arXiv 1704.03296), the deletion game. Over a mask m in [0, 1] of
    28x28 cells, 1 = kept, Adam minimises `area_weight * |1 - m| + smoothness_weight *
    |grad m|^beta + p(m * x + (1 - m) * blurred x)`, the image shifted by a few pixels
    anew in each step. A function or a `Unit` as target is minimised as it is.

    Variants, whose constants the options replace one by one:
      author: the code's defaults; both penalties are sums over cells.
      localisation: the code's constants for boxes: ten times the area weight, beta 2,
        a circle as the start; without a target, the five most probable classes.
      jacobgil: the port's: both penalties are means, the reference is the median, noise
        instead of shifts, no blur of the mask.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: a class, or one for each image; a function from an image's logits `[K]`
        to a number; a `Unit` of a layer; None for the predicted class.
      key: of the random start, the shifts and the noise, the same for all images.
      batch_size: how many masks are optimised at once; None means 32, or all images if
        they are more.
      variant: see above.
      steps: of Adam.
      learning_rate: of Adam.
      mask_size: cells along each side; the image's pixels if it has fewer.
      area_weight: of what is removed.
      smoothness_weight: of the total variation.
      smoothness_power: its beta.
      mask_blur: of the upsampled mask, in pixels of a 224x224 image; 0 for none.
      jitter: how many shifts along each axis, pixels of a 224x224 image; 0 for none.
      noise: standard deviation on the normalised edited image.
      start: uniformly "random" cells; the smallest "circle" in the middle whose removal
        leaves at most a hundredth of the class, or else all; or "ones", all kept.
      return_aux: whether to return, besides, "losses" and "scores" (of the edited
        images) before every step, `[B, steps]`.

    Returns:
      float32 maps in [0, 1]: `1 - m`, upsampled and blurred; 1 where the image has to
      be removed.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    given = {
        "steps": steps,
        "learning_rate": learning_rate,
        "mask_size": mask_size,
        "area_weight": area_weight,
        "smoothness_weight": smoothness_weight,
        "smoothness_power": smoothness_power,
        "mask_blur": mask_blur,
        "jitter": jitter,
        "noise": noise,
        "start": start,
    }
    constants = _checked(
        variant, {name: value for name, value in given.items() if value is not None}
    )
    asked = ask(logits_fn, images, targets, batch_size)
    maps, losses, scores = in_batches(
        _maps,
        asked.batch_size,
        (asked.classifier, key_or_default(key)),
        asked.images,
        asked.targets,
        constants=constants,
    )
    return (maps, {"losses": losses, "scores": scores}) if return_aux else maps


def _checked(variant: str, given: dict[str, int | float | str]) -> Constants:
    check_option("variant", variant, VARIANTS)
    constants = VARIANTS[variant]._replace(**given)
    check_option("start", constants.start, get_args(Start))
    check_at_least(1, steps=constants.steps, mask_size=constants.mask_size)
    check_at_least(
        0, jitter=constants.jitter, noise=constants.noise, mask_blur=constants.mask_blur
    )
    return constants


def _maps(
    shared: tuple[Classifier, Key[Array, ""]],
    images: Float[Array, "B H W C"],
    targets: Asked,
    constants: Constants,
) -> tuple[Float[Array, "B H W"], Float[Array, "B T"], Float[Array, "B T"]]:
    classifier, key = shared
    start, references, targets = _begin(classifier, key, images, targets, constants)
    edited = (images, references, targets)
    if constants.start == "circle":
        left = jnp.zeros((len(images), len(RADII)))
        left = repeat(_try_circle, left, len(RADII), classifier, *edited)
        start = _smallest_circle(classifier, left, *edited, constants=constants)
    descent = Descent(
        start,
        _optimiser(constants).init(start),
        *2 * (jnp.zeros((len(images), constants.steps)),),
    )
    descent = repeat(
        _step, descent, constants.steps, classifier, key, *edited, constants=constants
    )
    return _finish(descent.masks, images, constants), descent.losses, descent.scores


def _optimiser(constants: Constants) -> optax.GradientTransformation:
    return optax.adam(constants.learning_rate)


@partial(jax.jit, static_argnames="constants")
def _begin(
    classifier: Classifier,
    key: Key[Array, ""],
    images: Float[Array, "B H W C"],
    targets: Asked,
    constants: Constants,
) -> tuple[Float[Array, "B h w"], Float[Array, "B H W C"], Asked]:
    """The first masks, what stands for nothing, and what is explained."""
    if targets is None:
        logits = classifier(images)
        _, targets = jax.lax.top_k(logits, min(constants.top, logits.shape[-1]))
    size = images.shape[1:3]
    length = scaled(constants.reference_length, size)
    if constants.reference == "blur":
        references = gaussian_blur(images, length, BLUR_REACH)
    else:
        references = median_blur(images, max(1, round((length - 1) / 2)))
    cells = tuple(min(constants.mask_size, side) for side in size)
    start = jnp.ones(cells)
    if constants.start == "random":
        start = jax.random.uniform(prng.stream_key(key, "start"), cells)
    return jnp.broadcast_to(start, (len(images), *cells)), references, targets


def _scores(
    classifier: Classifier, edited: Float[Array, "B H W C"], targets: Asked
) -> Float[Array, "B"]:
    """What is minimised: the probability of all classes that are explained."""
    if callable(targets) or isinstance(targets, Unit):
        return scores_of(classifier, edited, targets, "logit")
    classes = targets.reshape(len(edited), -1)
    of_all = probabilities(classifier, edited)
    return jnp.sum(jnp.take_along_axis(of_all, classes, axis=-1), axis=-1)


@jax.jit
def _try_circle(
    left: Float[Array, "B R"],
    i: Int[Array, ""],
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    references: Float[Array, "B H W C"],
    targets: Asked,
) -> Float[Array, "B R"]:
    """Writes down which scores the i-th circle leaves."""
    mask = circle(jnp.asarray(RADII)[i], images.shape[1:3])
    edited = masked_in(images, mask[None], references)
    return left.at[:, i].set(_scores(classifier, edited, targets))


@partial(jax.jit, static_argnames="constants")
def _smallest_circle(
    classifier: Classifier,
    left: Float[Array, "B R"],
    images: Float[Array, "B H W C"],
    references: Float[Array, "B H W C"],
    targets: Asked,
    constants: Constants,
) -> Float[Array, "B h w"]:
    """The cells of the smallest circle that is enough; nothing kept, where none is."""
    at_first = _scores(classifier, images, targets)[:, None]
    at_last = _scores(classifier, references, targets)[:, None]
    span = at_first - at_last
    enough = (quotient(left - at_last, span) < SUPPRESSED) & (span != 0)
    radii = jnp.asarray(RADII)[jnp.argmax(enough, axis=1)]
    size = images.shape[1:3]
    masks = circle(radii, size) * jnp.any(enough, axis=1)[:, None, None]
    cells = tuple(min(constants.mask_size, side) for side in size)
    return jax.image.resize(masks, (len(images), *cells), "nearest")


def _upsampled(
    masks: Float[Array, "B h w"], size: tuple[int, int], constants: Constants
) -> Float[Array, "B H W"]:
    blur = scaled(constants.mask_blur, size)
    down, across = (
        upsampling(side, cells, blur, constants.upsampling)
        for side, cells in zip(size, masks.shape[1:], strict=True)
    )
    return jnp.einsum("yh,bhw,xw->byx", down, masks, across)


def _penalties(masks: Float[Array, "B h w"], constants: Constants) -> Float[Array, "B"]:
    total = jnp.mean if constants.means else jnp.sum
    # As sign(0) is 0 in the code: nothing pulls at what is kept. JAX's abs differs.
    removed = total(jax.nn.relu(1.0 - masks), axis=(1, 2))
    variation = total_variation(masks, constants.smoothness_power, constants.means)
    return constants.area_weight * removed + constants.smoothness_weight * variation


@partial(jax.jit, static_argnames="constants")
def _step(
    descent: Descent,
    i: Int[Array, ""],
    classifier: Classifier,
    key: Key[Array, ""],
    images: Float[Array, "B H W C"],
    references: Float[Array, "B H W C"],
    targets: Asked,
    constants: Constants,
) -> Descent:
    size = images.shape[1:3]
    shifts = round(scaled(constants.jitter, size))
    if shifts > 1:
        of_step = prng.stream_key(key, "shift", i)
        shift = jax.random.randint(of_step, (2,), 0, shifts)
        images, references = (shifted(x, shift, shifts) for x in (images, references))
    noise = 0.0
    if constants.noise:
        deviations = constants.noise * jnp.asarray(classifier.std)[None, None, None]
        of_step = prng.stream_key(key, "noise", i)
        noise = deviations * jax.random.normal(of_step, (1, *images.shape[1:]))

    def loss(
        masks: Float[Array, "B h w"],
    ) -> tuple[Float[Array, ""], tuple[Float[Array, "B"], Float[Array, "B"]]]:
        edited = masked_in(images, _upsampled(masks, size, constants), references)
        scores = _scores(classifier, edited + noise, targets)
        losses = scores + _penalties(masks, constants)
        return jnp.sum(losses), (losses, scores)

    gradients, (losses, scores) = jax.grad(loss, has_aux=True)(descent.masks)
    updates, state = _optimiser(constants).update(gradients, descent.state)
    return Descent(
        jnp.clip(descent.masks + updates, 0.0, 1.0),
        state,
        descent.losses.at[:, i].set(losses),
        descent.scores.at[:, i].set(scores),
    )


@partial(jax.jit, static_argnames="constants")
def _finish(
    masks: Float[Array, "B h w"],
    images: Float[Array, "B H W C"],
    constants: Constants,
) -> Float[Array, "B H W"]:
    shown = _upsampled(masks, images.shape[1:3], constants)
    return jnp.clip(1.0 - shown, 0.0, 1.0)
