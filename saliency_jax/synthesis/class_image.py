"""The image that a classifier holds most of a class, found by gradient ascent.

Simonyan, Vedaldi and Zisserman: Deep inside convolutional networks (arXiv 1312.6034),
section 2.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key
from tqdm import tqdm

from saliency_jax.attribution.asking import (
    GivenTargets,
    LogitsFn,
    ask,
    by_channel,
    check_at_least,
    check_option,
    check_positive,
    key_or_default,
    keys_of,
)
from saliency_jax.attribution.batching import in_batches, is_traced
from saliency_jax.attribution.layers import Targets, Unit
from saliency_jax.attribution.scores import scores_of
from saliency_jax.errors import InputError
from saliency_jax.masking import colour_to_float
from saliency_jax.models.classifier import Classifier, mean_colour
from saliency_jax.synthesis.canvas import (
    Canvas,
    Parametrisation,
    blank,
    blurred,
    to_images,
)

Output = Literal["logit", "probability"]

LEGIBLE = {
    "parametrisation": "fourier",
    "smoothness": 1.5,
    "jitter": 16,
    "zoom": (0.4, 0.9),
    "learning_rate": 0.05,
    "penalty": 0.0,
    "steps": 256,
}
"""Options of `class_image` under which people recognise more in its images."""

REPORTS = 100  # how often, in all its steps, an ascent tells the progress bar


class Constants(NamedTuple):
    """The options of `class_image` that are static in jitted code."""

    steps: int
    learning_rate: float
    output: str
    penalty: float
    parametrisation: str
    smoothness: float
    jitter: int
    zoom: tuple[float, float]
    blur: float
    blur_every: int
    total_variation: float


class Ascent(NamedTuple):
    """An ascent under way."""

    canvas: Canvas
    optimiser: optax.OptState


def class_image(
    logits_fn: LogitsFn,
    targets: GivenTargets,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    image_size: int | tuple[int, int] = 224,
    steps: int = 256,
    learning_rate: float = 0.05,
    output: Output = "logit",
    penalty: float = 1e-4,
    parametrisation: Parametrisation = "pixels",
    smoothness: float = 1.0,
    jitter: int = 0,
    zoom: tuple[float, float] = (1.0, 1.0),
    blur: float = 0.0,
    blur_every: int = 4,
    total_variation: float = 0.0,
    mean: float | Sequence[float] | None = None,
    progress: bool = False,
    return_aux: bool = False,
) -> Float[Array, "B H W 3"] | tuple[Float[Array, "B H W 3"], dict[str, Array]]:
    """Makes images whose score of a class, less a penalty, is as high as can be found.

    Simonyan et al. (arXiv 1312.6034), equation 1: the zero image, to which the mean
    colour is added, climbs `S_c(I) - penalty * ||I||^2`. The defaults are the
    paper's method; its penalty and step were not published. `**LEGIBLE` are options
    that came later and make pictures more legible. Each step is one of Adam.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      targets: a class, or several `[B]`, of which each gets an image; a `Unit` of a
        layer, or several in one; a function from an image's logits `[K]` to a number.
      key: of the jitter; None means `jax.random.key(0)`.
      batch_size: how many images are made at once; None means all.
      image_size: H and W in pixels, or one number for both.
      steps: of the ascent.
      learning_rate: of Adam; of pixels in units of [0, 1].
      output: "logit", or "probability", which can also climb by making other classes
        less likely, and whose gradient vanishes where a class is improbable or certain.
      penalty: of the sum of the squared differences of all pixels to the mean colour.
      parametrisation: what climbs: the "pixels", or "fourier", see `canvas.to_images`.
      smoothness: power of the wavelength that waves are scaled by; 1 is that of
        photographs, more lets large forms come before fine grain. Of "fourier" alone.
      jitter: in every step the classifier sees the image moved by up to as many pixels
        to any side; what comes in has the mean colour.
      zoom: least and greatest factor by which it sees the image scaled, likewise, about
        the centre. Below 1 whole objects count for more than textures.
      blur: standard deviation in pixels of a Gaussian by which the image is blurred
        every `blur_every` steps; 0 for never.
      blur_every: see `blur`.
      total_variation: weight of the sum of the squared differences of neighbours.
      mean: the mean colour in [0, 1]. None: that of the classifier's normalisation, or
        0.5 if the classifier is a function.
      progress: whether to show a progress bar.
      return_aux: whether to return, besides, the "scores" that the classifier gave the
        images it saw, before every step, `[B, steps]`.

    Returns:
      images in [0, 1]; what the ascent has driven out of that range is cut off.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    constants = Constants(
        steps,
        learning_rate,
        output,
        penalty,
        parametrisation,
        smoothness,
        jitter,
        tuple(map(float, zoom)),
        blur,
        blur_every,
        total_variation,
    )
    size = tuple(map(int, np.broadcast_to(image_size, 2)))
    _check(constants, size, targets)
    starts = jnp.zeros((_count(targets), *size, 3))
    asked = ask(logits_fn, starts, targets, batch_size)
    mean = mean_colour(asked.classifier) if mean is None else mean
    colour = by_channel("mean", colour_to_float("mean", mean), 3).reshape(1, 1, 1, 3)
    numbers = jnp.arange(len(starts))
    keys = keys_of(key_or_default(key), numbers)
    rounds = -(-len(starts) // min(asked.batch_size, len(starts)))
    shown = progress and not is_traced(asked, colour, keys)
    with _progress_bar(rounds * steps, shown):
        images, scores = in_batches(
            _images,
            asked.batch_size,
            (asked.classifier, colour),
            keys,
            asked.targets,
            size=size,
            constants=constants,
            shown=shown,
        )
    return (images, {"scores": scores}) if return_aux else images


def _check(constants: Constants, size: tuple[int, int], targets: GivenTargets) -> None:
    if targets is None:
        raise InputError(
            "class_image needs targets: a class, several, a Unit, or a function of the "
            "logits"
        )
    check_option("output", constants.output, get_args(Output))
    check_option(
        "parametrisation", constants.parametrisation, get_args(Parametrisation)
    )
    check_at_least(1, steps=constants.steps, blur_every=constants.blur_every)
    check_at_least(1, image_size=min(size))
    check_at_least(
        0,
        penalty=constants.penalty,
        jitter=constants.jitter,
        smoothness=constants.smoothness,
        blur=constants.blur,
        total_variation=constants.total_variation,
    )
    least, greatest = constants.zoom
    check_positive(learning_rate=constants.learning_rate, zoom=least)
    if greatest < least:
        raise InputError(f"zoom {constants.zoom}: expected the lesser factor first")


def _count(targets: GivenTargets) -> int:
    """How many images are asked for."""
    if callable(targets):
        return 1
    numbers = jax.tree.leaves(targets) if isinstance(targets, Unit) else [targets]
    return max(jnp.size(number) for number in numbers)


def _images(
    shared: tuple[Classifier, Float[Array, "1 1 1 3"]],
    keys: Key[Array, "B"],
    targets: Targets,
    size: tuple[int, int],
    constants: Constants,
    shown: bool,
) -> tuple[Float[Array, "B H W 3"], Float[Array, "B T"]]:
    return _ascend(*shared, keys, targets, size=size, constants=constants, shown=shown)


@partial(jax.jit, static_argnames=("size", "constants", "shown"))
def _ascend(
    classifier: Classifier,
    mean: Float[Array, "1 1 1 3"],
    keys: Key[Array, "B"],
    targets: Targets,
    size: tuple[int, int],
    constants: Constants,
    shown: bool,
) -> tuple[Float[Array, "B H W 3"], Float[Array, "B T"]]:
    kind = constants.parametrisation
    optimiser = optax.adam(constants.learning_rate)

    def energy(
        canvas: Canvas, i: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, "B"]]:
        images = to_images(canvas, mean, size, kind, constants.smoothness)
        seen = images
        if constants.jitter or constants.zoom != (1.0, 1.0):
            drawn = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
            seen = mean + moved(drawn, images - mean, constants.jitter, constants.zoom)
        scores = scores_of(classifier, seen, targets, constants.output)
        weighted = constants.penalty * squares(images - mean)
        if constants.total_variation:
            weighted += constants.total_variation * (
                squares(images[:, 1:] - images[:, :-1])
                + squares(images[:, :, 1:] - images[:, :, :-1])
            )
        return jnp.sum(weighted - scores), scores

    def step(ascent: Ascent, i: Int[Array, ""]) -> tuple[Ascent, Float[Array, "B"]]:
        gradients, scores = jax.grad(energy, has_aux=True)(ascent.canvas, i)
        # JAX's gradient of a complex number is the conjugate of the steepest ascent.
        gradients = jnp.conj(gradients)
        updates, state = optimiser.update(gradients, ascent.optimiser)
        canvas = optax.apply_updates(ascent.canvas, updates)
        if constants.blur:
            canvas = jax.lax.cond(
                (i + 1) % constants.blur_every == 0,
                lambda canvas: blurred(canvas, constants.blur, size, kind),
                lambda canvas: canvas,
                canvas,
            )
        if shown:
            _report(i, constants.steps)
        return Ascent(canvas, state), scores

    canvas = blank(len(keys), size, kind)
    ascent = Ascent(canvas, optimiser.init(canvas))
    ascent, scores = jax.lax.scan(step, ascent, jnp.arange(constants.steps))
    images = to_images(ascent.canvas, mean, size, kind, constants.smoothness)
    return jnp.clip(images, 0.0, 1.0), scores.T


def squares(x: Float[Array, "B ..."]) -> Float[Array, "B"]:
    """The sum of squares of each."""
    return jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim)))


def moved(
    keys: Key[Array, "B"],
    images: Float[Array, "B H W 3"],
    jitter: int,
    zoom: tuple[float, float],
) -> Float[Array, "B H W 3"]:
    """Images moved and scaled about their centres, each in its own way.

    Args:
      keys: one for each image.
      images: what comes in from outside them is zero.
      jitter: pixels that an image is moved by at most, to any side.
      zoom: least and greatest factor; of its logarithm all values are as likely.
    """
    size = jnp.array(images.shape[1:3])

    def one(key: Key[Array, ""], image: Float[Array, "H W 3"]) -> Float[Array, "H W 3"]:
        shift_key, zoom_key = jax.random.split(key)
        shift = jax.random.randint(shift_key, (2,), -jitter, jitter + 1)
        low, high = np.log(zoom)
        scale = jnp.exp(jax.random.uniform(zoom_key, minval=low, maxval=high))
        return jax.image.scale_and_translate(
            image,
            image.shape,
            (0, 1),
            jnp.stack([scale, scale]),
            size / 2 * (1 - scale) + shift,
            method="linear",
        )

    return jax.vmap(one)(keys, images)


# Jitted code is compiled once for all bars, so it cannot hold the one of this call.
_bars: list[tqdm] = []


@contextlib.contextmanager
def _progress_bar(steps: int, shown: bool) -> Iterator[None]:
    """A bar that `_report` moves on."""
    with tqdm(total=steps, disable=not shown, unit="step") as bar:
        _bars.append(bar)
        try:
            yield
            jax.effects_barrier()
        finally:
            _bars.remove(bar)


def _report(i: Int[Array, ""], steps: int) -> None:
    """Moves the bar on, now and then, from within jitted code."""
    every = max(1, steps // REPORTS)

    def tell(i: Int[Array, ""]) -> None:
        jax.debug.callback(lambda i: _bars[-1].update(int(i) % every + 1), i)

    is_due = ((i + 1) % every == 0) | (i + 1 == steps)
    jax.lax.cond(is_due, tell, lambda i: None, i)
