from saliency_jax.report.table import format_per_cent, format_table


def test_columns_are_aligned():
    table = format_table(["row", "LE %"], [["casm", "5.0"], ["whole image", "50.6"]])
    assert table.splitlines() == [
        "row          LE %",
        "-----------  ----",
        "casm          5.0",
        "whole image  50.6",
    ]


def test_per_cent():
    assert format_per_cent(0.3014, (0.2888, 0.3144)) == "30.1 [28.9, 31.4]"


def test_per_cent_of_a_figure_without_an_interval():
    assert format_per_cent(0.3014) == "30.1"
