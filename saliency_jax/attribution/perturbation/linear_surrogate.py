"""LIME: a linear model of the score, in which superpixels are shown.

Ribeiro, Singh and Guestrin: "Why should I trust you?" Explaining the predictions of any
classifier (arXiv 1602.04938).
"""

from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_at_least,
    check_option,
    check_positive,
    key_or_default,
    with_targets,
)
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.maps import Maps
from saliency_jax.attribution.perturbation.edits import Output
from saliency_jax.attribution.perturbation.segments import (
    BLOCK,
    HiddenColour,
    Segmented,
    Segments,
    in_blocks,
    painted,
    scores_of_coalitions,
    segmented,
)
from saliency_jax.models.classifier import Classifier

Variant = Literal["lime", "captum", "xplique"]

KERNEL_WIDTHS = {"lime": 0.25, "captum": 1.0, "xplique": 45.0}


def lime(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    segments: Segments = "quickshift",
    max_segments: int | None = None,
    samples: int = 1000,
    value: HiddenColour = "segment",
    variant: Variant = "lime",
    kernel_width: float | None = None,
    penalty: float = 1.0,
    output: Output = "probability",
    return_aux: bool = False,
) -> Maps | tuple[Maps, dict[str, Array]]:
    """The coefficients of a linear model of the score, fitted near the image.

    Ribeiro et al. (arXiv 1602.04938), for images as in their library. The features are
    the superpixels: each sample shows each of them with a probability of one half, the
    first sample shows all. A ridge regression with an intercept, weighted by how near a
    sample is to the image, predicts the score from which superpixels are shown. All
    superpixels stay in the model, as in the library by default.

    Variants, of the weight of a sample at the distance d and the width w:
      "lime": `sqrt(exp(-d^2 / w^2))`, d the cosine distance to the vector of ones of
        the vector of which superpixels are shown, w = 0.25 (the authors' library).
      "captum": `exp(-d^2 / 2w^2)`, d the cosine distance between the images, normalised
        as the classifier sees them, w = 1. (captum's regression is a lasso.)
      "xplique": `exp(-d^2 / w^2)`, d the Euclidean distance between the images in
        [0, 1], w = 45. (xplique has `penalty=2`, `value=0.5` and 150 samples.)

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`; a function is of the probabilities.
      key: decides the samples, which are the same for all images; None means
        `jax.random.key(0)`.
      batch_size: how many images go through the classifier at once; None means 32, or
        all images if they are more.
      segments: "quickshift" or "slic", made on the host and so not inside `jax.jit`;
        "grid", 8 times 8 rectangles; or an array `[B, H, W]`, such as of
        `attribution.perturbation.segments.superpixels`, or `[H, W]` for all images.
      max_segments: more than the greatest number in `segments`; needed where these are
        an array inside `jax.jit`.
      samples: of each image.
      value: what hidden superpixels show: "segment", their mean colour; a colour; or
        None, the mean colour of the classifier.
      variant: see above.
      kernel_width: w; None: the variant's.
      penalty: of the squares of the coefficients, LIME's alpha; above 0.
      output: "probability", or "logit".
      return_aux: also returns "coefficients" `[B, S]` (0 for numbers that an image does
        not have), "segments" `[B, H, W]`, "intercept" `[B]`, and "score" `[B]`, the
        weighted R^2 of the linear model (0 where all answers are the same).

    Returns:
      float32 maps, signed: the coefficient of each pixel's superpixel, in units of the
      output; or `(maps, aux)`.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    check_option("output", output, get_args(Output))
    check_option("variant", variant, get_args(Variant))
    check_at_least(1, samples=samples)
    check_positive(penalty=penalty)
    kernel_width = KERNEL_WIDTHS[variant] if kernel_width is None else kernel_width
    key = key_or_default(key)
    cut, count = segmented(asked, images, segments, max_segments, value)
    answers = scores_of_coalitions(asked, cut, draw, samples, output, key)
    coefficients, intercept, score = _fitted(
        asked.classifier,
        asked.images,
        cut,
        answers,
        key,
        jnp.asarray(kernel_width, jnp.float32),
        jnp.asarray(penalty, jnp.float32),
        variant=variant,
    )
    maps = painted(coefficients, cut.segments)
    if not return_aux:
        return maps
    return maps, {
        "coefficients": coefficients[:, :count],
        "segments": cut.segments,
        "intercept": intercept,
        "score": score,
    }


def draw(
    key: Key[Array, ""], sample: Int[Array, ""], used: Bool[Array, "S"], samples: int
) -> Bool[Array, "S"]:
    """Which segments a sample shows: the first all, the others each by a coin."""
    coins = in_blocks(
        lambda key: jax.random.bernoulli(key, 0.5, (BLOCK,)),
        jax.random.fold_in(key, sample),
        len(used),
    )
    return used & (coins | (sample == 0))


@partial(jax.jit, static_argnames="variant")
def _fitted(
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    cut: Segmented,
    answers: Float[Array, "B N"],
    key: Key[Array, ""],
    kernel_width: Float[Array, ""],
    penalty: Float[Array, ""],
    variant: Variant,
) -> tuple[Float[Array, "B S"], Float[Array, "B"], Float[Array, "B"]]:
    """Coefficients, intercept and R^2 of each image, one after the other.

    So no more is in memory than the N times S draws of one image.
    """
    samples = answers.shape[1]

    def of_image(inputs: tuple) -> tuple[Array, Array, Array]:
        image, cut, answers = inputs
        shown = jax.vmap(lambda i: draw(key, i, cut.used, samples))(jnp.arange(samples))
        shown = shown.astype(jnp.float32)
        nearness = _nearness(classifier, image, cut, shown, kernel_width, variant)
        return ridge(shown, answers, nearness, penalty)

    return jax.lax.map(of_image, (images, cut, answers))


def _nearness(
    classifier: Classifier,
    image: Float[Array, "H W C"],
    cut: Segmented,
    shown: Float[Array, "N S"],
    width: Float[Array, ""],
    variant: Variant,
) -> Float[Array, "N"]:
    """The weight of each sample.

    Distances between images are sums over segments, so no sample is made again.

    Args:
      classifier: its normalisation counts for captum's.
      image: the whole one.
      cut: of this image, without the axis of images.
      shown: 1 where a sample shows a segment.
      width: of the kernel.
      variant: see `lime`.
    """
    if variant == "lime":
        share = jnp.sum(shown, axis=-1) / jnp.sum(cut.used)
        return jnp.exp(-((1.0 - jnp.sqrt(share)) ** 2) / width**2 / 2)
    mean, std = (
        jnp.asarray(x, jnp.float32)[None] for x in (classifier.mean, classifier.std)
    )
    if variant == "xplique":
        mean, std = jnp.zeros_like(mean), jnp.ones_like(std)
    own, hidden = (cut.mean - mean) / std, (cut.hidden - mean) / std
    spread = (image - cut.mean[cut.segments]) / std[None]
    within = _sums_by_segment(jnp.sum(spread**2, axis=-1), cut.segments, len(own))
    dot = partial(jnp.einsum, "ns,s->n", precision="highest")
    if variant == "xplique":
        far = within + cut.pixels * jnp.sum((own - hidden) ** 2, axis=-1)
        return jnp.exp(-dot(1.0 - shown, far) / width**2)
    squares = within + cut.pixels * jnp.sum(own**2, axis=-1)
    crossed = cut.pixels * jnp.sum(own * hidden, axis=-1)
    of_hidden = cut.pixels * jnp.sum(hidden**2, axis=-1)
    product = dot(shown, squares) + dot(1.0 - shown, crossed)
    norms = (dot(shown, squares) + dot(1.0 - shown, of_hidden)) * jnp.sum(squares)
    # An image without anything is at right angles to all.
    cosine = jnp.where(norms > 0, product / jnp.sqrt(jnp.maximum(norms, 1e-30)), 0.0)
    return jnp.exp(-((1.0 - cosine) ** 2) / (2 * width**2))


def _sums_by_segment(
    values: Float[Array, "H W"], segments: Int[Array, "H W"], count: int
) -> Float[Array, "S"]:
    of_segment = lambda number: jnp.sum(jnp.where(segments == number, values, 0.0))
    return jax.lax.map(of_segment, jnp.arange(count))


def ridge(
    features: Float[Array, "N S"],
    answers: Float[Array, "N"],
    weights: Float[Array, "N"],
    penalty: Float[Array, ""],
) -> tuple[Float[Array, "S"], Float[Array, ""], Float[Array, ""]]:
    """Weighted ridge regression with an intercept, which is not penalised.

    Args:
      features: a constant one gets the coefficient 0.
      answers: to predict.
      weights: of the samples, not all 0.
      penalty: above 0.

    Returns:
      Coefficients, intercept and R^2, the share of the weighted variance that the model
      explains (0 where there is none).
    """
    product = partial(jnp.einsum, precision="highest")
    share = weights / jnp.sum(weights)
    feature_mean = product("n,ns->s", share, features)
    answer_mean = jnp.sum(share * answers)
    features = features - feature_mean[None]
    centred = answers - answer_mean
    weighted = features * weights[:, None]
    normal = product("ns,nt->st", weighted, features)
    normal += penalty * jnp.eye(features.shape[1])
    coefficients = jax.scipy.linalg.solve(
        normal, product("ns,n->s", weighted, centred), assume_a="pos"
    )
    rest = centred - product("ns,s->n", features, coefficients)
    variance = jnp.sum(share * centred**2)
    unexplained = quotient(jnp.sum(share * rest**2), variance)
    score = jnp.where(variance > 0, 1.0 - unexplained, 0.0)
    intercept = answer_mean - jnp.sum(feature_mean * coefficients)
    return coefficients, intercept, score
