"""Functions that close over arrays, when others take the place of these."""

import functools
import gc
import weakref
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax import attribution
from saliency_jax.closures import with_arrays
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
    return lambda images: inner(images), replace


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
    before = attribution.gradient(function, X, 1)
    np.testing.assert_allclose(before, of(OLD), rtol=1e-5)
    replace()
    after = attribution.gradient(function, X, 1)
    np.testing.assert_allclose(after, of(NEW), rtol=1e-5)
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


def test_new_weights_do_not_compile_anew_and_old_ones_are_let_go(caplog):
    held = {"weights": jnp.asarray(OLD)}
    function = lambda images: logits(held["weights"], images)
    gone = []
    with jax.log_compiles():
        for seed in range(3):
            attribution.gradient(function, X, 1)
            gone.append(weakref.ref(held["weights"]))
            held["weights"] = jax.random.normal(jax.random.key(seed), (48, 3))
    compiled = [x.getMessage() for x in caplog.records]
    assert sum("Compiling jit(_gradient)" in text for text in compiled) == 1
    gc.collect()
    assert not [one for one in gone if one() is not None]


def test_a_classifier_of_a_function_that_was_made_before():
    function, replace = in_a_variable()
    classifier = Classifier.from_function(function)
    before = attribution.gradient(classifier, X, 1)
    replace()
    after = attribution.gradient(classifier, X, 1)
    np.testing.assert_array_equal(after, attribution.gradient(function, X, 1))
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int8])
def test_weights_of_other_types_in_numpy_also_changed_in_place(kind):
    weights = (10 * OLD).astype(kind)
    function = lambda images: images.reshape(len(images), -1) @ weights
    before = attribution.gradient(function, X, 1)
    weights[:] = 10 * NEW
    after = attribution.gradient(function, X, 1)
    expected = attribution.gradient(
        jax.tree_util.Partial(
            lambda held, images: images.reshape(len(images), -1) @ held, weights
        ),
        X,
        1,
    )
    np.testing.assert_allclose(after, expected, rtol=1e-5)
    assert np.abs(after - before).max() > 1


def test_keys_are_held_as_well():
    held = {"key": jax.random.key(1)}

    def function(images):
        noise = jax.random.normal(held["key"], (48, 3))
        return images.reshape(len(images), -1) @ noise

    before = attribution.gradient(function, X, 1)
    held["key"] = jax.random.key(2)
    assert np.abs(attribution.gradient(function, X, 1) - before).max() > 0.1


def test_weights_that_are_traced():
    held = {}

    def total(weights):
        held["weights"] = weights
        maps = attribution.gradient(lambda x: logits(held["weights"], x), X, 1)
        return jnp.sum(maps**2)

    by_hand = lambda weights: jnp.sum(
        attribution.gradient(jax.tree_util.Partial(logits, weights), X, 1) ** 2
    )
    for weights in (OLD, NEW):
        for of in (jax.grad, jax.jit, lambda f: lambda w: jax.vmap(f)(w[None])[0]):
            np.testing.assert_allclose(of(total)(weights), of(by_hand)(weights), 1e-4)


def test_arrays_that_depend_on_the_number_of_images():
    """The method asks for more images at once than it was given."""
    function = lambda x: logits(OLD, x) * np.linspace(1, 1, len(x))[:, None]
    expected = attribution.rise(lambda x: logits(OLD, x), X, 1, masks=8)
    np.testing.assert_allclose(
        attribution.rise(function, X, 1, masks=8), expected, rtol=1e-5
    )


def test_whatever_holds_them():
    """Also what no walk through objects would like."""
    held = {1: None, "weights": OLD, "other": {2: "two", "three": 3}}
    held["self"] = held
    function = lambda images: logits(held["weights"], images)
    attribution.gradient(function, X, 1)
    held["weights"] = NEW
    np.testing.assert_array_equal(
        attribution.gradient(function, X, 1),
        attribution.gradient(lambda images: logits(NEW, images), X, 1),
    )


def test_a_method_is_the_same_function_wherever_it_is_read():
    trainer = Trainer()
    argument = jax.ShapeDtypeStruct(X.shape, X.dtype)
    one, other = (with_arrays(trainer.logits, argument) for _ in range(2))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    another = with_arrays(Trainer().logits, argument)
    assert jax.tree.structure(one) != jax.tree.structure(another)
