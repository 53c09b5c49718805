"""A comparison of many methods by many metrics: its parts, its order, its best, JSON.

Shares are fractions here and in JSON, per cent where they are printed. How it is
printed is in `comparison_tables.py` and `html/`.
"""

import difflib
import json
import math
import numbers
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from saliency_jax.errors import InputError

SIGNIFICANT = 3  # digits of numbers that have no natural count of decimals


class Metric(NamedTuple):
    """A column.

    title: with its unit, "GT-known error %".
    better: which way is better; "" where neither is.
    form: a "per_cent" is a fraction here.
    group: tables are split into groups of columns; "localisation", "cost".
    note: the rule in one sentence.
    """

    title: str
    better: Literal["lower", "higher", ""]
    form: Literal["per_cent", "number"]
    group: str
    note: str


class Figure(NamedTuple):
    """What one row has in one column.

    interval: low and high, 95 %.
    images: how many stand behind it.
    """

    value: float
    interval: tuple[float, float] | None
    images: int


class ComparisonRow(NamedTuple):
    """One method, trained masker or baseline.

    figures: by the name of the metric; a missing one is shown as a dash.
    note: the row's own rule, such as how its maps became boxes.
    error: why there are no figures, or no more of them; "" where nothing failed.
    competes: False for a row that has seen the truth (ground-truth boxes, a supervised
      upper bound): it is sorted like all others and is never the best.
    """

    title: str
    kind: Literal["method", "masker", "baseline"]
    figures: Mapping[str, Figure]
    note: str = ""
    error: str = ""
    competes: bool = True


class Comparison(NamedTuple):
    """Everything that is printed of an evaluation but its pictures.

    metrics, rows: by name, in the order of columns and rows.
    curves: row -> "insertion" and "deletion" -> scores at equal steps of the share of
      pixels, from 0 to 1.
    agreement: names of rows, and the matrix of the rows' agreement in [-1, 1].
    published: row -> metric -> a figure of the literature in the metric's own form, and
      its source: the data set first, since that is rarely ours.
    how: what made the figures: command, data, seed, versions; any JSON.
    """

    metrics: Mapping[str, Metric]
    rows: Mapping[str, ComparisonRow]
    curves: Mapping[str, Mapping[str, Sequence[float]]]
    agreement: tuple[list[str], list[list[float]]] | None
    published: Mapping[str, Mapping[str, tuple[float, str]]]
    how: Mapping[str, Any]


class Gallery(NamedTuple):
    """Images with the maps and boxes of every row.

    images: RGB.
    captions: of each image.
    truth: of each image `xmin, ymin, xmax, ymax`, half-open, in pixels of the crop.
    maps: by row, raw and possibly signed, of any size.
    boxes: by row, `ymin, xmin, ymax, xmax`, half-open; all zero is none.
    best, worst: by row, the places in the gallery of its best and worst cases.
    scores: by row, the IoU of its box with the truth; NaN where there is none.
    """

    images: UInt8[np.ndarray, "G S S 3"]
    captions: Sequence[str]
    truth: Sequence[Int[np.ndarray, "_ 4"]]
    maps: Mapping[str, Float[np.ndarray, "G h w"]]
    boxes: Mapping[str, Int[np.ndarray, "G 4"]]
    best: Mapping[str, Sequence[int]]
    worst: Mapping[str, Sequence[int]]
    scores: Mapping[str, Float[np.ndarray, "G"]]


def group_metrics(comparison: Comparison) -> dict[str, list[str]]:
    """Returns the metrics' names by group, both in the order of the columns."""
    groups: dict[str, list[str]] = {}
    for name, metric in comparison.metrics.items():
        groups.setdefault(metric.group, []).append(name)
    return groups


def sort_rows(comparison: Comparison, metric: str | None = None) -> list[str]:
    """Returns the rows' names, the best first; rows without the figure come last.

    Rows of one value, and those without, keep their order. Where neither way is better,
    the greatest comes first.

    Args:
      comparison: to sort.
      metric: to sort by; the first column where none is given.

    Raises:
      InputError: no metric has this name.
    """
    rows = comparison.rows
    if metric is None:
        if not comparison.metrics:
            return list(rows)
        metric = next(iter(comparison.metrics))
    if metric not in comparison.metrics:
        near = difflib.get_close_matches(metric, comparison.metrics, n=1, cutoff=0)
        raise InputError(
            f"no metric {metric!r} to sort by"
            + (f": did you mean {near[0]!r}?" if near else "; there is none")
        )
    sign = 1 if comparison.metrics[metric].better == "lower" else -1

    def place(name: str) -> float:
        figure = rows[name].figures.get(metric)
        return math.inf if figure is None else sign * float(figure.value)

    return sorted(rows, key=place)


def best_rows(comparison: Comparison) -> dict[str, set[str]]:
    """Returns of every metric the rows that share its best figure, as it is printed.

    Baselines take part: a method that a rectangle beats is not the best. Rows with
    `competes=False` do not. None is best where neither way is better, or where fewer
    than two rows could be.
    """
    best: dict[str, set[str]] = {}
    for metric, (_, better, *_) in comparison.metrics.items():
        values = {
            name: row.figures[metric].value
            for name, row in comparison.rows.items()
            if row.competes and metric in row.figures
        }
        best[metric] = set()
        if better and len(values) > 1:
            write = value_format(comparison, metric)
            winning = write((min if better == "lower" else max)(values.values()))
            best[metric] = {n for n, value in values.items() if write(value) == winning}
    return best


def value_format(comparison: Comparison, metric: str) -> Callable[[float], str]:
    """Returns what prints the figures of a column.

    Per cent have one decimal. Numbers of a column have one count of decimals, at most
    three, that its greatest asks for; where that would print another one as zero, all
    have three significant digits.
    """
    if comparison.metrics[metric].form == "per_cent":
        return lambda value: f"{100 * value:z.1f}"
    rows = comparison.rows.values()
    values = [r.figures[metric].value for r in rows if metric in r.figures]
    values += [of[metric][0] for of in comparison.published.values() if metric in of]
    sizes = [abs(value) for value in values if value]
    magnitude = math.floor(math.log10(max(sizes, default=1)))
    decimals = min(max(SIGNIFICANT - magnitude, 0), SIGNIFICANT)
    if sizes and (magnitude < -2 or min(sizes) < 0.5 * 10**-decimals):
        return lambda value: f"{value:#.{SIGNIFICANT}g}".rstrip(".")
    return lambda value: f"{value:z.{decimals}f}"


def to_json(comparison: Comparison) -> str:
    """Returns the comparison as JSON, which `from_json` reads.

    Raises:
      InputError: a figure is not finite, or belongs to no metric or no row.
    """
    rows = {
        name: row._asdict()
        | {"figures": {key: figure._asdict() for key, figure in row.figures.items()}}
        for name, row in comparison.rows.items()
    }
    curves = {
        name: {game: [float(score) for score in scores] for game, scores in of.items()}
        for name, of in comparison.curves.items()
    }
    plain = comparison._asdict() | {
        "metrics": {name: m._asdict() for name, m in comparison.metrics.items()},
        "rows": rows,
        "curves": curves,
    }
    _check(comparison, plain)
    text = json.dumps(
        plain,
        indent=2,
        allow_nan=False,
        ensure_ascii=False,
        default=operator.methodcaller("item"),  # of numpy's scalars
    )
    return text + "\n"


def from_json(text: str) -> Comparison:
    """Reads what `to_json` wrote; in `how`, tuples have become lists.

    Raises:
      InputError: it is something else, or what `to_json` refuses.
    """
    try:
        plain = json.loads(text)
        rows = {
            name: ComparisonRow(**row)._replace(
                figures={
                    key: Figure(
                        figure["value"],
                        figure["interval"] and tuple(figure["interval"]),
                        figure["images"],
                    )
                    for key, figure in row["figures"].items()
                }
            )
            for name, row in plain["rows"].items()
        }
        published = {
            name: {key: tuple(figure) for key, figure in of.items()}
            for name, of in plain["published"].items()
        }
        comparison = Comparison(**plain)._replace(
            metrics={name: Metric(**m) for name, m in plain["metrics"].items()},
            rows=rows,
            agreement=plain["agreement"] and tuple(plain["agreement"]),
            published=published,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"no comparison as to_json writes it ({type(error).__name__}: {error})"
        ) from error
    _check(comparison, plain)
    return comparison


def _check(comparison: Comparison, plain: Mapping[str, Any]) -> None:
    for path, number in _numbers(plain):
        if not math.isfinite(number):
            raise InputError(
                f"{'.'.join(path)} is {number}: leave out a figure that does not exist"
            )
    for what, named in (
        ("rows", {name: row.figures for name, row in comparison.rows.items()}),
        ("published", comparison.published),
    ):
        for name, figures in named.items():
            for metric in figures:
                if metric not in comparison.metrics:
                    raise InputError(f"{what}.{name}.{metric}: no metric has this name")
    for what in ("published", "curves"):
        for name in getattr(comparison, what):
            if name not in comparison.rows:
                raise InputError(f"{what}.{name}: no row has this name")


def _numbers(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple, float]]:
    """Returns every number inside, with the way to it."""
    if isinstance(value, numbers.Real):
        return [(path, float(value))]
    if isinstance(value, str) or not isinstance(value, Mapping | Sequence):
        return []
    inner = value.items() if isinstance(value, Mapping) else enumerate(value)
    return [found for key, part in inner for found in _numbers(part, (*path, str(key)))]
