"""Order, best figures, digits, and JSON that comes back as it was."""

import json

import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.report.comparison import (
    Figure,
    best_rows,
    from_json,
    group_metrics,
    sort_rows,
    to_json,
    value_format,
)
from tests.compared import compare


@pytest.fixture
def comparison():
    return compare()


def with_values(comparison, metric, values):
    """Replaces the figures of one metric, in the order of the rows."""
    rows = {
        name: row._replace(figures={metric: Figure(value, None, 1)})
        for (name, row), value in zip(comparison.rows.items(), values, strict=True)
    }
    return comparison._replace(rows=rows)


def test_the_best_row_comes_first_and_rows_without_a_figure_last(comparison):
    by_error = ["truth", "centre", "cam", "casm", "broken"]
    assert sort_rows(comparison, "le") == sort_rows(comparison) == by_error
    assert sort_rows(comparison, "speed") == [
        "centre",
        "cam",
        "casm",
        "truth",
        "broken",
    ]
    # three ties keep their order
    assert sort_rows(comparison, "area") == ["cam", "centre", "casm", "truth", "broken"]
    assert sort_rows(comparison._replace(metrics={})) == list(comparison.rows)


def test_an_unknown_metric_is_answered_with_the_nearest_name(comparison):
    with pytest.raises(InputError, match="no metric 'speeed'.*'speed'"):
        sort_rows(comparison, "speeed")


def test_the_best_is_the_best_as_printed_among_those_that_compete(comparison):
    best = best_rows(comparison)
    # 30.0 and 29.99 per cent are printed alike; the truth's 0.0 does not compete
    assert best == {"le": {"cam", "centre"}, "area": set(), "speed": {"centre"}}
    rows = comparison.rows
    alone = comparison._replace(rows={name: rows[name] for name in ("cam", "truth")})
    assert best_rows(alone)["le"] == set()


@pytest.mark.parametrize(
    "values, printed",
    [
        (
            [0.1234, 0.5, 0.0, -0.00051, 0.9],
            ["0.123", "0.500", "0.000", "-0.001", "0.900"],
        ),
        ([12.345, 1, 2, 3, 0.02], ["12.35", "1.00", "2.00", "3.00", "0.02"]),
        ([1234.5, 99, 1, 2, 3], ["1234", "99", "1", "2", "3"]),
        (
            [0.5, 0.0004, 0.1, 0.2, 0.3],
            ["0.500", "0.000400", "0.100", "0.200", "0.300"],
        ),
        (
            [5e-5, 1e-4, 0, 2e-4, 123.0],
            ["5.00e-05", "0.000100", "0.00", "0.000200", "123"],
        ),
    ],
)
def test_numbers_of_a_column_have_as_many_decimals_as_it_needs(
    comparison, values, printed
):
    changed = with_values(comparison, "speed", values)._replace(published={})
    write = value_format(changed, "speed")
    assert [write(value) for value in values] == printed


def test_no_figure_is_printed_as_minus_zero(comparison):
    assert value_format(comparison, "le")(-0.0001) == "0.0"
    assert value_format(comparison, "speed")(-0.001) == "0.0"


def test_groups_are_in_the_order_of_the_columns(comparison):
    groups = group_metrics(comparison)
    assert list(groups.items()) == [
        ("localisation", ["le", "area"]),
        ("cost", ["speed"]),
    ]


def test_json_comes_back_as_it_was(comparison):
    assert from_json(to_json(comparison)) == comparison
    without = comparison._replace(agreement=None, published={}, curves={})
    assert from_json(to_json(without)) == without


def test_numpy_scalars_become_numbers(comparison):
    rows = comparison.rows | {
        "cam": comparison.rows["cam"]._replace(
            figures={"le": Figure(np.float32(0.25), None, np.int64(8))}
        )
    }
    read = from_json(to_json(comparison._replace(rows=rows)))
    assert read.rows["cam"].figures == {"le": Figure(0.25, None, 8)}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float32("nan")])
def test_figures_that_are_not_finite_are_named(comparison, bad):
    changed = with_values(comparison, "le", [0.1, 0.2, bad, 0.3, 0.4])
    with pytest.raises(InputError, match=r"rows\.broken\.figures\.le\.value is"):
        to_json(changed)
    changed = comparison._replace(agreement=(["cam", "casm"], [[1.0, bad], [0.5, 1.0]]))
    with pytest.raises(InputError, match=r"agreement\.1\.0\.1 is"):
        to_json(changed)
    changed = comparison._replace(curves={"cam": {"insertion": [0.0, bad]}})
    with pytest.raises(InputError, match=r"curves\.cam\.insertion\.1 is"):
        to_json(changed)


def test_names_that_lead_nowhere_are_refused(comparison):
    for change, name in (
        ({"metrics": {"le": comparison.metrics["le"]}}, "rows.cam.speed"),
        ({"published": {"casm": {"ln": (0.1, "")}}}, "published.casm.ln"),
        ({"published": {"nobody": {}}}, "published.nobody"),
        ({"curves": {"nobody": {}}}, "curves.nobody"),
    ):
        with pytest.raises(InputError, match=name):
            to_json(comparison._replace(**change))


def test_other_json_is_no_comparison(comparison):
    plain = json.loads(to_json(comparison))
    plain["metrics"]["le"].pop("note")
    for text in ("", "[]", "{}", '{"rows": 3}', json.dumps(plain)):
        with pytest.raises(InputError, match="no comparison"):
            from_json(text)
    nan = to_json(comparison).replace("0.361", "NaN")
    with pytest.raises(InputError, match=r"published\.casm\.le\.0 is nan"):
        from_json(nan)
