"""The rows as saliency_jax computes them: jitted as in `train.py` and `saliency_fn`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.versus_torch.contestant import Answer, Contestant
from benchmarks.versus_torch.problem import (
    ADAM,
    AREA_WEIGHT,
    MEAN,
    SCORE,
    SGD,
    STD,
    THINNING,
    Problem,
    as_flax,
)
from saliency_jax import pool as pools
from saliency_jax.models.classifier import Classifier
from saliency_jax.objectives import casm
from saliency_jax.saliency import Masker, saliency_fn
from saliency_jax.training import casm_step, finite, sharding
from saliency_jax.training.classifier_step import make_classifier_step
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.state import TrainState, create_net

NAME = "saliency_jax"


def forward(problem: Problem, labels: np.ndarray, dtype: str) -> Contestant:
    """The classifier's logits."""
    del labels
    function = jax.jit(lambda model, images: model(images))
    return _inference(problem, dtype, function, _masker(problem, dtype).classifier)


def masks(problem: Problem, labels: np.ndarray, dtype: str) -> Contestant:
    """The masks."""
    del labels
    return _inference(problem, dtype, saliency_fn, _masker(problem, dtype))


def classifier_step(problem: Problem, labels: np.ndarray, dtype: str) -> Contestant:
    """A step of the stage `classifier`."""
    classifier, _ = problem.modules(dtype)
    optimiser = create_optimiser(SGD, 1)
    step = make_classifier_step(
        classifier, optimiser, mean=MEAN, std=STD, label_smoothing=0.0
    )
    net = create_net(_variables(problem)["classifier"], optimiser)
    state = TrainState(jnp.zeros((), jnp.int32), net)
    return _training(problem, labels, dtype, step, state, [()])


def start_casm(problem: Problem, dtype: str) -> tuple[Callable[..., tuple], TrainState]:
    """CASM's step of the author's variant, and a state of which a pool is full."""
    modules, variables = problem.modules(dtype), _variables(problem)
    optimisers = [create_optimiser(section, 1) for section in (SGD, ADAM)]
    options = casm_step.CasmOptions(
        thinning=casm.thinning(THINNING),
        score=SCORE,
        area_weight=AREA_WEIGHT,
        variant="author",
        mean=MEAN,
        std=STD,
        seed=0,
    )
    step = casm_step.make_casm_step(*modules, *optimisers, options)
    nets = [
        create_net(variables[name], optimiser)
        for name, optimiser in zip(("classifier", "masker"), optimisers, strict=True)
    ]
    pool = casm_step.init_pool(nets[0], problem.slots, options)
    past = variables["past"]
    for slot in range(problem.slots):
        pool = pools.push(pool, **past, step=slot, key=jax.random.key(slot))
    return step, TrainState(jnp.zeros((), jnp.int32), *nets, pool)


def casm_training(problem: Problem, labels: np.ndarray, dtype: str) -> Contestant:
    """CASM's step, in turn against the current classifier and a past one."""
    step, state = start_casm(problem, dtype)
    return _training(problem, labels, dtype, step, state, [(False,), (True,)])


def _variables(problem: Problem) -> dict[str, dict]:
    weights, shapes = problem.weights(), problem.shapes()
    shapes["past"] = shapes["classifier"]
    return {name: as_flax(arrays, shapes[name]) for name, arrays in weights.items()}


def _masker(problem: Problem, dtype: str) -> Masker:
    variables = _variables(problem)
    classifier, masker = problem.modules(dtype)
    return Masker(
        variables["masker"],
        Classifier(variables["classifier"], classifier, MEAN, STD),
        masker,
    )


def _inference(
    problem: Problem, dtype: str, function: Callable, model: Classifier | Masker
) -> Contestant:
    images = jnp.asarray(problem.images())

    def run(count: int) -> None:
        for _ in range(count):  # who asks waits for the answer
            jax.block_until_ready(function(model, images))

    first = lambda: {"output": np.asarray(function(model, images))}
    return Contestant(NAME, dtype, first, run)


def _training(
    problem: Problem,
    labels: np.ndarray,
    dtype: str,
    step: Callable[..., tuple],
    state: TrainState,
    forms: list[tuple[bool, ...]],
) -> Contestant:
    """Takes the forms of a step in turn, on one batch."""
    mesh = sharding.data_mesh(jax.devices()[:1])  # PyTorch has one device, too
    replicated, by_batch = sharding.replicated(mesh), sharding.by_batch(mesh)
    batch = {"image": problem.images(), "label": labels.astype(np.int32)}
    batch = jax.device_put(batch, by_batch)
    placed = sharding.of_state(state, mesh, "device")
    held = [jax.device_put(state, placed)]
    jitted = jax.jit(
        finite.watched(step, skip=False),
        donate_argnums=0,
        static_argnums=tuple(range(2, 2 + len(forms[0]))),
        in_shardings=(placed, by_batch),
        out_shardings=(placed, replicated),
    )

    def take(index: int) -> dict[str, jax.Array]:
        with jax.set_mesh(mesh):
            held[0], metrics = jitted(held[0], batch, *forms[index % len(forms)])
        return metrics

    def first() -> Answer:
        return {
            f"{name} of step {index}": np.asarray(value)
            for index in range(len(forms))
            for name, value in take(index).items()
        }

    def run(count: int) -> None:
        for index in range(count):
            metrics = take(index)
        jax.block_until_ready((held[0], metrics))

    return Contestant(NAME, dtype, first, run)
