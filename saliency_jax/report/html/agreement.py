"""The rows' agreement with each other as a coloured table."""

from html import escape

from saliency_jax.report.comparison import Comparison

FOR, AGAINST = "214, 69, 56", "47, 126, 216"  # RGB, over light and dark paper
STRONGEST = 0.75  # opacity; the numbers stay readable


def agreement_section(comparison: Comparison) -> str:
    """Returns the matrix; "" where there is none."""
    if comparison.agreement is None:
        return ""
    names, matrix = comparison.agreement
    rows = comparison.rows
    titles = [escape(rows[name].title if name in rows else name) for name in names]
    header = "".join(f'<th scope="col"><span>{title}</span></th>' for title in titles)
    body = "".join(
        f'<tr><th scope="row">{title}</th>{"".join(map(_cell, values))}</tr>'
        for title, values in zip(titles, matrix, strict=True)
    )
    return (
        '<p class="muted">Of the maps of two rows, from -1 (blue) to 1 (red).</p>'
        '<div class="scroll" role="region" tabindex="0" aria-label="Agreement matrix">'
        f'<table id="agreement"><thead><tr><td></td>{header}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(value: float | int) -> str:
    colour = FOR if value > 0 else AGAINST
    opacity = STRONGEST * min(abs(value), 1)
    return f'<td style="background:rgba({colour}, {opacity:.2f})">{value:z.2f}</td>'
