"""Optimisers: PyTorch's order of clipping, decay and momentum; schedules over steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.training.optim import create_optimiser, create_schedule

CONSTANT = {
    "name": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "clip_norm": 0.0,
    "schedule": "constant",
    "warmup_steps": 0,
    "decay_every": 0,
    "decay_factor": 0.1,
}
STEPS = 6


def gradients_and_start():
    """Six gradients of two arrays, their norms from 3 to 60, and where to start."""
    rng = np.random.default_rng(0)
    start = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=5)}
    gradients = [
        {name: scale * rng.normal(size=x.shape) for name, x in start.items()}
        for scale in (0.7, 15, 1, 5, 9, 0.1)
    ]
    return gradients, start


def ours(config, gradients, start):
    """The parameters after all gradients, from `create_optimiser`."""
    optimiser = create_optimiser(config, total_steps=STEPS)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start)
    opt_state = optimiser.direction.init(params)
    for step, gradient in enumerate(gradients):
        gradient = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradient)
        params, opt_state = optimiser.update(gradient, opt_state, params, step)
    return params


def clipped(gradient, norm):
    total = np.sqrt(sum((x**2).sum() for x in gradient.values()))
    factor = norm / total if norm and total > norm else 1.0
    return {name: factor * x for name, x in gradient.items()}


def twin(config, gradients, start):
    """The same in numpy, from the definitions: clip, decay, momentum or Adam."""
    params = {name: x.copy() for name, x in start.items()}
    first = {name: np.zeros_like(x) for name, x in start.items()}
    second = {name: np.zeros_like(x) for name, x in start.items()}
    for t, gradient in enumerate(gradients, start=1):
        for name, g in clipped(gradient, config["clip_norm"]).items():
            g = g + config["weight_decay"] * params[name]
            if config["name"] == "sgd":
                first[name] = config["momentum"] * first[name] + g
                direction = first[name]
            else:
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g**2
                corrected = second[name] / (1 - 0.999**t)
                direction = first[name] / (1 - 0.9**t) / (np.sqrt(corrected) + 1e-8)
            params[name] = params[name] - config["learning_rate"] * direction
    return params


CASES = {
    "sgd": CONSTANT,
    "adam": CONSTANT | {"name": "adam"},
    "the masker's": CONSTANT
    | {"name": "adam", "clip_norm": 10.0, "learning_rate": 1e-3, "weight_decay": 1e-4},
    "clipped adam, strong decay": CONSTANT
    | {"name": "adam", "clip_norm": 10.0, "weight_decay": 1.0},
    "clipped sgd": CONSTANT | {"clip_norm": 10.0, "weight_decay": 1.0},
}


@pytest.mark.parametrize("case", CASES)
def test_updates_equal_their_definition(case):
    gradients, start = gradients_and_start()
    actual, expected = (f(CASES[case], gradients, start) for f in (ours, twin))
    for name in start:
        np.testing.assert_allclose(actual[name], expected[name], atol=2e-6, rtol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_updates_equal_pytorch(case):
    torch = pytest.importorskip("torch")
    config = CASES[case]
    gradients, start = gradients_and_start()
    params = {name: torch.tensor(x, requires_grad=True) for name, x in start.items()}
    common = {"lr": config["learning_rate"], "weight_decay": config["weight_decay"]}
    if config["name"] == "sgd":
        optimiser = torch.optim.SGD(
            params.values(), momentum=config["momentum"], **common
        )
    else:
        optimiser = torch.optim.Adam(params.values(), **common)
    for gradient in gradients:
        for name, param in params.items():
            param.grad = torch.tensor(gradient[name])
        if config["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(params.values(), config["clip_norm"])
        optimiser.step()
    actual = ours(config, gradients, start)
    for name, param in params.items():
        np.testing.assert_allclose(
            actual[name], param.detach().numpy(), atol=2e-6, rtol=1e-5
        )


def test_the_rate_follows_the_training_step_and_not_the_number_of_updates():
    """CASM's classifier moves twice in some steps; its rate must not run ahead."""
    config = CONSTANT | {"schedule": "step", "decay_every": 10, "momentum": 0.0}
    optimiser = create_optimiser(config | {"weight_decay": 0.0}, total_steps=100)
    params = {"w": jnp.zeros(())}
    opt_state = optimiser.direction.init(params)
    one = {"w": jnp.ones(())}
    for _ in range(25):
        params, opt_state = optimiser.update(one, opt_state, params, 9)
    assert float(params["w"]) == pytest.approx(-2.5, rel=1e-5)
    params, _ = optimiser.update(one, opt_state, params, 10)
    assert float(params["w"]) == pytest.approx(-2.51, rel=1e-5)


def rates(config, total_steps, steps):
    schedule = create_schedule(CONSTANT | config, total_steps)
    return [float(schedule(step)) for step in steps]


def test_schedules_by_hand():
    np.testing.assert_allclose(rates({}, 100, [0, 50, 1000]), [0.1] * 3, rtol=1e-6)
    step = {"schedule": "step", "decay_every": 40_060, "learning_rate": 1e-3}
    np.testing.assert_allclose(
        rates(step, 120_180, [0, 40_059, 40_060, 80_119, 80_120, 120_179]),
        [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5],
        rtol=1e-5,
    )
    cosine = {"schedule": "cosine"}
    np.testing.assert_allclose(
        rates(cosine, 100, [0, 25, 50, 100]),
        [0.1, 0.05 * (1 + np.cos(np.pi / 4)), 0.05, 0.0],
        atol=1e-8,
    )


def test_warmup_is_linear_and_the_cosine_ends_with_the_run():
    config = {"schedule": "cosine", "warmup_steps": 10}
    np.testing.assert_allclose(
        rates(config, 110, [0, 5, 10, 60, 110]), [0, 0.05, 0.1, 0.05, 0], atol=1e-8
    )


def test_a_warmup_that_never_ends_is_refused():
    with pytest.raises(InputError, match="warmup_steps = 20 of total_steps = 20: "):
        create_schedule(CONSTANT | {"warmup_steps": 20}, 20)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="optimiser 'adamw'.*'sgd' or 'adam'"):
        create_optimiser(CONSTANT | {"name": "adamw"}, 10)
    with pytest.raises(InputError, match="schedule 'linear'.*'cosine'"):
        create_optimiser(CONSTANT | {"schedule": "linear"}, 10)


def test_a_step_schedule_needs_to_know_when_to_decay():
    with pytest.raises(InputError, match="decay_every = 0: .*at least 1"):
        create_optimiser(CONSTANT | {"schedule": "step"}, 10)
