"""Worker processes: what becomes of one that dies, or meets what nobody foresaw."""

import dataclasses
import os

import pytest

from saliency_jax.data import preparation
from saliency_jax.data.builders.shapes import shapes_recipe
from saliency_jax.errors import InputError


def test_a_worker_that_dies_is_named(tmp_path, small_shards, monkeypatch):
    recipe = dataclasses.replace(shapes_recipe(16, 60, 15), make_example=_die)
    folder, dying = tmp_path / "shapes/16x16/1.0.0", lambda: recipe
    with pytest.raises(InputError, match="worker process ended with code 9.*kept in"):
        preparation.write_data_set(folder, {}, dying, False, 2)


def _die(task):
    os._exit(9)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_that_nobody_foresaw_names_the_image(
    workers, tmp_path, small_shards, capfd
):
    recipe = dataclasses.replace(shapes_recipe(16, 60, 15), make_example=_stumble)
    folder, stumbling = tmp_path / "shapes/16x16/1.0.0", lambda: recipe
    name = "while making the example of train image "
    if workers == 1:
        with pytest.raises(LookupError, match="unknown encoding") as caught:
            preparation.write_data_set(folder, {}, stumbling, False, workers)
        assert caught.value.__notes__[0].startswith(name)
        return
    message = f"stopped: LookupError: unknown encoding {name}[0-9]+; . shards are kept"
    with pytest.raises(InputError, match=message):
        preparation.write_data_set(folder, {}, stumbling, False, workers)
    assert "in _stumble" in capfd.readouterr().err  # the traceback


def _stumble(task):
    raise LookupError("unknown encoding")
