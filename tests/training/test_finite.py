"""Steps whose figures are not finite, by a step that is a multiplication."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.training import finite
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.state import NetState, TrainState, create_net, descend


def state_of(weight, frozen=1.0):
    net = NetState(
        {"w": jnp.asarray(weight)}, {"mean": jnp.zeros(2)}, {"m": jnp.ones(1)}
    )
    black_box = NetState({"w": jnp.asarray(frozen)}, {}, ())
    return TrainState(jnp.asarray(4), classifier=black_box, masker=net)


def step(state, batch, add):
    """The weight times the batch, the loss the sum of both."""
    weight = state.masker.params["w"] * batch["factor"] + add
    masker = state.masker.replace(params={"w": weight}, opt_state={"m": jnp.zeros(1)})
    metrics = {"loss": weight + batch["loss"], "count": jnp.asarray(3), "rate": 0.1}
    return state.replace(step=state.step + 1, masker=masker), metrics


def take(skip, factor, loss=0.0, **options):
    watched = jax.jit(finite.watched(step, skip), static_argnums=2)
    batch = {"factor": jnp.asarray(factor), "loss": jnp.asarray(loss)}
    return watched(state_of(2.0, **options), batch, 1.0)


@pytest.mark.parametrize("skip", [False, True])
def test_a_finite_step_is_as_it_was(skip):
    state, metrics = take(skip, 3.0)
    assert metrics.pop("rate") == pytest.approx(0.1)
    assert metrics == {"loss": 7.0, "count": 3, "finite": 1.0, "spoiled": 0.0}
    assert state.masker.params == {"w": 7.0} and state.masker.opt_state == {"m": 0.0}
    assert state.step == 5


@pytest.mark.parametrize(
    "spoiled", [{"factor": np.inf}, {"factor": np.nan}, {"factor": 3.0, "loss": np.nan}]
)
def test_one_that_is_not_changes_nothing_but_the_count(spoiled):
    state, metrics = take(True, **spoiled)
    assert metrics["finite"] == 0 and not np.isfinite(metrics["loss"])
    expected = state_of(2.0)
    expected = expected.replace(step=expected.step + 1)
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_without_leaving_out_it_is_told_only():
    state, metrics = take(False, np.nan)
    assert metrics["finite"] == 0 and np.isnan(state.masker.params["w"])
    assert state.masker.opt_state == {"m": 0.0}


def test_what_is_not_trained_is_not_looked_at():
    assert take(False, 1.0, frozen=np.inf)[1]["finite"] == 1


@pytest.mark.parametrize("skip", [False, True])
def test_an_optimiser_that_has_overflowed_is_told(tmp_path, skip):
    """Its second moment is infinite and its updates 0: the weights stay finite."""
    config = {"name": "adam", "learning_rate": 0.1, "weight_decay": 0.0, "clip_norm": 0}
    config |= {"schedule": "constant", "warmup_steps": 0}
    adam = create_optimiser(config, 10)

    def overflowing(state, batch):
        gradients = {"w": batch["gradient"]}
        masker = descend(state.masker, gradients, {}, adam, state.step)
        return state.replace(step=state.step + 1, masker=masker), {"loss": jnp.ones(())}

    state = state_of(2.0).replace(masker=create_net({"params": {"w": 2.0}}, adam))
    state = jax.tree.map(jnp.asarray, state)
    watched = jax.jit(finite.watched(overflowing, skip))
    after, good = watched(state, {"gradient": jnp.float32(1.0)})
    assert good["finite"] == 1
    after, metrics = watched(state, {"gradient": jnp.float32(1e25)})
    assert metrics["finite"] == 0 and np.isfinite(after.masker.params["w"])
    if skip:
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.masker))
    error = finite.error(tmp_path, 4, [metrics], Counting(), skip)
    assert str(error).startswith("the optimiser of the masker is not finite at step 4")


class Counting:
    """Batches that say which they are."""

    def __init__(self):
        self.next = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.next += 1
        return {"image": np.full((2, 4, 4, 3), self.next - 1, np.uint8)}


def test_the_batch_of_the_first_one_is_kept(tmp_path):
    good = {"finite": np.float32(1), "loss": np.float32(2)}
    update = {"finite": np.float32(0), "loss": np.float32(2), "spoiled": 3.0}
    loss = {"finite": np.float32(0), "area": np.float32(1), "loss": np.float32("nan")}
    error = finite.error(tmp_path, 10, [good, loss, update], Counting(), False)
    assert isinstance(error, InputError)
    path = tmp_path / "not_finite_at_step_11.npz"
    assert str(error).startswith(
        f"loss is not finite at step 11, whose batch is kept in {path}"
    )
    assert str(error).endswith("leave such steps out with --config.not_finite=skip")
    np.testing.assert_array_equal(np.load(path)["image"], 1)
    error = finite.error(tmp_path, 10, [update, loss], Counting(), True)
    assert str(error).startswith("an updated weight of the masker is not finite at")
    assert str(error).endswith("start again in another workdir")


def test_they_are_counted_in_a_row():
    good, bad = {"finite": np.float32(1)}, {"finite": np.float32(0)}
    assert finite.in_a_row([good, good], 3) == 0
    assert finite.in_a_row([bad, bad], 3) == 5
    assert finite.in_a_row([bad, bad, good, bad], 3) == 1


def test_a_pool_in_the_hosts_memory_cannot_go_back():
    finite.check_memory("stop", "pinned_host")
    finite.check_memory("skip", "device")
    with pytest.raises(InputError, match="not_finite = 'skip' needs the pool on the"):
        finite.check_memory("skip", "pinned_host")
