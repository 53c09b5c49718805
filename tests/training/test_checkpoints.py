"""Checkpoints: everything comes back bit for bit, and the pool costs what it must."""

import json
import shutil
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.training import casm_step
from saliency_jax.training.checkpoints import (
    Checkpoints,
    checkpoint_folder,
    restore_networks,
    saved_steps,
)
from tests.training import tiny

CONFIG = {"stage": "casm", "seed": 0}


def numbers():
    """An endless shuffled iterator whose place is part of a checkpoint."""
    dataset = grain.MapDataset.range(50).seed(0).shuffle().repeat()
    return iter(dataset.to_iter_dataset())


def start(thinning="L2"):
    state = tiny.state(step=0)
    pool = casm_step.init_pool(state.classifier, tiny.SLOTS, tiny.options(thinning))
    return state.replace(pool=pool)


def go_on(state, data, steps):
    """Steps whose batches depend on the iterator."""
    step = tiny.jitted_step(thinning="L2")
    for _ in range(steps):
        state, _ = step(state, tiny.batch(seed=next(data)), historic=True)
    return state


def fresh():
    """A state as `train.py` makes it before restoring: other numbers, same shapes."""
    return jax.tree.map(jnp.zeros_like, start())


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def pool_files(workdir):
    folder = checkpoint_folder(workdir, "pool")
    return sorted(int(path.stem) for path in folder.glob("*.safetensors"))


def test_a_restarted_run_is_the_same_run(tmp_path):
    data = numbers()
    halfway = go_on(start(), data, 5)
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert checkpoints.last_step is None
        line = checkpoints.save(halfway, data, CONFIG)
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
        checkpoints.save(state, numbers(), CONFIG)
        spoil(leaves)
        assert all(leaf.is_deleted() for leaf in leaves)
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_same(checkpoints.restore(fresh(), numbers()), expected)


def test_a_classifier_run_has_neither_masker_nor_pool(tmp_path):
    whole = start()
    state = whole.replace(masker=None, pool=None)
    with Checkpoints(tmp_path, 1) as checkpoints:
        line = checkpoints.save(state, numbers(), CONFIG)
    assert "pool" not in line
    assert not checkpoint_folder(tmp_path, "pool").exists()
    with Checkpoints(tmp_path, 1) as checkpoints:
        restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, state), numbers())
    assert_same(restored, state)


def test_pool_entries_are_written_once_and_dropped_when_unnamed(tmp_path):
    data, state = numbers(), start()
    with Checkpoints(tmp_path, 1) as checkpoints:
        state = go_on(state, data, 3)
        line = checkpoints.save(state, data, CONFIG)
        assert pool_files(tmp_path) == [1, 2]
        assert "2 entries (0.0 MB new)" in line  # of this small network
        folder = checkpoint_folder(tmp_path, "pool")
        written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        state = go_on(state, data, 1)
        checkpoints.save(state, data, CONFIG)
        assert pool_files(tmp_path) == [1, 2, 4]
        assert all(path.stat().st_mtime_ns == at for path, at in written.items())
        state = go_on(state, data, 8)
        checkpoints.save(state, data, CONFIG)
    assert pool_files(tmp_path) == sorted(state.pool.saved_at.tolist()) != [1, 2, 4]


def test_the_line_tells_the_bytes_of_the_pool(tmp_path):
    state = start()
    big = jnp.ones((500, 500))
    params = state.classifier.params | {"fc": {"kernel": big}}
    net = state.classifier.replace(params=params)
    pool = casm_step.init_pool(net, 2, tiny.options("L2", variant="paper"))
    with Checkpoints(tmp_path, 1) as checkpoints:
        state = state.replace(pool=pool)
        assert "pool 1 entries (1.0 MB new)" in checkpoints.save(
            state, numbers(), CONFIG
        )
        state = state.replace(step=jnp.int32(1))
        assert "pool 1 entries (0.0 MB new)" in checkpoints.save(
            state, numbers(), CONFIG
        )


@pytest.mark.parametrize("keep_last", [1, 2])
def test_the_latest_checkpoints_are_kept_with_all_that_they_name(tmp_path, keep_last):
    data, state = numbers(), start()
    with Checkpoints(tmp_path, keep_last) as checkpoints:
        for _ in range(5):
            state = go_on(state, data, 3)
            checkpoints.save(state, data, CONFIG)
    steps = saved_steps(tmp_path, "last")
    assert steps == [15] if keep_last == 1 else steps == [12, 15]
    assert set(pool_files(tmp_path)) == {
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
            checkpoints.save(state, data, CONFIG)
    assert deleted


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_bad_pool_file_is_named(tmp_path, damage):
    data = numbers()
    state = go_on(start(), data, 4)
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(state, data, CONFIG)
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
        checkpoints.save(start(), numbers(), CONFIG)
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


def test_best_holds_networks_only_and_its_score(tmp_path):
    state = start()
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert checkpoints.best_score() is None
        checkpoints.save_best(state, -0.5)
        checkpoints.save_best(state.replace(step=jnp.int32(9)), -0.25)
        checkpoints.save(state, numbers(), CONFIG)
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
        checkpoints.save(state, numbers(), CONFIG)
        for step, score in ((6, 0.1), (4, 0.2), (4, 0.3)):
            checkpoints.save_best(state.replace(step=jnp.int32(step)), score)
    assert saved_steps(tmp_path, "best") == [4]
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert checkpoints.best_score() == 0.3


def test_what_an_attempt_without_a_checkpoint_left_does_not_enter_the_next(tmp_path):
    """Killed before its first checkpoint, a run has a best and pool entries alone."""
    state = start()
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save_best(state, 0.9)
    folder = checkpoint_folder(tmp_path, "pool")
    folder.mkdir(parents=True)
    (folder / "2.safetensors").write_bytes(b"of another config")
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert checkpoints.best_score() is None
        data = numbers()
        state = go_on(state, data, 3)
        checkpoints.save(state, data, CONFIG)
    with Checkpoints(tmp_path, 1) as checkpoints:
        assert_same(checkpoints.restore(fresh(), numbers()), state)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with checkpoints 3 and 6 and a best at 5."""
    workdir = tmp_path_factory.mktemp("saved")
    data, state = numbers(), start()
    with Checkpoints(workdir, 2) as checkpoints:
        states = {}
        for step in (3, 6):
            state = states[step] = go_on(state, data, 3)
            checkpoints.save(state, data, CONFIG)
        checkpoints.save_best(states[3].replace(step=jnp.int32(5)), 0.5)
    return workdir, states


def shapes(state):
    variables = {"classifier": state.classifier, "masker": state.masker}
    variables = {name: net.variables for name, net in variables.items()}
    return jax.eval_shape(lambda: variables)


@pytest.mark.parametrize(
    ("which", "step", "of"), [("last", 6, 6), (3, 3, 3), (6, 6, 6), ("best", 5, 3)]
)
def test_networks_of_a_checkpoint(saved, which, step, of):
    workdir, states = saved
    networks, found = restore_networks(workdir, which, shapes(states[of]))
    assert found == step
    assert_same(networks["classifier"], states[of].classifier.variables)
    assert_same(networks["masker"], states[of].masker.variables)


def test_parts_left_out_are_not_read(saved):
    workdir, states = saved
    like = {"classifier": shapes(states[6])["classifier"]}
    networks, _ = restore_networks(workdir, "last", like)
    assert list(networks) == ["classifier"]
    assert_same(networks["classifier"], states[6].classifier.variables)


def test_missing_checkpoints_are_named(saved, tmp_path):
    workdir, states = saved
    like = shapes(states[6])
    with pytest.raises(InputError, match=r"no checkpoint of step 4: it has \[3, 6\]"):
        restore_networks(workdir, 4, like)
    for which in ("last", "best"):
        with pytest.raises(InputError, match=f"has no '{which}' checkpoint"):
            restore_networks(tmp_path, which, like)


def test_networks_of_other_shapes_are_refused(saved):
    workdir, states = saved
    like = shapes(states[6])
    kernel = jax.ShapeDtypeStruct((4, 7), jnp.float32)
    like["classifier"]["params"]["fc"]["kernel"] = kernel
    with pytest.raises(InputError, match=r"fc/kernel has shape \(4, 5\) .*\(4, 7\)"):
        restore_networks(workdir, "last", like)
    like = shapes(states[6])
    like["classifier"]["params"]["other"] = {"kernel": kernel}
    with pytest.raises(InputError, match="it has no classifier/params/other/kernel"):
        restore_networks(workdir, "last", like)


def test_a_damaged_checkpoint_is_refused(saved, tmp_path):
    _, states = saved
    state = states[3]
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(state, numbers(), CONFIG)
    networks = checkpoint_folder(tmp_path, "last") / "3" / "networks"
    for path in networks.rglob("*"):
        if path.is_file() and path.name not in ("_CHECKPOINT_METADATA", "_METADATA"):
            path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read as this run's networks"):
        restore_networks(tmp_path, "last", shapes(state))
