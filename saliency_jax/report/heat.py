"""Pictures of attribution maps: each over its image, one column for each method."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Num, UInt8

from saliency_jax.report.figures import (
    Caption,
    as_uint8,
    enlarge_smoothly,
    join,
    with_header,
)

CLIPPED = 99.0  # percentile: a few extreme pixels would leave the rest dark
FLOOR = (
    1.0  # percentile: a constant part of all pixels, as in RISE's maps, says nothing
)
HOT_SHARE = 0.65  # of the colours of a map without negative values; the rest is image
AGAINST, FOR = (31, 90, 255), (255, 30, 30)


def heat_grid(
    images: Num[np.ndarray, "B H W 3"],
    maps: Mapping[str, Float[np.ndarray, "B H W"]],
    captions: Sequence[str | Caption],
) -> UInt8[np.ndarray, "P Q 3"]:
    """Draws one row per image: the image, then each method's map over it.

    A map without negative values goes from black, its 1st percentile, over red to
    white, its 99th. Another one colours the grey image blue (against the class) and red
    (for it); the strongest colours stand for the 99th percentile of absolute values.

    Args:
      images: RGB, `uint8` or float in [0, 1].
      maps: by the name of the method.
      captions: what stands above each image.
    """
    rows = []
    for number, (image, caption) in enumerate(
        zip(as_uint8(images), captions, strict=True)
    ):
        large = enlarge_smoothly(image)
        cells = [overlay(large, heat[number]) for heat in maps.values()]
        row = join([large, *cells], axis=1)
        rows.append(with_header(row, [caption, *maps]))
    return join(rows, axis=0)


def scale_map(
    values: Float[np.ndarray, "H W"],
) -> tuple[Float[np.ndarray, "H W"], bool]:
    """Returns a map in [-1, 1] as `heat_grid` colours it, and whether it is signed."""
    signed = bool(values.min() < 0)
    floor = 0.0 if signed else np.percentile(values, FLOOR)
    values = values - floor
    most = np.percentile(np.abs(values), CLIPPED) or np.abs(values).max() or 1.0
    return np.clip(values / most, -1, 1).astype(np.float32), signed


def overlay(
    image: UInt8[np.ndarray, "P Q 3"], values: Float[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "P Q 3"]:
    """Colours the grey image by a map, as `heat_grid` does.

    Args:
      image: RGB.
      values: the map; its grid stays visible where it is coarser than the image.
    """
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    scaled, signed = scale_map(values)
    scaled = cv2.resize(scaled, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    if not signed:
        levels = np.rint(255 * np.maximum(scaled, 0)).astype(np.uint8)
        colours = cv2.applyColorMap(levels, cv2.COLORMAP_HOT)[..., ::-1]
        return cv2.addWeighted(colours, HOT_SHARE, grey, 1 - HOT_SHARE, 0)
    colours = np.where(scaled[..., None] > 0, FOR, AGAINST)
    share = np.abs(scaled)[..., None]
    return np.rint(grey * (1 - share) + colours * share).astype(np.uint8)
