"""From a map of one picture to the region and the box that it marks."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from saliency_jax.errors import InputError, unknown
from saliency_jax.metrics.map_boxes import (
    CUTS,
    RULES,
    binary_masks,
    component_boxes,
    grid_boxes,
)

NAMES = (*RULES, *CUTS)
WITHOUT_ALPHA = ("quantile", *CUTS)


class Rule(NamedTuple):
    """How a map becomes a region.

    Attributes:
      name: one of `metrics.map_boxes.RULES` or `CUTS`.
      alpha: of a rule that has one.
    """

    name: str
    alpha: float


def rule_of(text: str) -> Rule:
    """The rule that a command line names, such as `quantile` or `energy:0.5`.

    Raises:
      InputError: there is no such rule, it needs an alpha or has none, or the alpha is
        out of its range.
    """
    name, colon, given = text.partition(":")
    if name not in NAMES:
        raise InputError(f"--box={text}: {unknown('box rule', name, NAMES)}")
    if name in WITHOUT_ALPHA:
        if colon:
            raise InputError(f"--box={text}: {name} has no alpha: leave out :{given}")
        return Rule(name, 1.0)
    try:
        alpha = float(given)
    except ValueError as error:
        raise InputError(
            f"--box={text}: {name} needs an alpha, as in {name}:0.5"
        ) from error
    highest = np.inf if name == "mean" else 1.0
    if not 0 <= alpha <= highest:
        raise InputError(f"--box={text}: expected an alpha of 0 to {highest:g}")
    return Rule(name, alpha)


def region_and_box(
    square: UInt8[np.ndarray, "S S 3"],
    values: Float[np.ndarray, "S S"],
    rule: Rule,
    is_mask: bool,
) -> tuple[Bool[np.ndarray, "S S"], Int[np.ndarray, "4"]]:
    """The pixels that a rule keeps of a map, and their box as in evaluation.

    Args:
      square: what the classifier was shown; only a graph cut looks at it.
      values: the map.
      rule: see `metrics.map_boxes` and `segmentation.graph_cut`.
      is_mask: whether the map is a mask in [0, 1], taken as it is.

    Returns:
      The region, and `ymin, xmin, ymax, xmax`, half-open; `NO_BOX` where nothing is
      kept.
    """
    maps = values[None]
    if rule.name in CUTS:
        # SciPy's graphs take half a second to import.
        from saliency_jax.segmentation import graph_cut

        region = graph_cut(square[None], maps, variant=CUTS[rule.name])
        return region[0], component_boxes(region)[0]
    normalise = not is_mask
    alphas = np.array([rule.alpha])
    region = binary_masks(maps, rule.name, alphas, normalise=normalise)
    boxes = grid_boxes(maps, rule.name, [rule.alpha], normalise=normalise)
    return region[0], boxes[0, 0]
