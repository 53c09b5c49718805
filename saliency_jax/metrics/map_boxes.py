"""From a raw map to a binary mask and a box.

A map is first brought to [0, 1], its least value to 0 and its greatest to 1; a mask
that is in [0, 1] already can be taken as it is. Then a rule keeps some pixels:

* `quantile`: as many as the map has mass, by CASM's rule in
  `localisation.binarise_quantile`. There is no alpha.
* `fixed`: the share alpha of all pixels, those of the greatest values.
* `value`: those above alpha.
* `energy`: the fewest of the greatest values whose sum is the share alpha of the whole.
* `mean`: those above alpha times the map's mean.

`value`, `energy` and `mean` are the rules of Fong and Vedaldi, "Interpretable
explanations of black boxes by meaningful perturbation", arXiv 1704.03296, and the box
is theirs too: the extent of every kept pixel, without any filter. (Their code keeps the
pixels at the threshold of `value` and `mean`, drops the pixel with which `energy`
reaches its share, and boxes the whole image where nothing is left.) The box of
`quantile` and `fixed` is that of the largest 4-connected component, as CASM's.

Pixels of one value are kept or dropped together. Those that are as great as the last
one that is needed are dropped by `quantile`, as CASM has it, and kept by `fixed` and
`energy`. A pixel at 0 is never kept. So a constant map, which becomes zeros, has an
empty mask and the box `0, 0, 0, 0`.

Alpha is to be chosen on images that it does not score: see `choose_alphas`.

A rule that looks at the image as well, such as a graph cut, makes its own binary
masks; `component_boxes` is then all that it needs of this file.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from saliency_jax.errors import InputError
from saliency_jax.metrics.localisation import binarise_quantile, largest_component_box
from saliency_jax.metrics.raw_maps import GivenMaps, checked_maps, min_max_normalised

RULES = ("quantile", "fixed", "value", "energy", "mean")

CUTS = {"graph_cut": "seeds", "grabcut": "grabcut"}
"""Further rules, which look at the image: variants of `segmentation.graph_cut`."""

_TWENTIETHS = tuple(i / 20 for i in range(1, 20))

ALPHAS: dict[str, tuple[float, ...]] = {
    "quantile": (1.0,),  # not read: a grid of one box
    "fixed": _TWENTIETHS,
    "value": _TWENTIETHS,
    "energy": _TWENTIETHS,
    "mean": tuple(i / 2 for i in range(1, 21)),
}
"""The grid of each rule. It holds every alpha that Fong and Vedaldi chose on training
images: 0.05 to 0.35 for `value`, 0.10 to 0.95 for `energy`, 0.5 to 5 for `mean`."""

NO_BOX = (0, 0, 0, 0)


def grid_boxes(
    maps: GivenMaps,
    rule: str,
    alphas: Sequence[float] | None = None,
    *,
    normalise: bool = True,
) -> Int[np.ndarray, "B A 4"]:
    """Returns the box of each map for every alpha of a grid.

    Args:
      maps: `[B, H, W]`, raw and possibly signed.
      rule: one of `RULES`.
      alphas: None: those of `ALPHAS`.
      normalise: False takes masks in [0, 1] as they are.

    Returns:
      `ymin, xmin, ymax, xmax`, half-open, in pixels of the map; `NO_BOX` where no pixel
      is kept.

    Raises:
      InputError: the rule is unknown, an alpha is below 0 or (but of `mean`) above 1,
        or the maps have another shape, are not finite or, taken as they are, are not in
        [0, 1].
    """
    maps = _in_unit_range(maps, rule, normalise)
    alphas = np.asarray(ALPHAS[rule] if alphas is None else alphas, np.float64)
    if rule == "quantile":
        boxes = component_boxes(binarise_quantile(maps))
        return np.repeat(boxes[:, None], len(alphas), axis=1)
    thresholds = _thresholds(rule, maps, np.tile(alphas, (len(maps), 1)))
    if rule != "fixed":
        return _extents(maps, thresholds)
    boxes = np.zeros((*thresholds.shape, 4), int)
    for index, threshold in np.ndenumerate(thresholds):
        boxes[index] = largest_component_box(maps[index[0]] > threshold) or NO_BOX
    return boxes


def binary_masks(
    maps: GivenMaps,
    rule: str,
    alphas: Float[np.ndarray, "B"],
    *,
    normalise: bool = True,
) -> Bool[np.ndarray, "B H W"]:
    """Returns the pixels that a rule keeps of each map, for one alpha each.

    The box of `grid_boxes` is that of these pixels, or of their largest component.

    Args:
      maps: `[B, H, W]`, raw and possibly signed.
      rule: one of `RULES`.
      alphas: of each map.
      normalise: False takes masks in [0, 1] as they are.

    Raises:
      InputError: as for `grid_boxes`.
    """
    maps = _in_unit_range(maps, rule, normalise)
    if rule == "quantile":
        return binarise_quantile(maps)
    return maps > _thresholds(rule, maps, alphas[:, None])[..., None]


def component_boxes(binary: Bool[np.ndarray, "B H W"]) -> Int[np.ndarray, "B 4"]:
    """Returns the tight box of each mask's largest 4-connected component.

    Returns:
      As `grid_boxes`.
    """
    boxes = [largest_component_box(mask) or NO_BOX for mask in binary]
    return np.asarray(boxes, int).reshape(-1, 4)


def choose_alphas(
    hits: Bool[np.ndarray, "B A"], scored: Bool[np.ndarray, "B"]
) -> Int[np.ndarray, "B"]:
    """Returns which alpha of a grid each image gets: one that other images chose.

    The scored images are dealt in turn into two halves, and each half gets the alpha
    with the most hits in the other, so that no box both chooses an alpha and is scored
    with it. Of several with the most hits it is the middle one (the lower of two). An
    image that is not scored gets what all the scored ones choose.

    Args:
      hits: of each image with each alpha.
      scored: whether it has a filed box.

    Returns:
      Indices into the grid.
    """
    half = np.where(scored, np.cumsum(scored) % 2, -1)
    chosen = np.full(len(hits), _most_hits(hits[scored]))
    for number in (0, 1):
        chosen[half == number] = _most_hits(hits[half == 1 - number])
    return chosen


def _most_hits(hits: Bool[np.ndarray, "B A"]) -> int:
    counts = hits.sum(axis=0)
    best = np.flatnonzero(counts == counts.max())
    return int(best[(len(best) - 1) // 2])


def _in_unit_range(
    maps: GivenMaps, rule: str, normalise: bool
) -> Float[np.ndarray, "B H W"]:
    if rule not in RULES:
        raise InputError(f"box rule {rule!r} is unknown: use one of {RULES}")
    return min_max_normalised(maps) if normalise else checked_maps(maps, True)


def _thresholds(
    rule: str, maps: Float[np.ndarray, "B H W"], alphas: Float[np.ndarray, "B A"]
) -> Float[np.ndarray, "B A"]:
    """What a pixel has to be above to be kept, in the maps' own type and at least 0."""
    highest = np.inf if rule == "mean" else 1
    if not ((alphas >= 0) & (alphas <= highest)).all():
        raise InputError(
            f"alphas of the box rule {rule}: expected 0 to {highest}, not "
            f"{alphas.min():g} to {alphas.max():g}"
        )
    thresholds = _RULES[rule](maps, alphas).astype(maps.dtype)
    return np.maximum(thresholds, 0)


def _value(
    maps: Float[np.ndarray, "B H W"], alphas: Float[np.ndarray, "B A"]
) -> Float[np.ndarray, "B A"]:
    return alphas


def _mean(
    maps: Float[np.ndarray, "B H W"], alphas: Float[np.ndarray, "B A"]
) -> Float[np.ndarray, "B A"]:
    return alphas * maps.mean(axis=(1, 2), dtype=np.float64)[:, None]


def _fixed(
    maps: Float[np.ndarray, "B H W"], alphas: Float[np.ndarray, "B A"]
) -> Float[np.ndarray, "B A"]:
    ascending = _ascending(maps)
    pixels = ascending.shape[1]
    needed = np.floor(pixels * alphas + 0.5).astype(int)
    last = np.take_along_axis(ascending, pixels - needed.clip(1, pixels), axis=1)
    return np.where(needed > 0, _just_below(last), np.inf)


def _energy(
    maps: Float[np.ndarray, "B H W"], alphas: Float[np.ndarray, "B A"]
) -> Float[np.ndarray, "B A"]:
    descending = _ascending(maps)[:, ::-1]
    sums = np.cumsum(descending, axis=1, dtype=np.float64)
    needed = [
        of_map.searchsorted(shares * of_map[-1])
        for of_map, shares in zip(sums, alphas, strict=True)
    ]
    needed = np.asarray(needed, int).reshape(alphas.shape)
    last = np.take_along_axis(descending, needed, axis=1)
    return np.where(alphas > 0, _just_below(last), np.inf)


def _ascending(maps: Float[np.ndarray, "B H W"]) -> Float[np.ndarray, "B N"]:
    return np.sort(maps.reshape(len(maps), maps.shape[1] * maps.shape[2]), axis=1)


def _just_below(values: Float[np.ndarray, "B A"]) -> Float[np.ndarray, "B A"]:
    """So that what equals them is above."""
    return np.nextafter(values, -np.inf, dtype=values.dtype)


_RULES: dict[str, Callable[..., Float[np.ndarray, "B A"]]] = {
    "fixed": _fixed,
    "value": _value,
    "energy": _energy,
    "mean": _mean,
}


def _extents(
    maps: Float[np.ndarray, "B H W"], thresholds: Float[np.ndarray, "B A"]
) -> Int[np.ndarray, "B A 4"]:
    """The extent of what is above each threshold."""
    edges = []
    for axis in (2, 1):  # the rows' maxima and the columns' say it all
        kept = maps.max(axis=axis)[:, None, :] > thresholds[..., None]
        low = kept.argmax(axis=-1)
        high = kept.shape[-1] - kept[..., ::-1].argmax(axis=-1)
        edges.append(np.stack([low, np.where(kept.any(axis=-1), high, 0)]))
    (top, bottom), (left, right) = edges
    return np.stack([top, left, bottom, right], axis=-1)
