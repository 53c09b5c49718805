"""The networks of a checkpoint, for those who do not train."""

import jax
import jax.numpy as jnp
import pytest

from saliency_jax.errors import InputError
from saliency_jax.training.checkpoints import (
    Checkpoints,
    checkpoint_folder,
    restore_networks,
)
from tests.training.steps import assert_same, go_on, numbers, start


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with checkpoints 3 and 6 and a best at 5."""
    workdir = tmp_path_factory.mktemp("saved")
    data, state = numbers(), start()
    with Checkpoints(workdir, 2) as checkpoints:
        states = {}
        for step in (3, 6):
            state = states[step] = go_on(state, data, 3)
            checkpoints.save(state, data)
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
        checkpoints.save(state, numbers())
    networks = checkpoint_folder(tmp_path, "last") / "3" / "networks"
    for path in networks.rglob("*"):
        if path.is_file() and path.name not in ("_CHECKPOINT_METADATA", "_METADATA"):
            path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read as this run's networks"):
        restore_networks(tmp_path, "last", shapes(state))
