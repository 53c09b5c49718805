"""KernelSHAP: Shapley values of superpixels, by a regression over coalitions.

Lundberg and Lee: A unified approach to interpreting model predictions (arXiv
1705.07874), section 4.1.
"""

from typing import get_args

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Bool, Float, Int, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_at_least,
    check_option,
    key_or_default,
    with_targets,
)
from saliency_jax.attribution.division import quotient
from saliency_jax.attribution.maps import Maps
from saliency_jax.attribution.perturbation.edits import Output, scores_of_images
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

# Of the greatest eigenvalue. A smaller one is a direction that the samples do not tell
# of, such as where they are fewer than the segments, and counts as zero.
CUTOFF = 1e-3
ENUMERABLE = 30


def kernel_shap(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    segments: Segments = "quickshift",
    max_segments: int | None = None,
    samples: int = 1000,
    value: HiddenColour = None,
    output: Output = "probability",
    return_aux: bool = False,
) -> Maps | tuple[Maps, dict[str, Array]]:
    """Shapley values: each superpixel's share in the score, over all coalitions.

    Lundberg and Lee (arXiv 1705.07874), equation 8 and theorem 2: a regression of the
    score on which superpixels are shown, with the weight
    `(n - 1) / (C(n, k) k (n - k))` of a coalition of k of n superpixels. Sizes are
    drawn in proportion to the weight of all coalitions of a size, coalitions of a size
    uniformly, and each coalition comes with its complement; all coalitions are
    enumerated where they are no more than the samples, and then the values are exact.
    The two coalitions of infinite weight, none and all, are constraints, which hold
    exactly: the values add up to the score less that of the image with all hidden.
    (captum draws alike, but gives these two a weight of a million.)

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`; a function is of the probabilities.
      key: decides the coalitions; None means `jax.random.key(0)`.
      batch_size: how many images go through the classifier at once; None means 32, or
        all images if they are more.
      segments: as for `lime`.
      max_segments: as for `lime`.
      samples: coalitions, besides none and all; more than there are segments.
      value: what hidden superpixels show: None, the mean colour of the classifier; a
        colour; or "segment", their own mean colour.
      output: "probability", or "logit".
      return_aux: also returns "coefficients" `[B, S]` (0 for numbers that an image does
        not have), "segments" `[B, H, W]`, and "baseline" `[B]`, the score with all
        superpixels hidden.

    Returns:
      float32 maps, signed: the value of each pixel's superpixel, in units of the
      output; or `(maps, aux)`.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    check_option("output", output, get_args(Output))
    check_at_least(1, samples=samples)
    key = key_or_default(key)
    cut, count = segmented(asked, images, segments, max_segments, value)
    if count <= ENUMERABLE:
        samples = min(samples, max(1, 2**count - 2))
    answers = scores_of_coalitions(asked, cut, draw, samples, output, key)
    hidden = painted(cut.hidden, cut.segments)
    nothing = scores_of_images(asked._replace(images=hidden), output)
    everything = scores_of_images(asked, output)
    values = _fitted(cut, answers, nothing, everything, key)
    maps = painted(values, cut.segments)
    if not return_aux:
        return maps
    return maps, {
        "coefficients": values[:, :count],
        "segments": cut.segments,
        "baseline": nothing,
    }


def draw(
    key: Key[Array, ""], sample: Int[Array, ""], used: Bool[Array, "S"], samples: int
) -> Bool[Array, "S"]:
    """Which segments a coalition has: neither none nor all, where there are two."""
    count = jnp.sum(used)
    of_size, of_members = jax.random.split(jax.random.fold_in(key, sample // 2))
    sizes = jnp.arange(1, len(used))
    masses = jnp.where(sizes < count, 1.0 / (sizes * jnp.maximum(count - sizes, 1)), 0)
    below = quotient(jnp.cumsum(masses), jnp.sum(masses))
    size = 1 + jnp.sum(below <= jax.random.uniform(of_size))
    size = jnp.minimum(size, count - 1)

    order = in_blocks(
        lambda key: jax.random.uniform(key, (BLOCK,)), of_members, len(used)
    )
    order = jnp.argsort(jnp.argsort(jnp.where(used, order, jnp.inf)))
    members = order < size
    drawn = used & jnp.where(sample % 2 == 0, members, ~members)

    places = jnp.clip(jnp.cumsum(used) - 1, 0, ENUMERABLE)
    listed = used & ((((sample + 1) >> places) & 1) == 1)
    return jnp.where(_all_fit(count, samples), listed, drawn)


def _all_fit(count: Int[Array, ""], samples: int) -> Bool[Array, ""]:
    """Whether there are as many samples as coalitions, besides none and all."""
    coalitions = (1 << jnp.minimum(count, ENUMERABLE)) - 2
    return (count <= ENUMERABLE) & (coalitions <= samples)


def _weights(shown: Float[Array, "N S"], count: Int[Array, ""]) -> Float[Array, "N"]:
    """Of drawn coalitions 1; of enumerated ones the kernel's, once for each."""
    samples = len(shown)
    size = jnp.sum(shown, axis=-1)
    inside = jnp.clip(size, 1, jnp.maximum(count - 1, 1))
    outside = jnp.maximum(count - inside, 1)
    ways = jnp.exp(gammaln(count + 1.0) - gammaln(inside + 1) - gammaln(outside + 1.0))
    kernel = 1.0 / (ways * inside * outside)
    once = jnp.arange(samples) < (1 << jnp.minimum(count, ENUMERABLE)) - 2
    return jnp.where(_all_fit(count, samples), jnp.where(once, kernel, 0.0), 1.0)


@jax.jit
def _fitted(
    cut: Segmented,
    answers: Float[Array, "B N"],
    nothing: Float[Array, "B"],
    everything: Float[Array, "B"],
    key: Key[Array, ""],
) -> Float[Array, "B S"]:
    """The values of each image, one after the other, to have few draws in memory."""
    samples = answers.shape[1]

    def of_image(inputs: tuple) -> Float[Array, "S"]:
        used, answers, nothing, everything = inputs
        shown = jax.vmap(lambda i: draw(key, i, used, samples))(jnp.arange(samples))
        return constrained(
            shown.astype(jnp.float32), answers, used, nothing, everything
        )

    return jax.lax.map(of_image, (cut.used, answers, nothing, everything))


def constrained(
    shown: Float[Array, "N S"],
    answers: Float[Array, "N"],
    used: Bool[Array, "S"],
    nothing: Float[Array, ""],
    everything: Float[Array, ""],
) -> Float[Array, "S"]:
    """Least squares under the two constraints.

    A value is the equal share in `everything - nothing` and a rest; the rests add up to
    zero, so they are fitted in coalitions less their mean.

    Args:
      shown: the coalitions.
      answers: their scores.
      used: which segments there are.
      nothing: the score of no segment.
      everything: the score of all.
    """
    product = lambda *x: jnp.einsum(*x, precision="highest")
    count = jnp.sum(used)
    share = (everything - nothing) / count
    weights = _weights(shown, count)
    weights = quotient(weights, jnp.sum(weights))
    size = jnp.sum(shown, axis=-1)
    rest = answers - nothing - size * share
    centred = (shown - (size / count)[:, None]) * used[None]
    weighted = centred * weights[:, None]
    normal = product("ns,nt->st", weighted, centred)
    inverse = jnp.linalg.pinv(normal, rtol=CUTOFF, hermitian=True)
    values = product("st,nt,n->s", inverse, weighted, rest)
    values = values - jnp.sum(values * used) / count
    return jnp.where(used, values + share, 0.0)
