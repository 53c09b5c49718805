"""Curves of insertion and deletion as inline SVG, with one legend for both."""

import math
from collections.abc import Sequence
from html import escape

from saliency_jax.report.comparison import Comparison

WIDTH, HEIGHT = 480, 330
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 44
COLOURS = (
    "#2f7ed8",
    "#e0662f",
    "#2ca25f",
    "#c2418f",
    "#8c6bd1",
    "#b58900",
    "#17a2b8",
    "#d43f3a",
    "#7f8c8d",
    "#6b8e23",
)
DASHES = ("none", "7 3", "2 3", "9 3 2 3")  # another one once the colours are used up
TICKS = 5
GAMES = {
    "insertion": ("share of pixels inserted", "higher is better"),
    "deletion": ("share of pixels removed", "lower is better"),
}


def curves_section(comparison: Comparison, order: Sequence[str]) -> str:
    """Returns a panel for each game and the legend; "" without any curve.

    Args:
      comparison: its `curves` are drawn, each at equal steps from 0 to 1.
      order: names of rows in the order of the legend.
    """
    curves = comparison.curves
    named = [name for name in order if curves.get(name)]
    if not named:
        return ""
    styles = {
        name: f"--colour:{COLOURS[number % len(COLOURS)]};"
        f"--dash:{DASHES[number // len(COLOURS) % len(DASHES)]}"
        for number, name in enumerate(named)
    }
    games = [game for game in GAMES if any(game in curves[name] for name in named)]
    panels = "".join(_panel(comparison, game, named, styles) for game in games)
    keys = "".join(
        f'<li><button type="button" aria-pressed="false" data-curve="{number}" '
        f'style="{styles[name]}"><svg viewBox="0 0 28 8" aria-hidden="true">'
        f'<path d="M0 4H28"/></svg>{escape(comparison.rows[name].title)}</button></li>'
        for number, name in enumerate(named)
    )
    return (
        f'<div class="panels">{panels}</div><ul class="legend" '
        f'aria-label="Curves, press to keep one highlighted">{keys}</ul>'
    )


def _panel(
    comparison: Comparison, game: str, named: Sequence[str], styles: dict[str, str]
) -> str:
    drawn = {name: comparison.curves[name].get(game) or () for name in named}
    scores = [float(score) for of_row in drawn.values() for score in of_row]
    low, step, high = _ticks(min(0.0, *scores), max(scores))

    def x(share: float) -> float:
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(score: float) -> float:
        return TOP + (high - score) / (high - low) * (HEIGHT - TOP - BOTTOM)

    levels = [low + number * step for number in range(round((high - low) / step) + 1)]
    grid = "".join(
        f'<path class="grid" d="M{LEFT} {y(level):.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 7}" y="{y(level) + 4:.1f}" text-anchor="end">{level:.4g}'
        "</text>"
        for level in levels
    )
    shares = "".join(
        f'<text x="{x(share):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
        f"{share:g}</text>"
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    lines = ""
    for number, name in enumerate(named):
        last = len(drawn[name]) - 1
        if last < 1:
            continue
        points = " ".join(
            f"{x(place / last):.1f},{y(score):.1f}"
            for place, score in enumerate(drawn[name])
        )
        title = escape(comparison.rows[name].title)
        lines += (
            f'<g class="curve" data-curve="{number}" style="{styles[name]}">'
            f'<title>{title}</title><polyline class="reach" points="{points}"/>'
            f'<polyline points="{points}"/></g>'
        )
    axis, better = GAMES[game]
    return (
        f"<figure><figcaption><b>{game.capitalize()}</b> "
        f'<span class="muted">score of the class; {better}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{game} curves of {len(named)} rows">'
        f"{grid}{shares}"
        f'<text x="{x(0.5):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{axis}</text>'
        f"{lines}</svg></figure>"
    )


def _ticks(low: float, high: float) -> tuple[float, float, float]:
    """Returns round numbers around a range and the step between them."""
    raw = (high - low) / TICKS or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(round_ * power for round_ in (1, 2, 5, 10) if raw <= round_ * power)
    # A rounding error must not add a step.
    slack = 1e-9
    first, last = math.floor(low / step + slack), math.ceil(high / step - slack)
    return first * step, step, last * step
