"""The table of figures, all groups of columns in one; a click on a header sorts it."""

from collections.abc import Sequence
from html import escape

from saliency_jax.report.comparison import Comparison, ComparisonRow, group_metrics
from saliency_jax.report.comparison_tables import (
    Cell,
    Column,
    describe_group,
    list_sources,
    table_columns,
)

BETTER = {
    "lower": ("↓", "lower is better"),
    "higher": ("↑", "higher is better"),
    "": ("", "neither way is better"),
}


def figures_table(comparison: Comparison, order: Sequence[str], sorted_by: str) -> str:
    """Returns the table, with buttons that hide groups, and its notes.

    Args:
      comparison: to show.
      order: names of the rows, sorted.
      sorted_by: the metric that they are sorted by.
    """
    groups = group_metrics(comparison)
    columns = [table_columns(comparison, metrics) for metrics in groups.values()]
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-group="{number}">'
        f"{escape(group)}</button>"
        for number, group in enumerate(groups)
    )
    spans = "".join(
        f'<th scope="colgroup" colspan="{len(of_group)}" data-group="{number}">'
        f"{escape(describe_group(comparison, group))}</th>"
        for number, (group, of_group) in enumerate(zip(groups, columns, strict=True))
    )
    headers = "".join(
        _header(comparison, column, number, sorted_by)
        for number, of_group in enumerate(columns)
        for column in of_group
    )
    body = "".join(
        f"<tr>{_row_header(comparison.rows[name])}"
        + "".join(
            _cell(comparison, column, name, number)
            for number, of_group in enumerate(columns)
            for column in of_group
        )
        + "</tr>"
        for name in order
    )
    return f"""
<div class="tools" role="group" aria-label="Groups of columns">columns {buttons}</div>
<div class="scroll" role="region" tabindex="0" aria-label="Figures of every row">
<table id="figures">
<thead>
<tr><th scope="col" rowspan="2" data-first="ascending"><button type="button">row
<span class="sorted" aria-hidden="true"></span></button></th>{spans}</tr>
<tr>{headers}</tr>
</thead>
<tbody>{body}</tbody>
</table>
</div>
<p class="muted"><b>Bold</b>: best of its column; a baseline can be the best, a row that
has seen the truth cannot. <i>Italic</i>: baseline. [low, high]: 95 % interval.
↓ lower, ↑ higher is better. A click on a column's name sorts by it.</p>
{_sources(comparison)}{_rules(comparison)}"""


def _header(comparison: Comparison, column: Column, group: int, sorted_by: str) -> str:
    metric = comparison.metrics[column.metric]
    mark, words = BETTER[metric.better]
    first = "ascending" if metric.better == "lower" else "descending"
    mine = column.metric == sorted_by and not column.published
    state = f' aria-sort="{first}"' if mine else ""
    title = escape(f"{metric.title}, {words}. {metric.note}")
    css = ' class="published"' if column.published else ""
    label = (
        "" if column.published else f'&nbsp;<span aria-label="{words}">{mark}</span>'
    )
    return (
        f'<th scope="col"{css} data-group="{group}" data-first="{first}"{state}>'
        f'<button type="button" title="{title}">{escape(column.title)}'
        f"{label * bool(mark)}"
        '<span class="sorted" aria-hidden="true"></span></button></th>'
    )


def _row_header(row: ComparisonRow) -> str:
    kind = escape(row.kind)
    note = f'<span class="note">{escape(row.note)}</span>' * bool(row.note)
    error = f'<span class="error">{escape(row.error)}</span>' * bool(row.error)
    return (
        f'<th scope="row" class="{kind}" data-value="{escape(row.title)}">'
        f'{escape(row.title)} <span class="kind">{kind}</span>{note}{error}</th>'
    )


def _cell(comparison: Comparison, column: Column, name: str, group: int) -> str:
    cell: Cell = column.cells[name]
    if not cell.value:
        return f'<td data-group="{group}" class="none">–</td>'
    if column.published:
        value, source = comparison.published[name][column.metric]
        return (
            f'<td class="published" data-group="{group}" data-value="{value!r}" '
            f'title="{escape(source)}">{cell.value}'
            f'<sup><a href="#source-{cell.source}">{cell.source}</a></sup></td>'
        )
    figure = comparison.rows[name].figures[column.metric]
    interval = f"<small>{cell.interval}</small>" * bool(cell.interval)
    value = f"<b>{cell.value}</b>" if cell.best else cell.value
    return (
        f'<td data-group="{group}" data-value="{float(figure.value)!r}" '
        f'title="{figure.images} images">{value}{interval}</td>'
    )


def _sources(comparison: Comparison) -> str:
    sources = list_sources(comparison)
    if not sources:
        return ""
    items = "".join(
        f'<li id="source-{number}">{escape(source)}</li>'
        for number, source in enumerate(sources, start=1)
    )
    return (
        '<p class="muted">Published figures, not measured here:</p>'
        f'<ol class="muted">{items}</ol>'
    )


def _rules(comparison: Comparison) -> str:
    items = "".join(
        f"<dt>{escape(metric.title)}</dt><dd>{escape(metric.note)} "
        f'<span class="muted">{BETTER[metric.better][1].capitalize()}.</span></dd>'
        for metric in comparison.metrics.values()
    )
    return (
        f"<details><summary>What the columns mean</summary><dl>{items}</dl></details>"
    )
