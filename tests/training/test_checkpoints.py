"""Checkpoints: everything comes back bit for bit, and the pool costs what it must."""

import json
import shutil
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from saliency_jax.errors import InputError
from saliency_jax.training import casm_step, pool_files, sharding
from saliency_jax.training.checkpoints import (
    Checkpoints,
    checkpoint_folder,
    saved_steps,
)
from tests.training import tiny
from tests.training.steps import assert_same, fresh, go_on, numbers, start


def stored_entries(workdir):
    folder = checkpoint_folder(workdir, "pool")
    return sorted(int(path.stem) for path in folder.glob("*.safetensors"))


def test_a_restarted_run_is_the_same_run(tmp_path):
    data = numbers()
    halfway = go_on(start(), data, 5)
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert checkpoints.last_step is None
        line = checkpoints.save(halfway, data)
        uninterrupted = go_on(halfway, data, 5)
    assert line.startswith("checkpoint 5: ") and "pool 3 entries" in line

    data = numbers()
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert checkpoints.last_step == 5
        restored = checkpoints.restore(fresh(), data)
    assert_same(restored, halfway)
    assert restored.pool.saved_at.tolist() == [1, 2, 4]
    assert_same(go_on(restored, data, 5), uninterrupted)


def test_a_state_may_be_donated_right_after_saving(tmp_path):
    state = go_on(start(), numbers(), 1)
    expected = jax.tree.map(jnp.copy, state)
    leaves = jax.tree.leaves(state)
    spoil = jax.jit(lambda leaves: [x + 1 for x in leaves], donate_argnums=0)
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(state, numbers())
        spoil(leaves)
        # JAX copies those that the save still reads, and donates the others.
        assert any(leaf.is_deleted() for leaf in leaves)
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_same(checkpoints.restore(fresh(), numbers()), expected)


def test_a_classifier_run_has_neither_masker_nor_pool(tmp_path):
    whole = start()
    state = whole.replace(masker=None, pool=None)
    with Checkpoints(tmp_path, 1) as checkpoints:
        line = checkpoints.save(state, numbers())
    assert "pool" not in line
    assert not checkpoint_folder(tmp_path, "pool").exists()
    with Checkpoints(tmp_path, 1) as checkpoints:
        restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, state), numbers())
    assert_same(restored, state)


def test_pool_entries_are_written_once_and_dropped_when_unnamed(tmp_path):
    data, state = numbers(), start()
    with Checkpoints(tmp_path, 1) as checkpoints:
        state = go_on(state, data, 3)
        line = checkpoints.save(state, data)
        assert stored_entries(tmp_path) == [1, 2]
        assert "2 entries (0.0 MB new)" in line  # of this small network
        folder = checkpoint_folder(tmp_path, "pool")
        written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        state = go_on(state, data, 1)
        checkpoints.save(state, data)
        assert stored_entries(tmp_path) == [1, 2, 4]
        assert all(path.stat().st_mtime_ns == at for path, at in written.items())
        state = go_on(state, data, 8)
        checkpoints.save(state, data)
    assert stored_entries(tmp_path) == sorted(state.pool.saved_at.tolist()) != [1, 2, 4]


def test_the_line_tells_the_bytes_of_the_pool(tmp_path):
    state = start()
    big = jnp.ones((500, 500))
    params = state.classifier.params | {"fc": {"kernel": big}}
    net = state.classifier.replace(params=params)
    pool = casm_step.init_pool(net, 2, tiny.options("L2", variant="paper"))
    with Checkpoints(tmp_path, 1) as checkpoints:
        state = state.replace(pool=pool)
        assert "pool 1 entries (1.0 MB new)" in checkpoints.save(state, numbers())
        state = state.replace(step=jnp.int32(1))
        assert "pool 1 entries (0.0 MB new)" in checkpoints.save(state, numbers())


def saved_and_restored(workdir, mesh, state, empty):
    with jax.set_mesh(mesh):
        with Checkpoints(workdir, 1) as checkpoints:
            checkpoints.save(state, numbers())
        with Checkpoints(workdir, 1) as checkpoints:
            return checkpoints.restore(empty, numbers())


def test_a_state_on_several_devices_comes_back_on_them(tmp_path):
    mesh = sharding.data_mesh()
    everywhere = sharding.replicated(mesh)
    state = jax.device_put(go_on(start(), numbers(), 3), everywhere)
    empty = jax.device_put(jax.tree.map(jnp.zeros_like, state), everywhere)
    restored = saved_and_restored(tmp_path, mesh, state, empty)
    assert_same(restored, state)
    assert all(leaf.sharding == everywhere for leaf in jax.tree.leaves(restored))


def test_a_pool_of_another_type_and_memory_comes_back_as_it_was(tmp_path):
    mesh = sharding.data_mesh()
    stored = tiny.pool_of(1, 2, dtype="bfloat16")
    state = start().replace(pool=stored)
    placed = sharding.of_state(state, mesh, "pinned_host")
    state = jax.device_put(state, placed)
    empty = jax.device_put(jax.tree.map(jnp.zeros_like, state), placed)
    restored = saved_and_restored(tmp_path, mesh, state, empty)
    assert_same(restored, state)
    assert jax.tree.map(lambda leaf: leaf.sharding, restored) == placed


@pytest.mark.parametrize("keep_last", [1, 2])
def test_the_latest_checkpoints_are_kept_with_all_that_they_name(tmp_path, keep_last):
    data, state = numbers(), start()
    with Checkpoints(tmp_path, keep_last) as checkpoints:
        for _ in range(5):
            state = go_on(state, data, 3)
            checkpoints.save(state, data)
    steps = saved_steps(tmp_path, "last")
    assert steps == [15] if keep_last == 1 else steps == [12, 15]
    assert set(stored_entries(tmp_path)) == {
        name for step in steps for name in named_by(tmp_path, step)
    }


def named_by(workdir, step):
    folder = checkpoint_folder(workdir, "last") / str(step)
    return json.loads((folder / "meta" / "metadata").read_text())["pool"]


def test_no_pool_entry_goes_while_a_committed_checkpoint_names_it(
    tmp_path, monkeypatch
):
    """A run that is killed while a save is under way resumes from the one before."""
    deleted, unlink = [], Path.unlink

    def checked_unlink(path, *options):
        if path.suffix == ".safetensors":
            committed = saved_steps(tmp_path, "last")
            needed = {name for step in committed for name in named_by(tmp_path, step)}
            assert int(path.stem) not in needed
            deleted.append(path)
        unlink(path, *options)

    monkeypatch.setattr(Path, "unlink", checked_unlink)
    data, state = numbers(), start()
    with Checkpoints(tmp_path, 1) as checkpoints:
        for _ in range(8):
            state = go_on(state, data, 3)
            checkpoints.save(state, data)
    assert deleted


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_bad_pool_file_is_named(tmp_path, damage):
    data = numbers()
    state = go_on(start(), data, 4)
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(state, data)
    path = checkpoint_folder(tmp_path, "pool") / "2.safetensors"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    with (
        pytest.raises(InputError, match=r"pool entry .*2\.safetensors .*restore"),
        Checkpoints(tmp_path, 1) as checkpoints,
    ):
        checkpoints.restore(fresh(), numbers())


@pytest.mark.parametrize("part", ["networks", "optimisers", "data", "meta"])
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_damaged_checkpoint_is_not_resumed(tmp_path, part, damage):
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(start(), numbers())
    folder = checkpoint_folder(tmp_path, "last") / "0" / part
    if damage == "missing":
        shutil.rmtree(folder)
    else:
        for path in folder.rglob("*"):
            if path.is_file() and "METADATA" not in path.name:
                path.write_bytes(b"")
    with (
        pytest.raises(InputError, match="checkpoint .*last/0 cannot be restored"),
        Checkpoints(tmp_path, 1) as checkpoints,
    ):
        checkpoints.restore(fresh(), numbers())


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("meta/metadata", {"pool": []}),
        ("meta/metadata", {"process_count": 1}),
        ("meta/metadata", {"pool": ["../../x"], "process_count": 1}),
        ("meta/metadata", {"pool": 3, "process_count": 1}),
        ("meta/metadata", {"pool": [], "process_count": "1"}),
        ("meta/metadata", [1]),
        ("data/process_0-of-1.json", [1]),
        ("data/process_0-of-1.json", {}),
        ("data/process_0-of-1.json", {"next_index": 1e20}),
        ("data/process_0-of-1.json", {"next_index": None}),
    ],
)
def test_what_no_run_files_is_one_line(tmp_path, path, content):
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(start(), numbers())
    folder = checkpoint_folder(tmp_path, "last") / "0"
    (folder / path).write_text(json.dumps(content))
    with (
        pytest.raises(InputError, match="checkpoint .*last/0 cannot be restored"),
        Checkpoints(tmp_path, 1) as checkpoints,
    ):
        checkpoints.restore(fresh(), numbers())


@pytest.mark.parametrize("content", [{}, {"score": "x"}, [1]])
def test_a_best_without_a_score_is_one_line(tmp_path, content):
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save_best(start(), 0.5)
    folder = checkpoint_folder(tmp_path, "best") / "0"
    (folder / "meta/metadata").write_text(json.dumps(content))
    with (
        Checkpoints(tmp_path, 1) as checkpoints,
        pytest.raises(InputError, match="checkpoint .*best/0 cannot be restored"),
    ):
        checkpoints.best_score()


def test_best_holds_networks_only_and_its_score(tmp_path):
    state = start()
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert checkpoints.best_score() is None
        checkpoints.save_best(state, -0.5)
        checkpoints.save_best(state.replace(step=jnp.int32(9)), -0.25)
        checkpoints.save(state, numbers())
    assert saved_steps(tmp_path, "best") == [9]
    folder = checkpoint_folder(tmp_path, "best") / "9"
    held = {path.name for path in folder.iterdir() if path.is_dir()}
    assert held == {"networks", "meta"}
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert checkpoints.best_score() == -0.25


def test_a_better_one_replaces_best_even_if_its_step_is_lower(tmp_path):
    """A run resumed from before its best may evaluate at other steps than before."""
    state = start()
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(state, numbers())
        for step, score in ((6, 0.1), (4, 0.2), (4, 0.3)):
            checkpoints.save_best(state.replace(step=jnp.int32(step)), score)
    assert saved_steps(tmp_path, "best") == [4]
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert checkpoints.best_score() == 0.3


def test_entries_of_an_attempt_without_a_checkpoint_do_not_enter_the_next(tmp_path):
    """Killed before its first checkpoint, a run may have pool entries alone."""
    folder = checkpoint_folder(tmp_path, "pool")
    folder.mkdir(parents=True)
    (folder / "2.safetensors").write_bytes(b"of another config")
    with Checkpoints(tmp_path, 1) as checkpoints:
        data = numbers()
        state = go_on(start(), data, 3)
        checkpoints.save(state, data)
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_same(checkpoints.restore(fresh(), numbers()), state)


def test_entries_of_a_future_without_a_checkpoint_do_not_enter_a_resumed_run(tmp_path):
    """Killed between writing the pool and the commit, a run has entries too many."""
    data = numbers()
    state = go_on(start(), data, 3)
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(state, data)
    folder = checkpoint_folder(tmp_path, "pool")
    (folder / "4.safetensors").write_bytes(b"of a step that will be another")
    (folder / "6.partial").write_bytes(b"half of an entry")
    with Checkpoints(tmp_path, 1) as checkpoints:
        data = numbers()
        state = checkpoints.restore(fresh(), data)
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["1.safetensors", "2.safetensors"]
        state = go_on(state, data, 1)
        checkpoints.save(state, data)
    with Checkpoints(tmp_path, 1) as checkpoints:
        restored = checkpoints.restore(fresh(), numbers())
    assert 4 in restored.pool.saved_at
    assert_same(restored, state)


def test_a_checkpoint_is_committed_after_its_pool(tmp_path, monkeypatch):
    """Training goes on, the buffers given away, while the entries are written."""
    write, allowed = pool_files.write, threading.Event()

    def slowly(entries):
        assert allowed.wait(60)
        write(entries)

    monkeypatch.setattr(pool_files, "write", slowly)
    state = go_on(start(), numbers(), 3)
    expected = jax.tree.map(jnp.copy, state)
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(state, numbers())
        for leaf in jax.tree.leaves(state):
            leaf.delete()
        time.sleep(1)  # enough for everything else
        assert saved_steps(tmp_path, "last") == [] == stored_entries(tmp_path)
        allowed.set()
    assert saved_steps(tmp_path, "last") == [3]
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_same(checkpoints.restore(fresh(), numbers()), expected)


def test_without_its_pool_a_checkpoint_is_not_committed(tmp_path, monkeypatch):
    def full(entries):
        raise OSError(28, "No space left on device")

    data = numbers()
    before = go_on(start(), data, 3)
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(before, data)
    with (
        pytest.raises(OSError, match="No space left"),
        Checkpoints(tmp_path, 1) as checkpoints,
    ):
        monkeypatch.setattr(pool_files, "write", full)
        checkpoints.save(go_on(before, data, 3), data)
    assert saved_steps(tmp_path, "last") == [3]
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_same(checkpoints.restore(fresh(), numbers()), before)


def test_another_number_of_processes_goes_on_in_the_same_place(tmp_path):
    data = numbers()
    state = go_on(start(), data, 3)
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(state, data)
    folder = checkpoint_folder(tmp_path, "last") / "3"
    path = folder / "meta" / "metadata"
    filed = {"pool": [1, 2], "process_count": 1, "owes_evaluation": False}
    filed["sealed"] = True
    assert json.loads(path.read_text()) == filed
    path.write_text(json.dumps(filed | {"process_count": 2}))
    (folder / "data/process_0-of-1.json").rename(folder / "data/process_0-of-2.json")
    other = numbers()
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_same(checkpoints.restore(fresh(), other), state)
    assert next(other) == next(data)


def test_nobody_is_told_to_delete_the_only_checkpoint(tmp_path):
    data, state = numbers(), start()
    folder = checkpoint_folder(tmp_path, "last")
    with Checkpoints(tmp_path, 2) as checkpoints:
        state = earlier = go_on(state, data, 3)
        checkpoints.save(state, data)
        checkpoints.save(go_on(state, data, 3), data)
    shutil.rmtree(folder / "6" / "networks")
    with (
        pytest.raises(InputError, match=r"delete its folder .* step \[3\]$"),
        Checkpoints(tmp_path, 2) as checkpoints,
    ):
        checkpoints.restore(fresh(), numbers())
    shutil.rmtree(folder / "6")
    with Checkpoints(tmp_path, 2) as checkpoints:
        assert_same(checkpoints.restore(fresh(), numbers()), earlier)
    shutil.rmtree(folder / "3" / "networks")
    with (
        pytest.raises(InputError, match="put a copy of it back, or start in") as raised,
        Checkpoints(tmp_path, 2) as checkpoints,
    ):
        checkpoints.restore(fresh(), numbers())
    assert "delete its" not in str(raised.value)
