"""What a pass measured is kept whole, for the same question only."""

import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.evaluation.comparison import saved

ARRAYS = {"hit": np.array([True, False]), "boxes": np.arange(8).reshape(2, 4)}
SETTINGS = {"classifier": ["a", "1"], "size": 64, "alpha": 0.1}


def test_a_round_trip(tmp_path):
    path = saved.path_of(tmp_path, "grad_cam", "localisation")
    assert saved.load(path, SETTINGS) is None
    saved.save(path, SETTINGS, ARRAYS, "abc")
    again = saved.load(path, SETTINGS)
    assert again.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(again[name], values)
        assert again[name].dtype == values.dtype
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert saved.commit_of(path) == "abc"


def test_another_question_is_measured_again(tmp_path, capsys):
    path = saved.path_of(tmp_path, "rise", "maps")
    saved.save(path, SETTINGS, ARRAYS, "abc")
    assert saved.load(path, SETTINGS | {"size": 32, "seed": 1}) is None
    assert f"{path} is of another seed, size: measured again" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", bytes])
def test_a_damaged_file_is_measured_again(tmp_path, capsys, damage):
    path = saved.path_of(tmp_path, "rise", "maps")
    saved.save(path, SETTINGS, ARRAYS, "abc")
    whole = path.read_bytes()
    path.write_bytes(damage(whole) if damage is not bytes else bytes(len(whole)))
    assert saved.load(path, SETTINGS) is None
    assert "cannot be read" in capsys.readouterr().err


def test_rows_of_any_name_have_files_of_their_own(tmp_path):
    names = ["a/b", "a:b", "a b", "../../etc", "x" * 300, "x" * 301, ".", ""]
    paths = {saved.path_of(tmp_path, name, "maps").resolve() for name in names}
    assert len(paths) == len(names)
    for path in paths:
        assert path.is_relative_to(tmp_path / "rows") and len(path.parent.name) < 80


def test_what_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "rows").write_text("a file")
    with pytest.raises(InputError, match="maps.npz cannot be written .*--out"):
        saved.save(saved.path_of(tmp_path, "rise", "maps"), SETTINGS, ARRAYS, "abc")
