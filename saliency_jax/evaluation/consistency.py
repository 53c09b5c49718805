"""Does a stochastic method say the same again?"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Int, Key

from saliency_jax.attribution.asking import GivenImages
from saliency_jax.metrics.agreement import mean_pairwise_correlation


def consistency(
    explain: Callable[..., Float[np.ndarray | Array, "B H W"]],
    images: GivenImages,
    targets: Int[np.ndarray | Array, "B"],
    keys: Key[Array, "N"],
) -> Float[np.ndarray, "B"]:
    """Mean rank correlation over all pairs of maps that differ in the key alone.

    Args:
      explain: from images, targets and a key to maps.
      images: `[B, H, W, C]`, as `explain` takes them.
      targets: classes, the same under all keys.
      keys: at least two.

    Returns:
      In [-1, 1]; 1 for a method that does not depend on its key, 0 where a map is
      constant.

    Raises:
      InputError: there are fewer than two keys, or a map is not finite.
    """
    maps = [np.asarray(explain(images, targets, key)) for key in keys]
    return mean_pairwise_correlation(np.stack(maps))
