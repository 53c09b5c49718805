"""A file's content, whole or as it was."""

import pytest

from saliency_jax.whole_file import replaced


def test_a_file_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text("old")
    with replaced(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_where_writing_fails_all_is_as_before(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), replaced(path) as file:
        file.write(b"ne")
        raise OSError("the disk is full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_of_a_new_file_nothing_is_left_where_writing_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt), replaced(tmp_path / "new") as file:
        file.write(b"ne")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
