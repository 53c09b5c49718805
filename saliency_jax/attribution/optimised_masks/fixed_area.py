"""Extremal perturbations: the mask of a given area that serves the class best.

Fong, Patrick and Vedaldi: Understanding deep networks via extremal perturbations and
smooth masks (arXiv 1910.08485), with the constants of the authors' TorchRay.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

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
    classes_only,
    with_targets,
)
from saliency_jax.attribution.batching import in_batches, of_each_image, repeat
from saliency_jax.attribution.layers import Targets, target_scores
from saliency_jax.attribution.optimised_masks.blending import blurred_by, scaled
from saliency_jax.attribution.optimised_masks.coarse_masks import (
    BLUR_REACH,
    smooth_maximum,
)
from saliency_jax.attribution.scores import scores_of
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.removal import gaussian_blur

MOMENTUM = 0.9
COLDEST = 80.0

Variant = Literal["preserve", "delete", "dual"]

Reward = Literal["logit", "contrastive"]

Shares = float | Sequence[float] | Float[Array | np.ndarray, "_"]


class Constants(NamedTuple):
    """The options of `extremal_perturbation` that are static in jitted code."""

    variant: str
    steps: int
    learning_rate: float
    area_weight: float
    area_growth: float
    reward: str
    cell: float
    sigma: float
    coldness: float
    levels: int
    blur: float
    margin: float
    mirror: bool


class Ascent(NamedTuple):
    """An ascent under way; of each mask by itself."""

    cells: Float[Array, "B h w"]
    velocity: Float[Array, "B h w"]
    rewards: Float[Array, "B T"]
    penalties: Float[Array, "B T"]


def extremal_perturbation(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    variant: Variant = "preserve",
    areas: Shares = 0.1,
    steps: int = 800,
    learning_rate: float = 0.01,
    area_weight: float = 300.0,
    area_growth: float = 1.0035,
    reward: Reward = "logit",
    cell: float = 7.0,
    sigma: float = 21.0,
    coldness: float = 20.0,
    levels: int = 8,
    blur: float = 20.0,
    margin: float = 21.0,
    mirror: bool = True,
    smooth: float = 0.0,
    return_aux: bool = False,
) -> Float[Array, "B H W"] | tuple[Float[Array, "B H W"], dict[str, Array]]:
    """Optimises a smooth mask of a given area to show as much of the class as it can.

    Fong, Patrick and Vedaldi (arXiv 1910.08485). Maximises `reward - weight *
    mean((sort(m) - r)^2)`, where r is 1 for as many pixels as the area has and 0 for
    the rest, by gradient ascent with momentum on a grid of cells in [0, 1]. The
    mask is the smooth maximum of all cells near a pixel, each times a kernel of its
    distance. Where the mask is below 1 the image is blurred, the more the lower it is.
    All lengths are in pixels of a 224x224 image. The defaults are TorchRay's, but
    an area is a share of the image; TorchRay's is one of the image and its margin.

    Variants:
      preserve: the reward is the class's logit where the mask is kept.
      delete: minus its logit where the mask is blurred.
      dual: the sum of both, so two edited images for each mask.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: a class, or one for each image; a function from an image's logits `[K]`
        to a number; a `Unit` of a layer; None for the predicted class.
      key: not used; all methods take one.
      batch_size: how many edited images go through the classifier at once, at least the
        two of one mask for "dual"; None means 32, or all images if they are more.
      variant: see above.
      areas: the share of the image that a mask shows; of several, the masks are summed,
        as in the pointing game with (0.025, 0.05, 0.1, 0.2).
      steps: of the ascent.
      learning_rate: of the ascent, whose momentum and dampening are 0.9.
      area_weight: of the area's penalty in the first step.
      area_growth: what it is multiplied by after each step.
      reward: "logit", or "contrastive", the logit minus the best other one.
      cell: side of a cell.
      sigma: width of the kernel `exp(-2 max(d / sigma - 0.5, 0)^2)`.
      coldness: of the smooth maximum; at most 80.
      levels: of blur, from `blur` to none.
      blur: standard deviation of the strongest.
      margin: how far around the image the mask's area counts too. Without it masks
        gather in corners, where most of a cell's area is free.
      mirror: whether every second step, from the first on, sees the image mirrored.
      smooth: standard deviation of a blur of the map, as a share of the shorter side;
        0.09 in the pointing game.
      return_aux: whether to return, besides, the "masks" of each area, `[B, A, H, W]`,
        and, before every step, "rewards" and weighted "penalties", `[B, A, steps]`.

    Returns:
      float32 maps, the sum of masks in [0, 1] of all areas; 1 = kept, or blurred if the
      variant is "delete".

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    constants = Constants(
        variant,
        steps,
        learning_rate,
        area_weight,
        area_growth,
        reward,
        cell,
        sigma,
        coldness,
        levels,
        blur,
        margin,
        mirror,
    )
    areas = _as_floats(areas)
    _check(constants, areas, smooth)
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    if reward == "contrastive":
        classes_only("extremal_perturbation with reward='contrastive'", asked.targets)
    count, size = len(asked.images), asked.images.shape[1:3]
    of_items = of_each_image(
        lambda x: jnp.repeat(x, len(areas), axis=0), (asked.images, asked.targets)
    )
    margin_too = math.prod(side + 2 * _margin(constants, size) for side in size)
    hidden = [min(int(margin_too - a * math.prod(size)), margin_too - 1) for a in areas]
    masks, *curves = in_batches(
        _masks,
        max(1, asked.batch_size // (2 if variant == "dual" else 1)),
        asked.classifier,
        *of_items,
        jnp.tile(jnp.asarray(hidden), count),
        constants=constants,
    )
    masks = masks.reshape(count, len(areas), *size)
    maps = jnp.sum(masks, axis=1)
    if smooth:
        maps = gaussian_blur(maps[..., None], smooth * min(size), BLUR_REACH)[..., 0]
    if not return_aux:
        return maps
    rewards, penalties = (x.reshape(count, len(areas), steps) for x in curves)
    return maps, {"masks": masks, "rewards": rewards, "penalties": penalties}


def _as_floats(areas: Shares) -> tuple[float, ...]:
    """One share or several as a tuple, whose values are still to be checked.

    Raises:
      InputError: they are no numbers, or no plain list of them.
    """
    try:
        given = np.atleast_1d(np.asarray(areas, float))
    except (TypeError, ValueError):  # such as names, or rows of two lengths
        given = None
    if given is None or given.ndim > 1:
        raise InputError(f"areas={areas!r}: expected one share of the image, or a list")
    return tuple(given.tolist())


def _check(constants: Constants, areas: tuple[float, ...], smooth: float) -> None:
    check_option("variant", constants.variant, get_args(Variant))
    check_option("reward", constants.reward, get_args(Reward))
    if not areas or not all(0 < area <= 1 for area in areas):
        raise InputError(f"areas={areas}: expected shares of the image, above 0 to 1")
    check_at_least(1, steps=constants.steps)
    check_at_least(2, levels=constants.levels)
    check_at_least(0, margin=constants.margin, blur=constants.blur, smooth=smooth)
    check_positive(
        cell=constants.cell, sigma=constants.sigma, coldness=constants.coldness
    )
    if constants.coldness > COLDEST:
        raise InputError(
            f"coldness is {constants.coldness}: it must be at most {COLDEST}, so that "
            f"float32 holds its exponential"
        )


def _margin(constants: Constants, size: tuple[int, int]) -> int:
    return round(scaled(constants.margin, size))


def _masks(
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    targets: Targets,
    hidden: Int[Array, "B"],
    constants: Constants,
) -> tuple[Float[Array, "B H W"], Float[Array, "B T"], Float[Array, "B T"]]:
    pyramid, ascent = _begin(images, constants)
    ascent = repeat(
        _step,
        ascent,
        constants.steps,
        classifier,
        pyramid,
        targets,
        hidden,
        constants=constants,
    )
    masks = _shown(ascent.cells, pyramid, constants)
    return masks, ascent.rewards, ascent.penalties


@partial(jax.jit, static_argnames="constants")
def _begin(
    images: Float[Array, "B H W C"], constants: Constants
) -> tuple[Float[Array, "B L H W C"], Ascent]:
    """The image with every strength of blur, the strongest first; all cells at 1."""
    size = images.shape[1:3]
    sigmas = scaled(constants.blur, size) * np.linspace(1, 0, constants.levels)
    pyramid = jnp.stack(
        [gaussian_blur(images, float(sigma), BLUR_REACH) for sigma in sigmas], axis=1
    )
    side = _side(constants, size)
    cells = jnp.ones((len(images), *(-(-pixels // side) for pixels in size)))
    curves = jnp.zeros((len(images), constants.steps))
    return pyramid, Ascent(cells, jnp.zeros_like(cells), curves, curves)


def _side(constants: Constants, size: tuple[int, int]) -> int:
    return max(1, round(scaled(constants.cell, size)))


def _drawn(
    cells: Float[Array, "B h w"], size: tuple[int, int], constants: Constants
) -> tuple[Float[Array, "B H W"], Float[Array, "B _ _"]]:
    """The masks, and the same with the margin."""
    margin = _margin(constants, size)
    masks = smooth_maximum(
        cells,
        size,
        margin,
        _side(constants, size),
        scaled(constants.sigma, size),
        constants.coldness,
    )
    height, width = size
    return masks[:, margin : margin + height, margin : margin + width], masks


@partial(jax.jit, static_argnames="constants")
def _shown(
    cells: Float[Array, "B h w"],
    pyramid: Float[Array, "B L H W C"],
    constants: Constants,
) -> Float[Array, "B H W"]:
    return _drawn(cells, pyramid.shape[2:4], constants)[0]


def area_penalty(
    masks: Float[Array, "B H W"], hidden: Int[Array, "B"]
) -> Float[Array, "B"]:
    """`mean((sort(m) - r)^2)`: how far sorted masks are from `hidden` zeros, then ones.

    Which of equal pixels comes first is no one's choice: they share the gradient. (In
    the order of the image all masks would begin in its last rows.)

    Args:
      masks: of any size.
      hidden: how many pixels should be 0; fewer than there are.
    """
    pixels = masks.reshape(len(masks), -1)
    fixed = jax.lax.stop_gradient(pixels)
    first = jnp.take_along_axis(jnp.sort(fixed, axis=1), hidden[:, None], axis=1)
    above, equal = fixed > first, fixed == first
    shown = pixels.shape[1] - hidden - jnp.sum(above, axis=1)
    share = (shown / jnp.sum(equal, axis=1))[:, None]
    wanted = jnp.where(above, 1.0, jnp.where(equal, share, 0.0))
    # (m - r)^2 where r is 0 or 1, also in the mean over equal pixels.
    return jnp.mean(pixels**2 - 2 * pixels * wanted + wanted, axis=1)


def _reward(
    classifier: Classifier,
    edited: Float[Array, "B H W C"],
    targets: Targets,
    reward: str,
) -> Float[Array, "B"]:
    if reward == "logit":
        return scores_of(classifier, edited, targets, "logit")
    logits = classifier(edited).astype(jnp.float32)
    is_chosen = jnp.arange(logits.shape[-1])[None] == targets[:, None]
    best_other = jnp.max(jnp.where(is_chosen, -jnp.inf, logits), axis=-1)
    return target_scores(logits, targets) - best_other


@partial(jax.jit, static_argnames="constants")
def _step(
    ascent: Ascent,
    i: Int[Array, ""],
    classifier: Classifier,
    pyramid: Float[Array, "B L H W C"],
    targets: Targets,
    hidden: Int[Array, "B"],
    constants: Constants,
) -> Ascent:
    variant = constants.variant
    weight = constants.area_weight * constants.area_growth ** i.astype(jnp.float32)

    def energy(
        cells: Float[Array, "B h w"],
    ) -> tuple[Float[Array, ""], tuple[Float[Array, "B"], Float[Array, "B"]]]:
        masks, with_margin = _drawn(cells, pyramid.shape[2:4], constants)
        shown = {"preserve": [masks], "delete": [1 - masks], "dual": [masks, 1 - masks]}
        edited = [blurred_by(pyramid, shown) for shown in shown[variant]]
        times = len(edited)
        edited = jnp.concatenate(edited)
        if constants.mirror:
            edited = jnp.where(i % 2 == 0, edited[:, :, ::-1], edited)
        of_edited = of_each_image(lambda x: jnp.concatenate(times * [x]), targets)
        scores = _reward(classifier, edited, of_edited, constants.reward)
        signs = {"preserve": [1.0], "delete": [-1.0], "dual": [1.0, -1.0]}[variant]
        rewards = jnp.asarray(signs) @ scores.reshape(times, -1)
        penalties = weight * area_penalty(with_margin, hidden)
        return jnp.sum(rewards - penalties), (rewards, penalties)

    gradients, (rewards, penalties) = jax.grad(energy, has_aux=True)(ascent.cells)
    # As in PyTorch, the first step is not dampened.
    velocity = jnp.where(
        i == 0, gradients, MOMENTUM * ascent.velocity + (1 - MOMENTUM) * gradients
    )
    return Ascent(
        jnp.clip(ascent.cells + constants.learning_rate * velocity, 0.0, 1.0),
        velocity,
        ascent.rewards.at[:, i].set(rewards),
        ascent.penalties.at[:, i].set(penalties),
    )
