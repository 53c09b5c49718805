"""Scenes by program: objects of ten forms on a cluttered ground, exactly annotated.

The classes differ in form only. Colour, texture, place, scale and rotation are drawn
without regard to the class, so a classifier has to find the silhouette, and a masker
has something to find. Everything follows from (seed, index, size), and from whether
the scene has one object (`render`) or two (`render_pair`).
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

CLASSES = (
    "disc",
    "ring",
    "square",
    "triangle",
    "star",
    "cross",
    "crescent",
    "heart",
    "arrow",
    "hourglass",
)
MIN_SCALE, MAX_SCALE = 0.15, 0.60
MAX_SCALE_OF_TWO = 0.45
SUPERSAMPLING = 4
_FIXED_POINT_BITS = 4  # fractional bits of the vertices that OpenCV fills
# Objects are light, the ground is darker: with light and dark drawn freely a small
# network needs ten times the images to see a form at all. Strokes and patches may be
# light too, so that lightness alone does not give the object away.
_GROUND = (0.05, 0.5)
_LIGHT = (0.55, 1.0)
_MIN_CONTRAST = 0.45  # RGB distance, of at most sqrt 3, from object to ground
# Between the contours of two objects, in pixels: with a whole one, no pixel is partly
# covered by both, and the rest is what `_coverage` adds to the two of them.
_GAP = 1.25


class Scene(NamedTuple):
    """One rendered image with its exact annotation."""

    image: UInt8[np.ndarray, "S S 3"]
    label: int
    object_mask: Bool[np.ndarray, "S S"]
    box: tuple[int, int, int, int]
    """`xmin, ymin, xmax, ymax` in pixels, half-open, tight around `object_mask`."""


class PairScene(NamedTuple):
    """One rendered image of two objects; the first fields are those of `Scene`."""

    image: UInt8[np.ndarray, "S S 3"]
    label: int
    object_mask: Bool[np.ndarray, "S S"]
    box: tuple[int, int, int, int]
    other_label: int
    other_mask: Bool[np.ndarray, "S S"]


class _Object(NamedTuple):
    """An object in its place, not painted yet."""

    coverage: Float[np.ndarray, "S S"]
    mask: Bool[np.ndarray, "S S"]
    box: tuple[int, int, int, int]


def _circle(
    radius: float, centre: float = 0.0, first: float = 0.0, last: float = 2 * np.pi
) -> Float[np.ndarray, "48 2"]:
    angle = np.linspace(first, last, 48)
    return np.stack([centre + radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _star(radii: tuple[float, ...], count: int) -> Float[np.ndarray, "count 2"]:
    angle = np.arange(count) * 2 * np.pi / count
    radius = np.resize(radii, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _crescent() -> Float[np.ndarray, "96 2"]:
    """The unit disc without a disc of radius 0.85 around (0.5, 0)."""
    radius, centre = 0.85, 0.5
    corner_x = (1 - radius**2 + centre**2) / (2 * centre)
    outer, inner = np.arccos(corner_x), np.arccos((corner_x - centre) / radius)
    return np.concatenate(
        [
            _circle(1.0, 0.0, outer, 2 * np.pi - outer),
            _circle(radius, centre, 2 * np.pi - inner, inner),
        ]
    )


def _heart() -> Float[np.ndarray, "64 2"]:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, y], axis=1)


def _polygon(*points: tuple[float | int, float | int]) -> Float[np.ndarray, "points 2"]:
    return np.array(points, np.float64)


# Contours of each class around the origin, in arbitrary units; a contour inside
# another is a hole.
_CONTOURS: dict[str, tuple[np.ndarray, ...]] = {
    "disc": (_circle(1.0),),
    "ring": (_circle(1.0), _circle(0.58)),
    "square": (_polygon((-1, -1), (1, -1), (1, 1), (-1, 1)),),
    "triangle": (_star((1.0,), 3),),
    "star": (_star((1.0, 0.4), 10),),
    "cross": (
        _polygon(
            *[(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)],
            *[(0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)],
        ),
    ),
    "crescent": (_crescent(),),
    "heart": (_heart(),),
    "arrow": (
        _polygon(
            *[(-1, -0.25), (0.1, -0.25), (0.1, -0.75), (1, 0)],
            *[(0.1, 0.75), (0.1, 0.25), (-1, 0.25)],
        ),
    ),
    "hourglass": (
        _polygon((-0.8, -1), (0.8, -1), (0.12, 0), (0.8, 1), (-0.8, 1), (-0.12, 0)),
    ),
}


def render(seed: int, index: int, size: int = 64) -> Scene:
    """Renders scene `index` of the series `seed`.

    The class is `index % 10`, so any run of ten scenes is balanced. The longer side of
    the object's box is uniform in 15-60 % of the image side, and the whole object lies
    inside the image with nothing drawn over it.

    Args:
      seed: names the series; different splits use different seeds.
      index: number of the scene in its series, from 0.
      size: side of the square image in pixels, at least 16.

    Returns:
      The image, its label, the mask of pixels at least half covered by the object, and
      their tight box.
    """
    rng = np.random.default_rng([seed, index, size])
    label = index % len(CLASSES)
    canvas = _background(rng, size)
    while True:
        form = _turned_form(rng, CLASSES[label], MAX_SCALE, size)
        placed = _rasterised(_shifted(rng, form, size), size)
        if _is_in_range(placed, MAX_SCALE):
            break
    image = _painted(rng, canvas, [placed])
    return Scene(image, label, placed.mask, placed.box)


def render_pair(seed: int, index: int, size: int = 64) -> PairScene:
    """Renders scene `index` of the series `seed` with two objects of different classes.

    The label is `index % 10` and the other class any of the nine others. All else is
    drawn for both objects alike, so that nothing but their forms tells the one that is
    the label: the longer sides of their boxes are uniform in 15-45 % of the image side,
    and their places among those where the boxes do not overlap. Both objects lie inside
    the image with nothing drawn over them.

    Args:
      seed: names the series; different splits use different seeds.
      index: number of the scene in its series, from 0.
      size: side of the square image in pixels, at least 16.

    Returns:
      The image; the label, mask and tight box of the one object; the label and mask of
      the other. Masks are of the pixels at least half covered.
    """
    # The number of objects keeps the ground from being that of `render`'s scene.
    rng = np.random.default_rng([seed, index, size, 2])
    label = index % len(CLASSES)
    other_label = (label + int(rng.integers(1, len(CLASSES)))) % len(CLASSES)
    canvas = _background(rng, size)
    while True:
        forms = [
            _turned_form(rng, CLASSES[each], MAX_SCALE_OF_TWO, size)
            for each in (label, other_label)
        ]
        # Both are placed anew: were one kept, it would have the places of its own.
        while True:
            contours = [_shifted(rng, form, size) for form in forms]
            if _are_apart(*contours):
                break
        one, other = (_rasterised(each, size) for each in contours)
        if all(_is_in_range(each, MAX_SCALE_OF_TWO) for each in (one, other)):
            break
    image = _painted(rng, canvas, [one, other])
    return PairScene(image, label, one.mask, one.box, other_label, other.mask)


def _turned_form(
    rng: np.random.Generator, name: str, max_scale: float, size: int
) -> list[Float[np.ndarray, "points 2"]]:
    """Returns the contours of a class, rotated and scaled, in pixels from a corner."""
    angle = rng.uniform(0, 2 * np.pi)
    rotation = np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
    contours = [points @ rotation for points in _CONTOURS[name]]
    low, high = contours[0].min(0), contours[0].max(0)
    scale = rng.uniform(MIN_SCALE, max_scale) * size / (high - low).max()
    return [(points - low) * scale for points in contours]


def _shifted(
    rng: np.random.Generator, form: list[np.ndarray], size: int
) -> list[Float[np.ndarray, "points 2"]]:
    """Returns the contours in a place where all of them is inside the image."""
    corner = rng.uniform(0, 1, 2) * (size - form[0].max(0))
    return [points + corner for points in form]


def _are_apart(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Whether the boxes of two objects are disjoint, by `_GAP` at least."""
    gaps = (one[0].min(0) - other[0].max(0), other[0].min(0) - one[0].max(0))
    return bool(np.max(gaps) >= _GAP)


def _rasterised(contours: list[np.ndarray], size: int) -> _Object:
    coverage = _coverage(contours, size)
    mask = coverage >= 0.5
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return _Object(coverage, mask, (int(left), int(top), int(right), int(bottom)))


def _is_in_range(placed: _Object, max_scale: float) -> bool:
    """Whether rasterising, which moves the sides by up to a pixel, kept the scale."""
    left, top, right, bottom = placed.box
    size = len(placed.mask)
    return MIN_SCALE * size <= max(right - left, bottom - top) <= max_scale * size


def _painted(
    rng: np.random.Generator,
    canvas: Float[np.ndarray, "S S 3"],
    objects: list[_Object],
) -> UInt8[np.ndarray, "S S 3"]:
    """Returns the image of a ground and objects, each unlike the bare ground."""
    image = canvas.copy()
    for coverage, _, (left, top, right, bottom) in objects:
        colour = _contrasting_colour(rng, canvas[top:bottom, left:right])
        _blend(image, coverage, _texture(rng, len(canvas), colour))
    image += rng.normal(0.0, 0.015, image.shape).astype(np.float32)
    return (np.clip(image, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def _coverage(
    contours: list[np.ndarray], size: int, line_width: float = 0.0
) -> Float[np.ndarray, "S S"]:
    """Returns the covered part of each pixel, by supersampling.

    OpenCV fills the outline too, so every form is 1/8 pixel fatter all around.

    Args:
      contours: points in pixels; their interior is covered, holes excepted.
      size: side of the image.
      line_width: if positive, the pixels near the open contours are covered instead.
    """
    window = np.zeros((size * SUPERSAMPLING, size * SUPERSAMPLING), np.uint8)
    # OpenCV puts integers at pixel centres: an edge at x belongs at x - 1/2.
    fixed = [
        np.round((points * SUPERSAMPLING - 0.5) * 2**_FIXED_POINT_BITS).astype(np.int32)
        for points in contours
    ]
    if line_width:
        thickness = max(1, round(line_width * SUPERSAMPLING))
        cv2.polylines(
            window, fixed, False, 255, thickness, cv2.LINE_8, _FIXED_POINT_BITS
        )
    else:
        cv2.fillPoly(window, fixed, 255, cv2.LINE_8, _FIXED_POINT_BITS)
    covered = cv2.resize(window, (size, size), interpolation=cv2.INTER_AREA)
    return covered.astype(np.float32) / 255


def _blend(
    canvas: Float[np.ndarray, "S S 3"],
    alpha: Float[np.ndarray, "S S"],
    paint: Float[np.ndarray, "..."],
) -> None:
    """Paints over `canvas` in place: a colour [3] or a texture [S, S, 3]."""
    canvas += alpha[..., None] * (paint - canvas)


def _contrasting_colour(
    rng: np.random.Generator, ground: Float[np.ndarray, "h w 3"]
) -> Float[np.ndarray, "3"]:
    """Returns a random colour unlike every part of the ground, where there is one."""
    # Averaging over cells leaves out the grain, which hides nothing.
    cells = cv2.resize(ground, (8, 8), interpolation=cv2.INTER_AREA).reshape(-1, 3)
    candidates = rng.uniform(*_LIGHT, (24, 3)).astype(np.float32)
    nearest = np.linalg.norm(candidates[:, None] - cells, axis=-1).min(1)
    enough = np.flatnonzero(nearest >= _MIN_CONTRAST)
    return candidates[enough[0] if enough.size else nearest.argmax()]


def _smooth_noise(
    rng: np.random.Generator, size: int, cells: int, channels: int
) -> Float[np.ndarray, "S S channels"]:
    coarse = rng.uniform(-1, 1, (cells, cells, channels)).astype(np.float32)
    fine = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return fine.reshape(size, size, channels)


def _texture(
    rng: np.random.Generator, size: int, colour: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "S S 3"]:
    """Returns a square of `colour` varied by noise, stripes, checks or grain."""
    kind = rng.integers(4)
    if kind == 0:
        pattern = _smooth_noise(rng, size, int(rng.choice([4, 8, 16])), 1)
    elif kind == 1:
        pattern = rng.uniform(-1, 1, (size, size, 1)).astype(np.float32)
    else:
        angle, offset = rng.uniform(0, 2 * np.pi, 2)
        waves = rng.uniform(5, 14)
        phase = np.arange(size, dtype=np.float32) * np.float32(2 * np.pi * waves / size)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        pattern = np.sin(phase * cos + (phase * sin)[:, None] + np.float32(offset))
        if kind == 3:
            pattern *= np.sin(phase * -sin + (phase * cos)[:, None])
        pattern = pattern[..., None]
    strength = rng.uniform(0.02, 0.18) * rng.uniform(0.3, 1.0, 3)
    return colour + pattern * strength.astype(np.float32)


def _background(rng: np.random.Generator, size: int) -> Float[np.ndarray, "S S 3"]:
    """Returns a textured ground with two to five distractors."""
    canvas = _texture(rng, size, rng.uniform(*_GROUND, 3).astype(np.float32))
    cells = int(rng.integers(2, 6))
    canvas += np.float32(rng.uniform(0.05, 0.25)) * _smooth_noise(rng, size, cells, 3)
    for _ in range(rng.integers(2, 6)):
        distractor = (_draw_blob, _draw_stroke, _draw_patch)[rng.integers(3)]
        is_light = distractor is not _draw_blob and rng.random() < 0.5
        low, high = _LIGHT if is_light else _GROUND
        distractor(rng, canvas, rng.uniform(low, high, 3).astype(np.float32))
    return canvas


def _draw_blob(
    rng: np.random.Generator,
    canvas: Float[np.ndarray, "S S 3"],
    colour: Float[np.ndarray, "3"],
) -> None:
    """Paints an amoeba: a radius of strong random harmonics, unlike any class."""
    size = canvas.shape[0]
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    harmonics = np.arange(1, 5)[:, None]
    phases = rng.uniform(0, 2 * np.pi, (4, 1))
    weights = rng.uniform(0.15, 0.35, (4, 1))
    radius = 1 + (weights * np.sin(harmonics * angle + phases)).sum(0)
    radius *= rng.uniform(0.06, 0.16) * size
    outline = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    _blend(canvas, _coverage([outline + rng.uniform(0, size, 2)], size), colour)


def _draw_stroke(
    rng: np.random.Generator,
    canvas: Float[np.ndarray, "S S 3"],
    colour: Float[np.ndarray, "3"],
) -> None:
    """Paints a thin curve across part of the scene (a quadratic Bezier curve)."""
    size = canvas.shape[0]
    start, bend, end = rng.uniform(-0.1, 1.1, (3, 2)) * size
    t = np.linspace(0, 1, 16)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    width = rng.uniform(0.01, 0.035) * size
    _blend(canvas, _coverage([curve], size, width), colour)


def _draw_patch(
    rng: np.random.Generator,
    canvas: Float[np.ndarray, "S S 3"],
    colour: Float[np.ndarray, "3"],
) -> None:
    """Blends in another texture with a soft fall-off, so that it has no outline."""
    size = canvas.shape[0]
    centre, deviation = rng.uniform(0, 1, 2) * size, rng.uniform(0.06, 0.2, 2) * size
    offset = (np.arange(size)[:, None] - centre) / deviation
    fall_off = np.exp(-0.5 * offset**2).astype(np.float32)
    alpha = fall_off[:, :1] * fall_off[:, 1]
    _blend(canvas, alpha, _texture(rng, size, colour))
