"""A damaged checkpoint makes place for the one before, and is kept aside."""

import json

import jax
import jax.numpy as jnp
import pytest

from saliency_jax.errors import InputError
from saliency_jax.training.checkpoints import (
    Checkpoints,
    checkpoint_folder,
    saved_steps,
)
from saliency_jax.training.damaged import set_aside_damaged
from tests.training.steps import assert_same, fresh, go_on, numbers, start
from tests.training.test_checkpoints import named_by


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def two_kept(tmp_path):
    """A workdir with checkpoints 3 and 6 and a best at 6; the state of step 3."""
    data = numbers()
    earlier = go_on(start(), data, 3)
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(earlier, data)
        kept = jax.tree.map(jnp.copy, earlier)
        later = go_on(earlier, data, 3)
        checkpoints.save(later, data)
        checkpoints.save_best(later, 0.5)
    return tmp_path, kept


PARTS = {
    "networks": "last/6/networks/d/*",
    "optimisers": "last/6/optimisers/ocdbt.process_0/d/*",
    "data": "last/6/data/*.json",
    "meta": "last/6/meta/metadata",
    "checksums": "last/6/checksums.json",
    "pool": "pool/{new}.safetensors",
}


@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_checkpoint_makes_place_for_the_one_before(two_kept, part, how):
    workdir, kept = two_kept
    assert set_aside_damaged(workdir) == []
    # An entry that the one before does not name.
    new = max(set(named_by(workdir, 6)) - set(named_by(workdir, 3)))
    path = next((workdir / "checkpoints").glob(PARTS[part].format(new=new)))
    if how == "flipped":
        flip_a_bit(path)
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    (warning,) = set_aside_damaged(workdir)
    assert warning.startswith("warning: checkpoint last/6 is damaged (")
    if part != "checksums":  # then another file does not have the one it should
        assert path.name in warning
    assert warning.endswith(": step 3 is used")
    assert saved_steps(workdir, "last") == [3]
    assert (checkpoint_folder(workdir, "damaged") / "last_6").is_dir()
    with Checkpoints(workdir, 2) as checkpoints:
        assert_same(checkpoints.restore(fresh(), numbers()), kept)


def test_a_damaged_best_is_set_aside(two_kept):
    workdir, _ = two_kept
    flip_a_bit(checkpoint_folder(workdir, "best") / "6" / "meta" / "metadata")
    (warning,) = set_aside_damaged(workdir)
    assert "checkpoint best/6" in warning and warning.endswith("there is no other")
    with Checkpoints(workdir, 2) as checkpoints:
        assert checkpoints.best_score() is None
        assert checkpoints.last_step == 6


def test_where_none_is_whole_nothing_is_moved(two_kept):
    workdir, _ = two_kept
    for step in (3, 6):
        flip_a_bit(checkpoint_folder(workdir, "last") / str(step) / "meta" / "metadata")
    with pytest.raises(InputError, match="every checkpoint of .*metadata is not what"):
        set_aside_damaged(workdir)
    assert saved_steps(workdir, "last") == [3, 6]


def test_a_checkpoint_of_an_earlier_version_is_taken_as_it_is(two_kept):
    workdir, _ = two_kept
    for folder in (workdir / "checkpoints").glob("*/[36]"):
        (folder / "checksums.json").unlink()
        path = folder / "meta" / "metadata"
        meta = json.loads(path.read_text())
        assert meta.pop("sealed") is True
        path.write_text(json.dumps(meta))
    flip_a_bit(next((workdir / "checkpoints").glob(PARTS["optimisers"])))
    assert set_aside_damaged(workdir) == []


def test_a_best_without_its_checksums_is_set_aside(two_kept):
    workdir, _ = two_kept
    (checkpoint_folder(workdir, "best") / "6" / "checksums.json").unlink()
    (warning,) = set_aside_damaged(workdir)
    assert "best/6 is damaged (checksums.json is missing)" in warning


def test_without_checksums_and_meta_a_checkpoint_is_damaged(two_kept):
    workdir, _ = two_kept
    folder = checkpoint_folder(workdir, "last") / "6"
    (folder / "checksums.json").unlink()
    (folder / "meta" / "metadata").unlink()
    (warning,) = set_aside_damaged(workdir)
    assert "neither checksums.json nor meta can be read" in warning


@pytest.mark.parametrize("part", ["files", "elsewhere"])
@pytest.mark.parametrize("name", ["a\0b", "/etc/hostname", "../../../other", "\ud800"])
def test_checksums_name_files_of_the_run_only(two_kept, part, name):
    workdir, _ = two_kept
    path = checkpoint_folder(workdir, "last") / "6" / "checksums.json"
    stored = json.loads(path.read_text())
    stored[part][name] = "0"
    path.write_text(json.dumps(stored))
    (warning,) = set_aside_damaged(workdir)
    assert "checksums.json cannot be read (it names " in warning


def test_checksums_of_endless_depth(two_kept):
    workdir, _ = two_kept
    path = checkpoint_folder(workdir, "last") / "6" / "checksums.json"
    path.write_text("[" * 100_000)
    (warning,) = set_aside_damaged(workdir)
    assert "checksums.json cannot be read (" in warning


def test_a_workdir_without_checkpoints_has_no_damage(tmp_path):
    assert set_aside_damaged(tmp_path) == []
