"""Aligned plain-text tables."""

from collections.abc import Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns lines of columns two spaces apart, the first one flush left.

    Args:
      header: the columns' names.
      rows: of each row its cells, as many as the header has.
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def format_number(value: float, interval: Sequence[float] | None = None) -> str:
    """Returns a number with three decimals, `0.318 [0.301, 0.335]`."""
    if interval is None:
        return f"{value:.3f}"
    low, high = interval
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def format_per_cent(value: float, interval: Sequence[float] | None = None) -> str:
    """Returns a fraction as per cent with one decimal, `30.1 [28.9, 31.4]`."""
    if interval is None:
        return f"{100 * value:.1f}"
    low, high = interval
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
