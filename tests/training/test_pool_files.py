"""A pool's entries on disk: what is read back, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax import pool as pools
from saliency_jax.errors import InputError
from saliency_jax.training import checkpoint_meta, pool_files

PARAMS = {"conv": {"kernel": jnp.ones((2, 3))}, "empty": {}}
STATS = {"mean": jnp.ones(3)}


def empty_pool(slots=2):
    return pools.init_pool(PARAMS, STATS, slots)


def filed(folder, **changed):
    """An entry that was saved at step 7, some of its arrays changed."""
    arrays = {"params/conv/kernel": np.full((2, 3), 5, np.float32)}
    arrays |= {"batch_stats/mean": np.full(3, 6, np.float32), **changed}
    arrays = {name: values for name, values in arrays.items() if values is not None}
    pool_files.write({folder / "7.safetensors": arrays})


def test_entries_fill_their_slots(tmp_path):
    filed(tmp_path)
    pool = pool_files.read(tmp_path, empty_pool(), [7])
    assert int(pool.count) == 1 and pool.saved_at.tolist() == [7, -1]
    entry = pools.entry(pool, jnp.int32(0))
    np.testing.assert_array_equal(entry["params"]["conv"]["kernel"], 5)
    np.testing.assert_array_equal(entry["batch_stats"]["mean"], 6)


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_stats/mean": None},
        {"batch_stats/mean": np.zeros(1, np.float32)},
        {"params/other": np.zeros(1, np.float32)},
        {"params/conv/kernel": np.zeros((3, 2), np.float32)},
    ],
)
def test_an_entry_of_another_network(changed, tmp_path):
    filed(tmp_path, **changed)
    with pytest.raises(InputError, match=r"7.safetensors .* is of another network"):
        pool_files.read(tmp_path, empty_pool(), [7])


def test_entries_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"7.safetensors .* cannot be read"):
        pool_files.read(tmp_path, empty_pool(), [7])
    with pytest.raises(InputError, match="3 pool entries for 2 slots"):
        pool_files.read(tmp_path, empty_pool(), [7, 8, 9])


@pytest.mark.parametrize("names", [[2**31], [-1], [True], ["7"], {"7": 7}])
def test_names_that_are_no_steps(names):
    with pytest.raises(ValueError, match="expected a list of steps"):
        checkpoint_meta.read_last({"pool": names, "process_count": 1})


@pytest.mark.parametrize("owes", [False, True])
def test_what_a_checkpoint_owes(owes):
    filed = checkpoint_meta.Last([3], 2, owes)
    assert checkpoint_meta.read_last(checkpoint_meta.of_last(filed)) == filed
    older = {"pool": [3], "process_count": 2}
    assert checkpoint_meta.read_last(older) == ([3], 2, False)
    with pytest.raises(ValueError, match="owes_evaluation = 1: expected true or false"):
        checkpoint_meta.read_last({**older, "owes_evaluation": 1})


def test_what_is_no_entry_of_a_run_stays(tmp_path):
    filed(tmp_path)
    for name in ("8.safetensors", "7 (copy).safetensors", "9.partial"):
        (tmp_path / name).write_text("")
    pool_files.keep_only(tmp_path, [7])
    assert {path.name for path in tmp_path.iterdir()} == {
        "7.safetensors",
        "7 (copy).safetensors",
    }
