"""Gaussian mixtures of the colours of two regions, and what a colour says for either.

As in GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004) a region has five Gaussians
with full covariances; unlike there each is fitted with shares of pixels, not with whole
ones.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

_KMEANS_STEPS, _EM_STEPS = 10, 5

# Colours are rounded to whole steps of 256: an error of this variance in each channel.
# It also keeps the Gaussian of a flat area, or of grey pixels, from being singular.
_ROUNDING_VARIANCE = 1 / 12


def colour_evidence(
    image: UInt8[np.ndarray, "H W 3"],
    foreground: Bool[np.ndarray, "H W"],
    background: Bool[np.ndarray, "H W"],
    components: int = 5,
) -> Float[np.ndarray, "H W"]:
    """How much more likely each pixel's colour is in the foreground than in the back.

    Args:
      image: in 8 bits.
      foreground: the pixels that its mixture is fitted to, at least one.
      background: as above.
      components: Gaussians in a mixture, at most.

    Returns:
      The logarithm of the ratio of the mixtures' densities, in nats.
    """
    colours = np.ascontiguousarray(image.reshape(-1, 3).T, np.float64) - 128
    products = (colours[:, None] * colours[None]).reshape(9, -1)
    # A Gaussian's logarithm is linear in these, and its parameters in their means.
    monomials = np.vstack([np.ones_like(colours[:1]), colours, products])

    def log_density(seeds: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "P"]:
        mixture = _fitted_mixture(monomials[:, seeds.ravel()], components)
        return np.logaddexp.reduce(mixture @ monomials, axis=0)

    evidence = log_density(foreground) - log_density(background)
    return evidence.reshape(image.shape[:2])


def _fitted_mixture(
    monomials: Float[np.ndarray, "13 N"], components: int
) -> Float[np.ndarray, "K 13"]:
    """Fits Gaussians by k-means and a few steps of expectation-maximisation.

    K-means starts from equal parts along the colours' principal axis, so that nothing
    is drawn at random.

    Returns:
      What multiplies the monomials to give each Gaussian's logarithm.
    """
    colours = monomials[1:4].T
    count = min(components, len(np.unique(colours @ (1, 1 << 8, 1 << 16))))
    _, axes = np.linalg.eigh(np.cov(monomials[1:4], bias=True))
    ranks = np.argsort(np.argsort(colours @ axes[:, -1], kind="stable"))
    labels = (ranks * count // len(ranks)).astype(np.int32)
    if count > 1:
        _, labels, _ = cv2.kmeans(
            np.ascontiguousarray(colours, np.float32),
            count,
            labels[:, None],
            (cv2.TERM_CRITERIA_MAX_ITER, _KMEANS_STEPS, 0),
            1,
            cv2.KMEANS_USE_INITIAL_LABELS,
        )
    shares = np.eye(count)[:, labels.ravel()]
    mixture = _maximised(monomials, shares)
    for _ in range(_EM_STEPS):
        logs = mixture @ monomials
        shares = np.exp(logs - np.logaddexp.reduce(logs, axis=0))
        mixture = _maximised(monomials, shares)
    return mixture


def _maximised(
    monomials: Float[np.ndarray, "13 N"], shares: Float[np.ndarray, "K N"]
) -> Float[np.ndarray, "L 13"]:
    """The Gaussians of pixels that belong to them in part; see `_fitted_mixture`.

    One that is left with less than half a pixel is dropped.
    """
    sums = shares @ monomials.T
    sums = sums[sums[:, 0] >= 0.5]
    pixels, means = sums[:, 0], sums[:, 1:4] / sums[:, :1]
    squares = sums[:, 4:].reshape(-1, 3, 3) / pixels[:, None, None]
    covariances = squares - means[:, :, None] * means[:, None, :]
    precisions = np.linalg.inv(covariances + _ROUNDING_VARIANCE * np.eye(3))
    linear = np.einsum("kij,kj->ki", precisions, means)
    constant = (
        np.log(pixels / pixels.sum())
        + np.linalg.slogdet(precisions)[1] / 2
        - (means * linear).sum(axis=1) / 2
    )
    return np.hstack([constant[:, None], linear, -precisions.reshape(-1, 9) / 2])
