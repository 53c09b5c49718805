"""Worker processes: what becomes of one that dies, or meets what nobody foresaw."""

import dataclasses
import os
import signal

import pytest

from saliency_jax.data import preparation
from saliency_jax.data.builders.shapes import shapes_recipe
from saliency_jax.errors import InputError


@pytest.mark.parametrize("how", ["exits", "is killed"])
def test_a_worker_that_dies_is_named(how, tmp_path, small_shards):
    die, message = {
        "exits": (_exit, "code 9;"),
        "is killed": (_kill, r"code -9 \(killed, perhaps for want of memory: .*\);"),
    }[how]
    recipe = dataclasses.replace(shapes_recipe(16, 60, 15), make_example=die)
    folder = tmp_path / "shapes/16x16/1.0.0"
    with pytest.raises(InputError, match=f"worker process ended with {message} 0 .*ke"):
        preparation.write_data_set(folder, {}, lambda: recipe, False, 2)


def _exit(task):
    os._exit(9)


def _kill(task):
    os.kill(os.getpid(), signal.SIGKILL)


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
