"""Images and maps as data URIs. A browser lays the maps over the images.

So an image is stored once, whatever the number of maps over it, and a map as an opaque
picture in lossy WebP. `style.css` blends the two: a map without negative values at some
opacity, a signed one by "hard light", where mid-grey leaves the image as it is, and
full red and blue cover it.
"""

import base64

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from saliency_jax.report.heat import scale_map

IMAGE_QUALITY = 85
MAP_QUALITIES = (75, 50, 30, 15)  # the next one where a map has too many bytes
MOST_BYTES = 29_000  # 600 maps stay below 25 MB, even of white noise at 224 pixels
BLUE_KEEPS_GREEN = 0.5  # blue alone is too dark to be seen


def image_uri(image: UInt8[np.ndarray, "S S 3"]) -> str:
    """Returns an RGB image as a data URI."""
    return _uri(_encode(image, IMAGE_QUALITY))


def map_uri(values: Float[np.ndarray, "h w"], side: int) -> tuple[str, bool]:
    """Returns a map's colours as a data URI, and whether the map is signed.

    Args:
      values: raw, possibly signed; coloured as in `report.heat`.
      side: of the image in pixels. A smaller map is enlarged to about this side with
        its grid kept visible, a larger one is made smaller.
    """
    scaled, signed = scale_map(values)
    factor = side // max(scaled.shape)
    if factor > 1:
        scaled = scaled.repeat(factor, axis=0).repeat(factor, axis=1)
    elif max(scaled.shape) > side:
        scaled = cv2.resize(scaled, (side, side), interpolation=cv2.INTER_AREA)
    picture = _signed_colours(scaled) if signed else _hot_colours(scaled)
    for quality in MAP_QUALITIES:
        encoded = _encode(picture, quality)
        if len(encoded) <= MOST_BYTES:
            break
    return _uri(encoded), signed


def _hot_colours(scaled: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    levels = np.rint(255 * np.maximum(scaled, 0)).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_HOT)[..., ::-1])


def _signed_colours(scaled: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns mid-grey where the map is zero, red where it is 1 and blue where -1."""
    green = np.where(scaled > 0, -scaled, scaled * (1 - BLUE_KEEPS_GREEN))
    colours = np.stack([scaled, green, -scaled], axis=-1)
    return np.rint(127.5 + 127.5 * colours).astype(np.uint8)


def _encode(picture: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    options = [cv2.IMWRITE_WEBP_QUALITY, quality]
    return cv2.imencode(".webp", picture[..., ::-1], options)[1].tobytes()


def _uri(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
