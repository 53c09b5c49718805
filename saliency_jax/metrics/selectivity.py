"""Whether a mask that is asked for one of two objects keeps that one alone.

An image has two objects of different classes, as those of `shapes_pairs` have, and the
mask is asked for the class of the one. Kept is what is above 1/2 in the mask.

* A mask prefers the object that it is asked for where its mean there is the greater.
* It selects that object where more than half of its pixels are kept, and less than a
  quarter of the other object's.

No mask selects both objects of an image. So where, as in `shapes_pairs`, chance alone
decides which of the two is asked for, masks that do not depend on the question prefer
the right one in half of the images and select it in no more than half, up to chance.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from saliency_jax.metrics.intervals import mean_interval, wilson_interval
from saliency_jax.metrics.judgement import Figures


class Selectivity(NamedTuple):
    """Figures of each image of a batch; they mean nothing where `scored` is False.

    scored: whether both objects have a pixel in the image.
    mean_asked, mean_other: of the mask on each object's pixels, in [0, 1].
    kept_asked, kept_other: the share of each object's pixels that is kept.
    """

    scored: Bool[np.ndarray, "B"]
    mean_asked: Float[np.ndarray, "B"]
    mean_other: Float[np.ndarray, "B"]
    kept_asked: Float[np.ndarray, "B"]
    kept_other: Float[np.ndarray, "B"]

    @property
    def prefers(self) -> Bool[np.ndarray, "B"]:
        """Whether the mask's mean is greater on the object that was asked for."""
        return self.mean_asked > self.mean_other

    @property
    def selects(self) -> Bool[np.ndarray, "B"]:
        """Whether over a half of that object is kept and under 1/4 of the other."""
        return (self.kept_asked > 1 / 2) & (self.kept_other < 1 / 4)


def selectivity(
    masks: Float[np.ndarray, "B S S"],
    object_masks: Bool[np.ndarray, "B S S"],
    other_masks: Bool[np.ndarray, "B S S"],
) -> Selectivity:
    """Compares masks on the objects that they are asked for and on the others.

    Args:
      masks: in [0, 1], 1 = salient; each asked for the class of the one object.
      object_masks: of the objects that are asked for.
      other_masks: of the other objects, in the same images.
    """
    kept = masks > 0.5
    return Selectivity(
        scored=object_masks.any(axis=(1, 2)) & other_masks.any(axis=(1, 2)),
        mean_asked=_means_on(object_masks, masks),
        mean_other=_means_on(other_masks, masks),
        kept_asked=_means_on(object_masks, kept),
        kept_other=_means_on(other_masks, kept),
    )


def join(parts: Sequence[Selectivity]) -> Selectivity:
    """Puts the figures of several batches together, in order."""
    return Selectivity(*map(np.concatenate, zip(*parts, strict=True)))


def summarise(figures: Selectivity) -> Figures:
    """Returns the figures of all images in which both objects have a pixel.

    The keys are `images`, their number; `prefers` and `selects`, the shares of them;
    and `mean_asked`, `mean_other`, `kept_asked`, `kept_other` as means over them. All
    but the first have their 95 % interval beside them, `..._interval`. Without any such
    image only `images` is there.
    """
    scored = figures.scored
    count = int(scored.sum())
    row: Figures = {"images": count}
    if not count:
        return row
    for name in ("prefers", "selects"):
        successes = int(getattr(figures, name)[scored].sum())
        row[name] = successes / count
        row[f"{name}_interval"] = wilson_interval(successes, count)
    for name in ("mean_asked", "mean_other", "kept_asked", "kept_other"):
        values = getattr(figures, name)[scored]
        row[name] = float(values.mean())
        row[f"{name}_interval"] = mean_interval(values)
    return row


def _means_on(
    regions: Bool[np.ndarray, "B S S"], values: Shaped[np.ndarray, "B S S"]
) -> Float[np.ndarray, "B"]:
    """Returns the mean of each image's values in its region, 0 for an empty one."""
    total = (values * regions).sum(axis=(1, 2), dtype=np.float64)
    return total / np.maximum(regions.sum(axis=(1, 2)), 1)
