"""From a saliency map to an object: colour models, a graph cut, a box.

Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks" (arXiv
1312.6034), section 3.2: the most and the least salient pixels are seeds, the colours of
either kind have a Gaussian mixture, a graph cut (Boykov and Jolly, ICCV 2001) divides
the image, and the object is the largest connected part of the foreground. What they do
not publish is as in GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004).

With y of each pixel 1 (object) or 0, the cut minimises, in nats,

    E(y) = sum_p -log p(colour of p | y_p) + sum_{p, q neighbours} w_pq [y_p != y_q]
    w_pq = gamma / |p - q| * exp(-beta ||I_p - I_q||^2)
    beta = 1 / (2 mean ||I_p - I_q||^2)

All of it is on the host. SciPy finds the maximum flow: it is maintained, permissively
licensed and already needed. PyMaxflow is two to four times as fast, but under the GPL
and without wheels for Python 3.14; OpenCV's GrabCut too, but its gamma and its number
of Gaussians are fixed, and its likelihoods underflow in images of flat colours.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, get_args

import cv2
import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from scipy import sparse
from scipy.sparse import csgraph

from saliency_jax.attribution.asking import (
    check_at_least,
    check_option,
)
from saliency_jax.colour_models import colour_evidence
from saliency_jax.errors import InputError
from saliency_jax.masking import check_images

Seeds = Literal["hard", "soft"]
Variant = Literal["seeds", "grabcut"]

# Half of the 8 neighbours, as (rows down, columns to the right); the other pixel of the
# pair has the other half.
_OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))

_GRABCUT_ROUNDS = 5

# SciPy's flows are int32. At gamma = 50 a unit is a hundredth of a nat.
_UNITS_OF_GREATEST_WEIGHT = 5000


def graph_cut(
    images: Num[np.ndarray, "..."],
    maps: Num[np.ndarray, "..."],
    *,
    foreground: float = 0.95,
    background: float = 0.30,
    components: int = 5,
    gamma: float = 50.0,
    seeds: Seeds = "hard",
    variant: Variant = "seeds",
) -> Bool[np.ndarray, "B H W"]:
    """Finds the object that a saliency map points at.

    Published are the two quantiles, the mixtures, the cut and the largest component.
    Not published are the number of Gaussians, gamma and beta (GrabCut's here), the
    neighbourhood (8 pixels here), and whether seeds may change sides. The component is
    4-connected, as it is where boxes are made of masks.

    Args:
      images: `[B, H, W, 3]`, `uint8` or floats in [0, 1]; used in 8 bits.
      maps: `[B, H, W]`, finite; only their order counts, so of a signed map the pixels
        that speak against the class are background.
      foreground: pixels at or above this quantile of their map are foreground seeds.
      background: pixels at or below this one are background seeds.
      components: Gaussians in a mixture; fewer where there are fewer colours.
      gamma: weight of the contrast term in nats; with 0 each pixel decides by itself.
      seeds: "hard", which stay on their side, as in Boykov and Jolly; or "soft", which
        are no more than what the mixtures are fitted to.
      variant: "seeds", where the mixtures are those of the seeds; or "grabcut", where
        five rounds of OpenCV's GrabCut follow, in each of which they are fitted anew to
        either side. It has 5 Gaussians and a gamma of 50 whatever is asked for here.

    Returns:
      True on the object. All False where a map is constant, and where soft seeds end up
      all in the background.

    Raises:
      InputError: arrays that do not fit each other, values that are not finite or not
        in [0, 1], or an option out of its range.
    """
    images = _checked(images, maps)
    if not 0 <= background < foreground <= 1:
        raise InputError(
            f"background={background} and foreground={foreground}: expected quantiles "
            f"with 0 <= background < foreground <= 1"
        )
    check_at_least(1, components=components)
    check_at_least(0, gamma=gamma)
    check_option("seeds", seeds, get_args(Seeds))
    check_option("variant", variant, get_args(Variant))
    of_one = partial(
        _object,
        quantiles=(background, foreground),
        components=components,
        gamma=gamma,
        seeds=seeds,
        variant=variant,
    )
    # The flow itself holds Python's lock; the rest of an image's work does not.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(of_one, images, np.asarray(maps))))


def _checked(
    images: Num[np.ndarray, "..."], maps: Num[np.ndarray, "..."]
) -> UInt8[np.ndarray, "B H W 3"]:
    """The images in 8 bits."""
    check_images(images, channels=3)
    if np.shape(maps) != images.shape[:3]:
        raise InputError(
            f"maps of shape {np.shape(maps)} for images of shape {images.shape}: "
            f"expected {images.shape[:3]}"
        )
    if not np.isfinite(maps).all():
        raise InputError(
            "the maps are not finite: pass maps without NaN and infinity, or leave "
            "those images out"
        )
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    if not (images.dtype.kind == "f" and images.min() >= 0 and images.max() <= 1):
        raise InputError(
            f"images of type {images.dtype} with values other than floats in [0, 1]: "
            f"pass those, or uint8"
        )
    return np.rint(255 * images).astype(np.uint8)


def _object(
    image: UInt8[np.ndarray, "H W 3"],
    saliency: Num[np.ndarray, "H W"],
    quantiles: tuple[float, float],
    components: int,
    gamma: float,
    seeds: str,
    variant: str,
) -> Bool[np.ndarray, "H W"]:
    """The object of one image."""
    if saliency.min() == saliency.max():
        return np.zeros(saliency.shape, bool)
    salient, dull = find_seeds(saliency, *quantiles)
    evidence = colour_evidence(image, salient, dull, components)
    weights = contrast_weights(image, gamma)
    if seeds == "soft":
        salient = dull = np.zeros_like(salient)
    cut = minimum_cut(evidence, weights, salient, dull)
    if variant == "grabcut" and cut.any() and not cut.all():
        cut = _refined(image, cut, salient, dull)
    return _largest_component(cut)


def find_seeds(
    saliency: Num[np.ndarray, "H W"], background: float, foreground: float
) -> tuple[Bool[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Finds the foreground and the background seeds of a map that is not constant.

    Where both quantiles are one value, as in a map that is zero nearly everywhere, a
    pixel of that value would be both. There the seeds are the pixels above it and the
    pixels below it; where there are none on one of the sides, the pixels of that value
    take their place.

    Args:
      saliency: the map.
      background: quantile.
      foreground: quantile, the greater one.
    """
    low, high = np.quantile(saliency, (background, foreground))
    if low < high:
        return saliency >= high, saliency <= low
    above, below = saliency > high, saliency < low
    return (above if above.any() else ~below), (below if below.any() else ~above)


def contrast_weights(
    image: UInt8[np.ndarray, "H W 3"], gamma: float
) -> list[Float[np.ndarray, "_ _"]]:
    """What it costs to part neighbours: little across edges of the image.

    Returns:
      The weights w of pairs of neighbours: to the right, below, below to the right and
      below to the left of a pixel. In nats.
    """
    colours = image.astype(np.float64)
    squares = [
        ((first - second) ** 2).sum(axis=-1)
        for first, second in (_neighbours(colours, offset) for offset in _OFFSETS)
    ]
    mean = sum(of_one.sum() for of_one in squares) / sum(map(np.size, squares))
    beta = 1 / (2 * mean) if mean else 0.0
    return [
        gamma / np.hypot(*offset) * np.exp(-beta * of_one)
        for offset, of_one in zip(_OFFSETS, squares, strict=True)
    ]


def _neighbours(
    values: Num[np.ndarray, "H W *C"], offset: tuple[int, int]
) -> tuple[Num[np.ndarray, "h w *C"], Num[np.ndarray, "h w *C"]]:
    """Views of the first and the second pixel of each pair."""
    (height, width), (down, right) = values.shape[:2], offset
    left = max(0, -right)
    first = values[: height - down, left : width - max(0, right)]
    return first, values[down:, max(0, right) : width - left]


def minimum_cut(
    evidence: Float[np.ndarray, "H W"],
    weights: Sequence[Float[np.ndarray, "_ _"]],
    foreground: Bool[np.ndarray, "H W"],
    background: Bool[np.ndarray, "H W"],
) -> Bool[np.ndarray, "H W"]:
    """Divides an image at the least cost, with hard seeds.

    The least among all divisions, but for weights and evidence being rounded to 1/5000
    of the greatest weight (of 1 nat, if that is below it). Of equals the one with the
    smallest foreground.

    Args:
      evidence: for the foreground, in nats; see `colour_evidence`.
      weights: of pairs of neighbours; see `contrast_weights`.
      foreground: pixels that must be in it.
      background: pixels that must be out of it.
    """
    units = _UNITS_OF_GREATEST_WEIGHT / max(1.0, *(w.max(initial=0) for w in weights))
    weights = [np.rint(units * weight) for weight in weights]
    evidence = np.rint(units * evidence)
    around = np.zeros(evidence.shape)
    for offset, weight in zip(_OFFSETS, weights, strict=True):
        for side in _neighbours(around, offset):
            side += weight
    # Evidence that outweighs all neighbours decides. A pixel that is decided is the
    # terminal itself: fewer nodes, and no large capacities.
    inside = foreground | ((evidence > around) & ~background)
    outside = background | ((evidence < -around) & ~foreground)
    pixels = evidence.size
    source, sink = pixels, pixels + 1
    numbers = np.arange(pixels).reshape(evidence.shape)
    nodes = np.where(inside, source, np.where(outside, sink, numbers))
    is_open = nodes < source

    tails, heads, capacities = [], [], []
    for offset, weight in zip(_OFFSETS, weights, strict=True):
        first, second = _neighbours(nodes, offset)
        kept = (np.minimum(first, second) < source) & (weight > 0)
        tails += [first[kept], second[kept]]
        heads += [second[kept], first[kept]]
        capacities += [weight[kept]] * 2
    for_it, against_it = is_open & (evidence > 0), is_open & (evidence < 0)
    tails += [np.full(for_it.sum(), source), nodes[against_it]]
    heads += [nodes[for_it], np.full(against_it.sum(), sink)]
    capacities += [evidence[for_it], -evidence[against_it]]

    graph = sparse.csr_array(
        (
            np.concatenate(capacities).astype(np.int32),
            (np.concatenate(tails), np.concatenate(heads)),
        ),
        shape=(pixels + 2, pixels + 2),
    )
    residual = graph - csgraph.maximum_flow(graph, source, sink).flow
    residual.eliminate_zeros()
    reached = csgraph.breadth_first_order(residual, source, return_predecessors=False)
    is_reached = np.zeros(pixels + 2, bool)
    is_reached[reached] = True
    return is_reached[nodes]


def _refined(
    image: UInt8[np.ndarray, "H W 3"],
    cut: Bool[np.ndarray, "H W"],
    foreground: Bool[np.ndarray, "H W"],
    background: Bool[np.ndarray, "H W"],
) -> Bool[np.ndarray, "H W"]:
    """The cut after rounds of OpenCV's GrabCut."""
    labels = np.where(cut, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[foreground], labels[background] = cv2.GC_FGD, cv2.GC_BGD
    cv2.setRNGSeed(0)  # of this thread; its k-means draws
    cv2.grabCut(
        np.ascontiguousarray(image),
        labels,
        None,
        None,
        None,
        _GRABCUT_ROUNDS,
        cv2.GC_INIT_WITH_MASK,
    )
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _largest_component(binary: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        binary.view(np.uint8), connectivity=4
    )
    if count == 1:
        return binary
    return labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
