"""How much two maps of one image say the same.

The four figures are those by which Adebayo et al., "Sanity checks for saliency maps"
(arXiv 1810.03292), compare maps: Spearman's rank correlation of the raw maps and of
their absolute values, structural similarity, and the correlation of histograms of
oriented gradients. They do not state the settings of the last two; ours are the
constants of this file, from the papers that define the figures.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from saliency_jax.errors import InputError

# Of Wang et al., "Image quality assessment: from error visibility to structural
# similarity" (IEEE TIP 2004): a Gaussian window of 11 x 11 pixels.
WINDOW = 11
WINDOW_SIGMA = 1.5

# Of Dalal and Triggs, "Histograms of oriented gradients for human detection" (CVPR
# 2005): unsigned directions, cells in pixels, blocks in cells.
ORIENTATIONS = 9
CELL = 8
BLOCK = 2

Features = Callable[[Float[np.ndarray, "H W"]], Float[np.ndarray, "P"]]


class Similarities(NamedTuple):
    """Of each image's two maps.

    Attributes:
      spearman: rank correlation of the raw maps, in [-1, 1].
      spearman_absolute: rank correlation of their absolute values, in [-1, 1].
      ssim: structural similarity, in [-1, 1].
      hog: correlation of histograms of oriented gradients, in [-1, 1].
    """

    spearman: Float[np.ndarray, "B"]
    spearman_absolute: Float[np.ndarray, "B"]
    ssim: Float[np.ndarray, "B"]
    hog: Float[np.ndarray, "B"]


def similarities(
    maps: Float[np.ndarray, "B H W"], others: Float[np.ndarray, "B H W"]
) -> Similarities:
    """All four figures of each map and another of the same image.

    Raises:
      InputError: as the four functions raise.
    """
    return Similarities(
        rank_correlation(maps, others),
        rank_correlation(maps, others, absolute=True),
        structural_similarity(maps, others),
        hog_correlation(maps, others),
    )


def rank_correlation(
    maps: Float[np.ndarray, "B H W"],
    others: Float[np.ndarray, "B H W"],
    *,
    absolute: bool = False,
) -> Float[np.ndarray, "B"]:
    """Spearman's rank correlation of each map with another of the same image.

    Args:
      maps: raw.
      others: of the same images.
      absolute: whether to rank the absolute values.

    Returns:
      In [-1, 1]; pixels of one value share their mean rank. 0 where a map is constant,
      which has no order.

    Raises:
      InputError: a value is not finite.
    """
    _check_pair(maps, others)
    if absolute:
        maps, others = np.abs(maps), np.abs(others)
    return _correlations_of_pairs(maps, others, _ranks)


def structural_similarity(
    maps: Float[np.ndarray, "B H W"], others: Float[np.ndarray, "B H W"]
) -> Float[np.ndarray, "B"]:
    """Structural similarity (SSIM) of each map with another of the same image.

    After Wang et al. (IEEE TIP 2004), on maps that are scaled to [0, 1] by their own
    least and greatest value; a constant map becomes 0. The window is a Gaussian of
    sigma 1.5 in 11 x 11 pixels, K1 = 0.01 and K2 = 0.03, variances are those of the
    window as a population, and the mean is over the windows inside the image.

    Returns:
      At most 1, which identical maps have.

    Raises:
      InputError: a side is below 11 pixels, or a value is not finite.
    """
    from skimage import metrics  # slow to import, and few need it

    _check_pair(maps, others, WINDOW)
    values = [
        metrics.structural_similarity(
            _scaled(one),
            _scaled(other),
            data_range=1.0,
            gaussian_weights=True,
            sigma=WINDOW_SIGMA,
            use_sample_covariance=False,
        )
        for one, other in zip(maps, others, strict=True)
    ]
    return np.asarray(values, np.float64)


def hog_correlation(
    maps: Float[np.ndarray, "B H W"], others: Float[np.ndarray, "B H W"]
) -> Float[np.ndarray, "B"]:
    """Pearson's correlation of the maps' histograms of oriented gradients.

    After Dalal and Triggs (CVPR 2005), on maps that are scaled to [0, 1] as for
    `structural_similarity`: 9 unsigned orientations in cells of 8 x 8 pixels,
    normalised in blocks of 2 x 2 cells (L2-Hys). Pixels beyond the last whole cell do
    not count. Unsigned: a map and its negative are the same.

    Returns:
      In [-1, 1]; 0 where a map has the same histogram everywhere in all directions, as
      a constant one has.

    Raises:
      InputError: a side is below 16 pixels, or a value is not finite.
    """
    _check_pair(maps, others, CELL * BLOCK)
    return _correlations_of_pairs(maps, others, _histograms)


def agreement_matrix(
    maps: Mapping[str, Float[np.ndarray, "..."]],
) -> Float[np.ndarray, "R R"]:
    """Mean rank correlation over the images of every two methods' maps.

    Each map is ranked once; pixels of one value share their mean rank. An image on
    which one of the two maps is constant counts as 0, so the diagonal is 1 only for
    methods without constant maps.

    Args:
      maps: by method, `[B, H, W]`, of the same images in the same order.

    Returns:
      In [-1, 1], symmetric, rows and columns in the order of `maps`.

    Raises:
      InputError: there are no maps, the shapes differ, or a value is not finite.
    """
    if not maps:
        raise InputError("no maps to compare: name at least one method")
    rows = list(maps.values())
    first = next(iter(maps))
    for name, row in maps.items():
        if row.shape != rows[0].shape or row.ndim != 3 or not row.size:
            raise InputError(
                f"maps of {name} have shape {row.shape}, those of {first} "
                f"{rows[0].shape}: expected [B, H, W], one shape for all"
            )
        _check(row, f"maps of {name}")
    sums = np.zeros((len(rows), len(rows)))
    for of_image in zip(*rows, strict=True):
        sums += _correlations(of_image, _ranks)
    return sums / len(rows[0])


def mean_pairwise_correlation(
    maps: Float[np.ndarray, "N B H W"],
) -> Float[np.ndarray, "B"]:
    """Mean rank correlation over all pairs of N maps of one image.

    Args:
      maps: such as those of a stochastic method under N keys, at least two.

    Returns:
      In [-1, 1]; a pair with a constant map counts as 0.

    Raises:
      InputError: there are fewer than two maps, or a value is not finite.
    """
    count = len(maps)
    if count < 2:
        raise InputError(f"{count} map of each image: a pair needs at least two")
    for number, row in enumerate(maps):
        _check(row, f"maps {number}")
    upper = np.triu_indices(count, k=1)
    means = [
        _correlations(of_image, _ranks)[upper].mean()
        for of_image in zip(*maps, strict=True)
    ]
    return np.asarray(means, np.float64)


def _correlations_of_pairs(
    maps: Float[np.ndarray, "B H W"],
    others: Float[np.ndarray, "B H W"],
    features: Features,
) -> Float[np.ndarray, "B"]:
    """The correlation of each map's features with those of the other one's."""
    pairs = zip(maps, others, strict=True)
    values = [_correlations(pair, features)[0, 1] for pair in pairs]
    return np.asarray(values, np.float64)


def _correlations(
    maps: Sequence[Float[np.ndarray, "H W"]], features: Features
) -> Float[np.ndarray, "N N"]:
    """Pearson's correlation of every two maps' features; 0 where they are constant."""
    rows = np.stack([_standardised(features(one)) for one in maps])
    # Not by BLAS, whose threads wait for each other for seconds on a busy machine.
    return np.clip(np.einsum("ip,jp->ij", rows, rows), -1, 1)


def _standardised(values: Float[np.ndarray, "P"]) -> Float[np.ndarray, "P"]:
    """With mean 0 and length 1, or 0 where all are equal."""
    if np.ptp(values) == 0:
        return np.zeros_like(values)
    centred = values - values.mean()
    return centred / np.sqrt(np.sum(centred**2))


def _ranks(values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "P"]:
    """From 0, the mean rank for equal values: a third of the time of scipy's."""
    values = values.ravel()
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    ties = np.diff(starts, append=len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (ties - 1) / 2, ties)
    return ranks


def _histograms(values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "P"]:
    from skimage import feature  # slow to import, and few need it

    return feature.hog(
        _scaled(values),
        orientations=ORIENTATIONS,
        pixels_per_cell=(CELL, CELL),
        cells_per_block=(BLOCK, BLOCK),
        block_norm="L2-Hys",
    )


def _scaled(values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """From 0 to 1; 0 where all are equal."""
    values = values.astype(np.float64)
    low, reach = values.min(), np.ptp(values)
    return (values - low) / reach if reach else np.zeros_like(values)


def _check(maps: Float[np.ndarray, "B H W"], name: str, least_side: int = 1) -> None:
    """Refuses maps that cannot be compared; `name` says whose they are."""
    if min(maps.shape[1:]) < least_side:
        raise InputError(
            f"{name} of {maps.shape[1]} x {maps.shape[2]} pixels: this figure needs at "
            f"least {least_side} on each side"
        )
    broken = ~np.isfinite(maps).all(axis=(1, 2))
    if broken.any():
        raise InputError(
            f"{name}: map {np.argmax(broken)} has values that are not finite, so it "
            "cannot be compared: find out where they come from, or leave the image out"
        )


def _check_pair(
    maps: Float[np.ndarray, "B H W"],
    others: Float[np.ndarray, "B H W"],
    least_side: int = 1,
) -> None:
    _check(maps, "the first maps", least_side)
    _check(others, "the second maps", least_side)
