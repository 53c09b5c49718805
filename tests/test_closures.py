"""Functions that close over arrays, when others take the place of these."""

import functools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax import attribution
from saliency_jax.closures import as_partial
from saliency_jax.models.classifier import Classifier

X = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
OLD, NEW = (
    np.random.default_rng(seed).normal(size=(48, 3)).astype(np.float32)
    for seed in (1, 2)
)
GLOBAL = {"weights": OLD}


def logits(weights, images):
    return jnp.tanh(images.reshape(len(images), -1) @ weights)


def in_a_variable():
    weights = OLD

    def replace():
        nonlocal weights
        weights = NEW

    return lambda images: logits(weights, images), replace


def in_a_dictionary():
    parameters = {"dense": {"kernel": OLD}}
    replace = lambda: parameters["dense"].update(kernel=NEW)
    return lambda images: logits(parameters["dense"]["kernel"], images), replace


def in_a_global():
    GLOBAL["weights"] = OLD
    replace = lambda: GLOBAL.update(weights=NEW)
    return lambda images: logits(GLOBAL["weights"], images), replace


def in_another_function():
    inner, replace = in_a_variable()
    return lambda images: 2 * inner(images), replace


class Trainer:
    """What people write around a state."""

    def __init__(self):
        self.state = SimpleNamespace(step=0, weights=OLD)

    def logits(self, images):
        return logits(self.state.weights, images)

    def __call__(self, images):
        return self.logits(images)

    def replace(self):
        self.state.weights = NEW


def in_an_objects_method():
    trainer = Trainer()
    return trainer.logits, trainer.replace


def in_an_object_that_is_called():
    trainer = Trainer()
    return trainer, trainer.replace


def in_a_partial():
    trainer = Trainer()
    held = functools.partial(lambda owner, images: owner(images), trainer)
    return held, trainer.replace


def under_vmap():
    inner, replace = in_a_variable()
    return jax.vmap(lambda image: inner(image[None])[0]), replace


WAYS = [
    in_a_variable,
    in_a_dictionary,
    in_a_global,
    in_another_function,
    in_an_objects_method,
    in_an_object_that_is_called,
    in_a_partial,
    under_vmap,
]


@pytest.mark.parametrize("way", WAYS)
def test_maps_are_of_the_weights_of_now(way):
    function, replace = way()
    of = lambda weights: attribution.gradient(
        jax.tree_util.Partial(logits, jnp.asarray(weights)), X, 1
    )
    scale = 2 if way is in_another_function else 1
    before = attribution.gradient(function, X, 1)
    np.testing.assert_allclose(before, scale * of(OLD), rtol=1e-5)
    replace()
    after = attribution.gradient(function, X, 1)
    np.testing.assert_allclose(after, scale * of(NEW), rtol=1e-5)
    assert np.abs(after - before).max() > 0.1


def test_a_bound_module_of_other_variables():
    module = nn.Dense(3)
    flat = lambda bound: lambda images: bound(images.reshape(len(images), -1))
    bind = lambda weights: module.bind(
        {"params": {"kernel": jnp.asarray(weights), "bias": jnp.zeros(3)}}
    )
    bound = bind(OLD)
    function = lambda images: flat(bound)(images)
    before = attribution.gradient(function, X, 1)
    bound = bind(NEW)
    expected = attribution.gradient(flat(bind(NEW)), X, 1)
    np.testing.assert_array_equal(attribution.gradient(function, X, 1), expected)
    assert np.abs(expected - before).max() > 0.1


def test_a_target_that_closes_over_weights_of_classes():
    weights = jnp.array([1.0, 0.0, 0.0])
    target = lambda logits: logits @ weights
    function = lambda images: logits(OLD, images)
    attribution.gradient(function, X, target)
    weights = jnp.array([0.0, 0.0, 1.0])
    np.testing.assert_allclose(
        attribution.gradient(function, X, target),
        attribution.gradient(function, X, 2),
        rtol=1e-5,
    )


@pytest.mark.parametrize("way", WAYS)
def test_the_same_weights_are_not_compiled_again(way):
    traces = []
    function, replace = way()

    @jax.jit
    def asked(classifier, images):
        traces.append(1)
        return classifier(images)

    for _ in range(3):
        asked(Classifier.from_function(function), X)
    assert len(traces) == 1
    replace()
    asked(Classifier.from_function(function), X)
    assert len(traces) == 2


def test_a_function_whose_variable_is_not_there_yet():
    def make():
        function = lambda images: later + jnp.sum(images)
        held = as_partial(function)
        later = 1.0
        return held

    np.testing.assert_allclose(make()(np.ones(3)), 4)


def test_a_global_of_a_library_is_not_looked_at():
    code = "def logits_fn(images):\n    return images @ TABLE"
    found = []
    for folder in ("mine", "site-packages"):
        names = {"TABLE": OLD}
        exec(compile(code, f"/{folder}/module.py", "exec"), names)
        found.append(len(as_partial(names["logits_fn"]).func.arrays))
    assert found == [1, 0]
