"""Exponents of known power laws, and the pipeline over data sets of any size."""

import itertools
import json

import jax
import numpy as np
import pytest

from benchmarks.growth import __main__ as command
from benchmarks.growth import data, step
from benchmarks.growth.curves import Curve, Measured, fitted_exponent, measure
from saliency_jax.errors import InputError
from tests.commands import run_module


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law(exponent):
    values = np.array([1, 4, 32, 1000])
    found = fitted_exponent(values, 3e-3 * values**exponent)
    assert found == pytest.approx(exponent, abs=1e-9)


def test_a_constant_part_hides_in_the_fit_and_not_at_the_large_end():
    values = [10, 100, 1000, 10_000]
    measured = Measured("", "ms", values, [[1000 + v**2 for v in values]])
    assert measured.exponent() < 1.9 < measured.last_exponent() < 2


def test_the_exponent_at_the_large_end_is_taken_within_a_round():
    # A machine twice as slow in one round of three changes nothing.
    rounds = [[1.0, 8.0], [2.0, 16.0], [1.0, 8.0]]
    assert Measured("", "ms", [1, 8], rounds).last_exponents() == pytest.approx([1] * 3)


def test_a_round_takes_every_value_in_turn():
    calls = []
    curves = [
        Curve(name, {v: lambda call=(name, v): calls.append(call) for v in (1, 2)})
        for name in "ab"
    ]
    first, second = measure(curves, clock="wall", rounds=3, seconds=0)
    assert (first.what, second.what, second.values) == ("a", "b", [1, 2])
    assert np.shape(first.costs) == (3, 2)
    in_turn = [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    warm_up = [call for call in in_turn for _ in range(2)]
    assert calls == warm_up + 3 * in_turn


def test_what_is_worse_than_linear_is_named():
    linear, square = (
        Measured(name, "ms", [1, 2], [[1.0, 2.0**exponent]])
        for name, exponent in (("sum", 1), ("pairs", 2))
    )
    text = command.verdict({"examples": [linear, square]})
    assert text == "worse than linear: pairs over images in the data set (2.00)"
    assert "nothing is worse" in command.verdict({"examples": [linear]})


def test_a_table_has_a_dash_where_nothing_was_measured():
    curves = [
        Measured("step", "ms", [1, 2, 4], [[1.0, 2.0, 4.0]]),
        Measured("messages", "", [2, 4], [[55.0, 55.0]]),
    ]
    lines = command.table_of("devices", curves).splitlines()
    assert lines[2].split()[:5] == ["step,", "ms", "1.00", "2.00", "4.00"]
    assert lines[3].split()[:4] == ["messages", "-", "55.00", "55.00"]


@pytest.mark.parametrize("texts", [["8"], ["8", "8"], ["8", "4"], ["0", "4"], ["a"]])
def test_values_that_do_not_rise_are_refused(texts):
    with pytest.raises(InputError, match="--slots=.*greater than the one before"):
        command.numbers_of("slots", texts)


def test_a_state_in_mid_epoch_is_the_one_that_reading_leads_to():
    read = data.open_iterator(data.synthetic_source(1000), batch_size=8)
    start = read.get_state()
    for _ in range(5):
        next(read)
    expected, state = next(read), read.get_state()
    assert state == data.at_batch(start, 6)
    resumed = data.open_iterator(data.synthetic_source(1000), batch_size=8)
    resumed.set_state(data.at_batch(resumed.get_state(), 5))
    jax.tree.map(np.testing.assert_array_equal, next(resumed), expected)
    read.close(), resumed.close()


def test_the_synthetic_data_set_is_read_in_a_shuffled_order():
    iterator = data.open_iterator(data.synthetic_source(10**6), batch_size=8)
    labels = [batch["label"].tolist() for batch in itertools.islice(iterator, 2)]
    iterator.close()
    assert labels[0] != labels[1] and len(set(labels[0])) > 1


def test_the_pool_is_pushed_to_and_drawn_from():
    take = step.push_and_draw(step.Setting("small_cnn", 16, 2, 5), slots=2)
    take()
    take()


def test_the_command(tmp_path):
    out = tmp_path / "growth.json"
    done = run_module(
        "benchmarks.growth",
        "--only=examples",
        "--examples=100,1000",
        "--rounds=1",
        "--seconds=0",
        f"--out={out}",
    )
    assert done.returncode == 0, done.stderr
    assert "images in the data set" in done.stdout and "1,000" in done.stdout
    written = json.loads(out.read_text())
    assert written["how"]["clock"] == "processor" and written["how"]["packages"]["jax"]
    (first, *_) = written["quantities"]["examples"]
    assert first["values"] == [100, 1000] and np.shape(first["costs"]) == (1, 2)


def test_an_unknown_quantity_is_one_line():
    done = run_module("benchmarks.growth", "--only=sizes")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: --only: no quantity 'sizes'")
    assert len(done.stderr.splitlines()) == 1
