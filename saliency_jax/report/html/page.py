"""Puts the page together."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

from saliency_jax.report.comparison import Comparison, Gallery, sort_rows
from saliency_jax.report.html.agreement import agreement_section
from saliency_jax.report.html.curves import curves_section
from saliency_jax.report.html.figures_table import figures_table
from saliency_jax.report.html.gallery import (
    cases_section,
    gallery_section,
    image_styles,
)

KINDS = ("masker", "method", "baseline")


def build_page(
    comparison: Comparison,
    gallery: Gallery | None = None,
    *,
    title: str = "Comparison of saliency methods",
    sort_by: str | None = None,
) -> str:
    """Returns one HTML file: table, curves, gallery, extreme cases, agreement, origin.

    It needs nothing beside it and no network: pictures are data URIs, and a content
    security policy allows its own script alone. All text from outside is escaped.
    Sections without content are left out.

    Args:
      comparison: to show.
      gallery: pictures, of rows of the comparison.
      title: what stands above all.
      sort_by: the metric whose best row comes first; the first one by default.

    Raises:
      InputError: no metric has the name `sort_by`.
    """
    order = sort_rows(comparison, sort_by)
    sorted_by = sort_by or next(iter(comparison.metrics), "")
    sections = {
        "figures": ("Figures", figures_table(comparison, order, sorted_by)),
        "curves": ("Insertion and deletion", curves_section(comparison, order)),
    }
    if gallery is not None:
        cases = cases_section(comparison, gallery, order)
        sections["gallery"] = ("Gallery", gallery_section(comparison, gallery, order))
        sections["cases"] = ("Best and worst cases", cases)
    sections["agreement"] = ("Agreement", agreement_section(comparison))
    sections["how"] = ("How it was made", _how(comparison.how))
    shown = {key: part for key, part in sections.items() if part[1]}
    script = _read("script.js")
    return Template(_read("page.html")).substitute(
        title=escape(title),
        lead=escape(_lead(comparison)),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=_read("style.css"),
        images="" if gallery is None else image_styles(gallery),
        links="".join(
            f'<a href="#{key}-section">{name}</a>' for key, (name, _) in shown.items()
        ),
        sections="".join(
            f'<section id="{key}-section"><h2>{name}</h2>{content}</section>'
            for key, (name, content) in shown.items()
        ),
    )


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _lead(comparison: Comparison) -> str:
    """Returns "2 maskers, 12 methods and 5 baselines by 18 metrics"."""
    kinds = [row.kind for row in comparison.rows.values()]
    counts = [
        _count(kinds.count(kind), kind) for kind in KINDS if kinds.count(kind)
    ] or ["nothing"]
    listed = " and ".join(filter(None, (", ".join(counts[:-1]), counts[-1])))
    return f"{listed} by {_count(len(comparison.metrics), 'metric')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _how(value: Any) -> str:
    """Returns nested lists of names and values; "" where there are none."""
    if isinstance(value, Mapping):
        items = "".join(
            f"<dt>{escape(str(key))}</dt><dd>{_how(part)}</dd>"
            for key, part in value.items()
        )
        return items and f'<dl class="how">{items}</dl>'
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(part, Mapping) for part in value):
            return "".join(map(_how, value))
        return escape(", ".join(map(str, value)))
    return f"<code>{escape(str(value))}</code>"
