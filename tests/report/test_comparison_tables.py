"""The tables, line by line; escaping; and CSV that a reader of CSV reads."""

import csv
import io

import pytest

from saliency_jax.errors import InputError
from saliency_jax.report.comparison import Figure, Metric
from saliency_jax.report.comparison_tables import (
    describe_group,
    to_csv,
    to_latex,
    to_markdown,
    to_text,
)
from tests.compared import compare

NOTES = [
    "(1) ImageNet, Table 1",
    "CASM: alpha 0.1",
    "A & B failed: out of memory",
    "LE %, lower is better: No hit.",
    "area %: Mean of the map.",
    "images/s, higher is better: Per second.",
]


@pytest.fixture
def comparison():
    return compare()


def test_text_has_a_table_for_each_group_and_its_notes(comparison):
    assert to_text(comparison).splitlines() == [
        "localisation, 8 images",
        "",
        "                                    LE %  published  area %",
        "----------  --------  ------------------  ---------  ------",
        "truth       baseline                 0.0          -       -",
        "centre box  baseline  *30.0 [0.0, 100.0]          -    50.0",
        "Grad_CAM      method  *30.0 [20.0, 40.0]          -    50.0",
        "CASM          masker   40.0 [30.0, 50.0]   36.1 (1)    50.0",
        "A & B         method                   -          -       -",
        "",
        "cost, 6 images",
        "",
        "                      images/s",
        "----------  --------  --------",
        "truth       baseline         -",
        "centre box  baseline    *250.0",
        "Grad_CAM      method      21.5",
        "CASM          masker       2.0",
        "A & B         method         -",
        "",
        "* best of its column; [low, high] 95 % intervals",
        *NOTES,
    ]


def test_a_wide_group_goes_on_below_with_published_figures_beside_ours(comparison):
    narrow = to_text(comparison, "speed", width=54).split("\n\n")
    assert [part.splitlines()[0].split() for part in narrow[:5]] == [
        ["localisation,", "8", "images"],
        ["LE", "%", "published"],
        ["area", "%"],
        ["cost,", "6", "images"],
        ["images/s"],
    ]
    assert narrow[1].splitlines()[2].startswith("centre box")
    # nothing but a single column, which is not cut, is wider than the page
    lines = to_text(comparison, width=88).splitlines()
    assert max(map(len, lines)) <= 88


@pytest.mark.parametrize("write", [to_text, to_markdown, to_csv, to_latex])
def test_what_cannot_be_sorted_by(comparison, write):
    with pytest.raises(InputError, match="did you mean 'speed'"):
        write(comparison, "sped")


def test_markdown(comparison):
    localisation, table, *_, notes = to_markdown(comparison).split("\n\n")
    assert localisation == "**localisation, 8 images**"
    assert table.splitlines() == [
        "|  | LE % | published | area % |",
        "| --- | --: | --: | --: |",
        "| *truth* | 0.0 | - | - |",
        "| *centre box* | **30.0** [0.0, 100.0] | - | 50.0 |",
        r"| Grad\_CAM | **30.0** [20.0, 40.0] | - | 50.0 |",
        "| CASM | 40.0 [30.0, 50.0] | 36.1 (1) | 50.0 |",
        "| A & B | - | - | - |",
    ]
    assert notes.splitlines()[1:] == [f"* {note}" for note in NOTES]


def test_csv_holds_fractions_and_all_digits(comparison):
    records = list(csv.DictReader(io.StringIO(to_csv(comparison, "speed"))))
    assert [record["row"] for record in records] == [
        *("centre", "cam", "casm", "truth", "broken")
    ]
    casm, broken = records[2], records[4]
    assert {key: value for key, value in casm.items() if value} == {
        **{"row": "casm", "title": "CASM", "kind": "masker", "note": "alpha 0.1"},
        **{"le": "0.4", "le_low": "0.3", "le_high": "0.5", "le_images": "8"},
        **{"le_published": "0.361", "le_source": "ImageNet, Table 1"},
        **{"area": "0.5", "area_images": "8", "speed": "2", "speed_images": "6"},
    }
    assert float(records[0]["le"]) == 0.2999
    assert (broken["error"], broken["le"]) == ("out of memory", "")
    assert "area_published" not in broken


def test_latex(comparison):
    first, second = to_latex(comparison).split(r"\begin{table}")[1:]
    assert [line.strip() for line in first.splitlines()[5:16]] == [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"& LE \% & published & area \% \\",
        r"\midrule",
        r"\textit{truth} & 0.0 & -- & -- \\",
        r"\textit{centre box} & \textbf{30.0} {\scriptsize [0.0, 100.0]}"
        r" & -- & 50.0 \\",
        r"Grad\_CAM & \textbf{30.0} {\scriptsize [20.0, 40.0]} & -- & 50.0 \\",
        r"CASM & 40.0 {\scriptsize [30.0, 50.0]} & 36.1$^{(1)}$ & 50.0 \\",
        r"A \& B & -- & -- & -- \\",
        r"\bottomrule",
        r"\end{tabular}}",
    ]
    assert r"\item A \& B failed: out of memory" in second


def test_what_is_special_in_a_format_is_escaped(comparison):
    title = "[a_b|c] <d> {e} ~f^ g\\h #1 $5\nz"
    rows = comparison.rows
    metrics = {"le": Metric(title, "", "number", "cost", "")}
    row = rows["cam"]._replace(title=title, figures={"le": Figure(-1, (-2, -0.5), 1)})
    odd = comparison._replace(
        rows={"cam": row}, metrics=metrics, published={}, curves={}
    )
    latex = to_latex(odd)
    escaped = (
        r"{[}a\_b\textbar{}c{]} \textless{}d\textgreater{} \{e\} \textasciitilde{}f"
        r"\textasciicircum{} g\textbackslash{}h \#1 \$5 z"
    )
    assert (
        f"    {escaped} & $-$1.000 {{\\scriptsize [$-$2.000, $-$0.500]}} \\\\" in latex
    )
    assert latex.count(escaped) == 3  # a row, a column, a note
    markdown = to_markdown(odd)
    assert r"| \[a\_b\|c\] \<d\> \{e\} \~f^ g\\h \#1 $5 z | -1.000" in markdown
    (record,) = csv.DictReader(io.StringIO(to_csv(odd)))
    assert record["title"] == title


def test_how_many_images_stand_behind_a_group(comparison):
    assert describe_group(comparison, "cost") == "cost, 6 images"
    rows = comparison.rows | {
        "more": comparison.rows["cam"]._replace(figures={"le": Figure(0.1, None, 1)})
    }
    mixed = comparison._replace(rows=rows)
    assert describe_group(mixed, "localisation") == "localisation, 1 to 8 images"
    assert describe_group(mixed._replace(rows={}), "localisation") == "localisation"
