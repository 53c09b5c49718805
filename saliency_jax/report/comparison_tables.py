"""A comparison as text, Markdown, CSV and LaTeX."""

import csv
import io
import itertools
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

from saliency_jax.report.comparison import (
    Comparison,
    best_rows,
    group_metrics,
    sort_rows,
    value_format,
)
from saliency_jax.report.table import format_table

NO_FIGURE = "-"
AT_MOST_THE_LINE = r"\ifdim\width>\linewidth\linewidth\else\width\fi"
LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after "\\" or "\item" it would begin an option
    "]": "{]}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


class Cell(NamedTuple):
    """What is printed of one figure.

    value: "30.1"; "" where there is no figure.
    interval: "[28.9, 31.4]", or "".
    best: whether no other row is better.
    source: number of the published figure's source; 0 of our own.
    """

    value: str
    interval: str = ""
    best: bool = False
    source: int = 0


class Column(NamedTuple):
    """A column: `published` figures stand beside the metric's own."""

    metric: str
    title: str
    published: bool
    cells: dict[str, Cell]


def table_columns(
    comparison: Comparison, metrics: Sequence[str] | None = None
) -> list[Column]:
    """Returns the columns of these metrics, of all where none are given.

    A metric with published figures has a column of them after its own.
    """
    best, sources = best_rows(comparison), list_sources(comparison)
    columns = []
    for name in comparison.metrics if metrics is None else metrics:
        write = value_format(comparison, name)
        own, published = {}, {}
        for key, row in comparison.rows.items():
            own[key] = published[key] = Cell("")
            if figure := row.figures.get(name):
                interval = ", ".join(map(write, figure.interval or ()))
                own[key] = Cell(
                    write(figure.value),
                    interval and f"[{interval}]",
                    key in best[name],
                )
            if filed := comparison.published.get(key, {}).get(name):
                value, source = filed
                published[key] = Cell(write(value), source=1 + sources.index(source))
        columns.append(Column(name, comparison.metrics[name].title, False, own))
        if any(cell.value for cell in published.values()):
            columns.append(Column(name, "published", True, published))
    return columns


def list_sources(comparison: Comparison) -> list[str]:
    """Returns the sources of published figures, each once; they count from one."""
    sources = {
        source: None
        for figures in comparison.published.values()
        for _, source in figures.values()
    }
    return list(sources)


def describe_group(comparison: Comparison, group: str) -> str:
    """Returns "localisation, 638 images", or with the range where they differ."""
    counts = {
        figure.images
        for row in comparison.rows.values()
        for name, figure in row.figures.items()
        if comparison.metrics[name].group == group
    }
    if not counts:
        return group
    least, most = min(counts), max(counts)
    span = f"{most}" if least == most else f"{least} to {most}"
    return f"{group}, {span} image{'s' * (most != 1)}"


def to_text(
    comparison: Comparison, sort_by: str | None = None, width: int = 120
) -> str:
    """Returns aligned tables, one below the other, and what the columns mean.

    `*` marks the best figure of a column. A group that is wider than the page goes on
    in a further table.

    Args:
      comparison: to print.
      sort_by: the metric whose best row comes first; the first one by default.
      width: of the page, in characters; a single wider column is not cut.

    Raises:
      InputError: no metric has the name `sort_by`.
    """
    order = sort_rows(comparison, sort_by)
    named = [["", ""], *(list(comparison.rows[name][:2]) for name in order)]

    def write(cell: Cell) -> str:
        if not cell.value:
            return NO_FIGURE
        source = f"({cell.source})" * bool(cell.source)
        return f"{'*' * cell.best}{cell.value} {source}{cell.interval}".rstrip()

    def table(columns: Sequence[Sequence[str]]) -> str:
        lines = zip(*columns, strict=True)
        header, *body = (
            [*row, *cells] for row, cells in zip(named, lines, strict=True)
        )
        return format_table(header, body)

    parts = []
    for group, metrics in group_metrics(comparison).items():
        pages: list[list[list[str]]] = [[]]
        columns = table_columns(comparison, metrics)
        # A published column stays beside its metric's own.
        for _, pair in itertools.groupby(columns, lambda column: column.metric):
            added = [
                [column.title, *(write(column.cells[name]) for name in order)]
                for column in pair
            ]
            header = table([*pages[-1], *added]).partition("\n")[0]
            if pages[-1] and len(header) > width:
                pages.append([])
            pages[-1] += added
        title = describe_group(comparison, group)
        parts.append("\n\n".join([title, *map(table, pages)]))
    marks = "* best of its column; [low, high] 95 % intervals"
    notes = [
        textwrap.fill(note, width, subsequent_indent="  ")
        for note in (marks, *_notes(comparison, order))
    ]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def to_markdown(comparison: Comparison, sort_by: str | None = None) -> str:
    """Returns one table for each group, the best in bold, baselines in italics.

    Args:
      comparison: to print.
      sort_by: as in `to_text`.

    Raises:
      InputError: no metric has the name `sort_by`.
    """
    order = sort_rows(comparison, sort_by)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def write(cell: Cell) -> str:
        value = f"**{cell.value}**" if cell.best else cell.value or NO_FIGURE
        source = f" ({cell.source})" * bool(cell.source)
        return f"{value}{source} {cell.interval}".rstrip()

    def name(key: str) -> str:
        title = _escape_markdown(comparison.rows[key].title)
        return f"*{title}*" if comparison.rows[key].kind == "baseline" else title

    parts = []
    for group, metrics in group_metrics(comparison).items():
        columns = table_columns(comparison, metrics)
        header = ["", *(_escape_markdown(column.title) for column in columns)]
        rows = [
            line([name(key), *(write(column.cells[key]) for column in columns)])
            for key in order
        ]
        title = f"**{_escape_markdown(describe_group(comparison, group))}**"
        rule = line(["---", *["--:"] * len(columns)])
        parts.append("\n".join([title, "", line(header), rule, *rows]))
    marks = (
        "**bold**: best of its column; *italic*: baseline; [low, high]: 95 % interval"
    )
    notes = [
        f"* {note}" for note in (marks, *_notes(comparison, order, _escape_markdown))
    ]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def to_csv(comparison: Comparison, sort_by: str | None = None) -> str:
    """Returns one line for each row; shares are fractions, digits as they are.

    Of a metric NAME the columns are NAME, NAME_low, NAME_high (its interval) and
    NAME_images, and NAME_published and NAME_source where a row has a published figure.

    Args:
      comparison: to print.
      sort_by: as in `to_text`.

    Raises:
      InputError: no metric has the name `sort_by`.
    """
    records = []
    for key in sort_rows(comparison, sort_by):
        row, published = comparison.rows[key], comparison.published.get(key, {})
        record = {"row": key, "title": row.title, "kind": row.kind}
        record |= {"note": row.note, "error": row.error}
        for name in comparison.metrics:
            if figure := row.figures.get(name):
                low, high = figure.interval or ("", "")
                record |= {name: figure.value, f"{name}_low": low}
                record |= {f"{name}_high": high, f"{name}_images": figure.images}
            if name in published:
                value, source = published[name]
                record |= {f"{name}_published": value, f"{name}_source": source}
        records.append(record)
    header = ["row", "title", "kind", "note", "error"]
    for name in comparison.metrics:
        header += [name, *(f"{name}_{part}" for part in ("low", "high", "images"))]
        if any(name in figures for figures in comparison.published.values()):
            header += [f"{name}_published", f"{name}_source"]
    out = io.StringIO()
    writer = csv.DictWriter(out, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def to_latex(comparison: Comparison, sort_by: str | None = None) -> str:
    r"""Returns one `table` for each group, the best in `\textbf`, baselines in italics.

    It needs the packages booktabs and graphicx: a table that is wider than the text is
    scaled down to its width.

    Args:
      comparison: to print.
      sort_by: as in `to_text`.

    Raises:
      InputError: no metric has the name `sort_by`.
    """
    order = sort_rows(comparison, sort_by)

    def write(cell: Cell) -> str:
        if not cell.value:
            return "--"
        # A hyphen is not a minus sign.
        value = cell.value.replace("-", "$-$")
        value = rf"\textbf{{{value}}}" if cell.best else value
        source = f"$^{{({cell.source})}}$" * bool(cell.source)
        interval = cell.interval.replace("-", "$-$")
        return f"{value}{source}" + rf" {{\scriptsize {interval}}}" * bool(interval)

    def name(key: str) -> str:
        title = _escape_latex(comparison.rows[key].title)
        return (
            rf"\textit{{{title}}}" if comparison.rows[key].kind == "baseline" else title
        )

    parts = [r"% \usepackage{booktabs,graphicx}"]
    for group, metrics in group_metrics(comparison).items():
        columns = table_columns(comparison, metrics)
        header = ["", *(_escape_latex(column.title) for column in columns)]
        body = [
            [name(key), *(write(column.cells[key]) for column in columns)]
            for key in order
        ]
        title = _escape_latex(describe_group(comparison, group))
        label = re.sub(r"\W+", "-", group)
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"  \centering",
                    rf"  \caption{{{title[:1].upper()}{title[1:]}. Bold: best; italic: "
                    r"baseline; [low, high]: 95\,\% interval.}",
                    rf"  \label{{tab:{label}}}",
                    rf"  \resizebox{{{AT_MOST_THE_LINE}}}{{!}}{{%",
                    rf"  \begin{{tabular}}{{l{'r' * len(columns)}}}",
                    r"    \toprule",
                    f"    {' & '.join(header)} \\\\",
                    r"    \midrule",
                    *(f"    {' & '.join(cells)} \\\\" for cells in body),
                    r"    \bottomrule",
                    r"  \end{tabular}}",
                    r"\end{table}",
                ]
            )
        )
    notes = _notes(comparison, order, _escape_latex)
    if notes:
        items = [rf"  \item {note}" for note in notes]
        parts.append(
            "\n".join([r"\begin{itemize}\footnotesize", *items, r"\end{itemize}"])
        )
    return "\n\n".join(parts) + "\n"


def _notes(
    comparison: Comparison,
    order: Sequence[str],
    escape: Callable[[str], str] = lambda text: text,
) -> list[str]:
    """Returns the sources, the rows' own rules and errors, and the metrics' rules."""
    rows = [comparison.rows[name] for name in order]
    notes = [
        f"({number}) {escape(source)}"
        for number, source in enumerate(list_sources(comparison), start=1)
    ]
    notes += [escape(f"{row.title}: {row.note}") for row in rows if row.note]
    notes += [escape(f"{row.title} failed: {row.error}") for row in rows if row.error]
    for metric in comparison.metrics.values():
        better = f", {metric.better} is better" if metric.better else ""
        notes.append(escape(f"{metric.title}{better}: {metric.note}"))
    return notes


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def _escape_latex(text: str) -> str:
    joined = " ".join(text.split())
    return "".join(LATEX_ESCAPES.get(character, character) for character in joined)
