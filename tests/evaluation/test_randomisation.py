"""Layers that are drawn anew, and labels: what the maps of a method do."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution import get
from saliency_jax.errors import InputError
from saliency_jax.evaluation.randomisation import (
    ALL_LAYERS,
    label_randomisation,
    layers_from_the_top,
    parameter_randomisation,
    randomise,
)
from saliency_jax.models.classifier import Classifier
from tests.attribution.small_network import CLASSES, classifier, images

IMAGES = images(3)
TARGETS = np.array([0, 3, 1])


class Linear(nn.Module):
    """Its gradient is its weights."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(4, use_bias=False, name="fc")(x.reshape(len(x), -1))


def linear(seed=0, size=24):
    module = Linear()
    shape = jnp.zeros((1, size, size, 3))
    variables = module.init(jax.random.key(seed), shape, False)
    return Classifier(variables, module, (0.0,) * 3, (1.0,) * 3)


def weights_of(model, explained, targets):
    """The maps of a linear classifier: a class's weights, summed over colours."""
    kernel = np.asarray(model.variables["params"]["fc"]["kernel"])
    return (
        kernel.reshape(*explained.shape[1:], -1).sum(axis=2).transpose(2, 0, 1)[targets]
    )


@pytest.fixture(scope="module")
def model():
    return classifier()


def edges(model, explained, targets):
    """A map that does not look at the classifier."""
    return np.abs(np.diff(explained.mean(axis=-1), axis=1, append=0))


def parameters_of(seen):
    """A method that notes what parameters it is given."""

    def explain(model, explained, targets):
        seen.append(jax.tree.map(np.asarray, model.variables))
        return edges(model, explained, targets)

    return explain


def changed_layers(before, after):
    return {
        name
        for name, leaves in before["params"].items()
        if any(
            (leaf != after["params"][name][leaf_name]).any()
            for leaf_name, leaf in leaves.items()
        )
    }


def test_layers_from_the_top(model):
    assert layers_from_the_top(model, IMAGES) == ["fc", "bn2", "conv2", "conv1"]
    function = Classifier.from_function(lambda images: images.mean((1, 2)))
    with pytest.raises(InputError, match="is a function, whose layers are not known"):
        layers_from_the_top(function, IMAGES)


def test_only_the_named_layers_change(model):
    before = model
    after = randomise(before, ["fc", "bn2"], IMAGES, jax.random.key(5))
    for name in ("conv1", "conv2"):
        old, new = (x.variables["params"][name] for x in (before, after))
        jax.tree.map(np.testing.assert_array_equal, old, new)
    kernel = after.variables["params"]["fc"]["kernel"]
    assert np.abs(kernel - before.variables["params"]["fc"]["kernel"]).min() > 0
    np.testing.assert_array_equal(after.variables["batch_stats"]["bn2"]["mean"], 0)
    assert jax.tree.structure(after) == jax.tree.structure(before)


def test_both_orders_draw_the_same_values_for_a_layer(model):
    seen = {"cascading": [], "independent": []}
    layers = {}
    for order, noted in seen.items():
        steps = parameter_randomisation(
            model,
            parameters_of(noted),
            IMAGES,
            TARGETS,
            jax.random.key(5),
            order=order,
        )
        layers[order] = [step.layer for step in steps]
    assert layers["cascading"] == ["fc", "bn2", "conv2", ALL_LAYERS]
    assert layers["independent"] == ["fc", "bn2", "conv2", "conv1", ALL_LAYERS]

    learnt, *cascade = seen["cascading"]
    _, *alone = seen["independent"]
    # Of bn2 the running statistics change; scale and bias are learnt as they began.
    assert [changed_layers(learnt, x) for x in cascade] == [
        {"fc"},
        {"fc"},
        {"fc", "conv2"},
        {"fc", "conv2", "conv1"},
    ]
    assert [changed_layers(learnt, x) for x in alone] == [
        {"fc"},
        set(),
        {"conv2"},
        {"conv1"},
        {"fc", "conv2", "conv1"},
    ]
    new_mean = [x["batch_stats"]["bn2"]["mean"].any() for x in (*cascade, *alone)]
    assert new_mean == [True, False, False, False, True, False, True, True, False]
    fresh = cascade[-1]
    jax.tree.map(np.testing.assert_array_equal, fresh, alone[-1])
    for name, place in (("fc", 0), ("conv2", 2), ("conv1", 3)):
        drawn = alone[place]["params"][name]
        jax.tree.map(np.testing.assert_array_equal, drawn, fresh["params"][name])
    # And those that `randomise` draws from the key.
    again = randomise(model, ["conv2"], IMAGES, jax.random.key(5))
    drawn = again.variables["params"]["conv2"]
    jax.tree.map(np.testing.assert_array_equal, drawn, fresh["params"]["conv2"])


def test_fewer_steps_are_spread_evenly_and_end_with_all_layers(model):
    def layers(**options):
        explain, key = parameters_of([]), jax.random.key(0)
        steps = parameter_randomisation(model, explain, IMAGES, TARGETS, key, **options)
        return [step.layer for step in steps]

    assert layers(steps=1) == [ALL_LAYERS]
    assert layers(steps=2) == ["fc", ALL_LAYERS]
    assert layers(steps=3) == ["fc", "conv2", ALL_LAYERS]
    assert layers(steps=99) == ["fc", "bn2", "conv2", ALL_LAYERS]
    assert layers(steps=3, order="independent") == ["fc", "conv1", ALL_LAYERS]
    assert layers(steps=1, order="independent") == [ALL_LAYERS]
    with pytest.raises(InputError, match="steps is 0"):
        layers(steps=0)
    with pytest.raises(InputError, match="order='upwards' is unknown: use one of"):
        inspect.unwrap(parameter_randomisation)(
            model, edges, IMAGES, TARGETS, jax.random.key(0), order="upwards"
        )


def test_an_edge_detector_is_found_out(model):
    steps = parameter_randomisation(
        model, edges, IMAGES, TARGETS, jax.random.key(1), steps=2
    )
    for step in steps:
        for values in step.similarities:
            np.testing.assert_allclose(values, np.ones(3))


def test_maps_of_a_linear_classifier_are_independent_of_the_old_ones():
    explained = np.zeros((3, 24, 24, 3), np.float32)
    (step,) = parameter_randomisation(
        linear(), weights_of, explained, TARGETS, jax.random.key(1)
    )
    assert step.layer == ALL_LAYERS
    # Of 576 pixels: a standard deviation of 1 / sqrt(575) = 0.042.
    assert np.abs(step.similarities.spearman).max() < 0.17
    assert np.abs(step.similarities.spearman_absolute).max() < 0.17
    assert np.abs(step.similarities.ssim).max() < 0.5


def test_new_weights_do_not_compile_a_method_again(model):
    """Neither by their types nor by where they lie, as checkpoints and files differ."""
    traces = []

    @jax.jit
    def explain(model, explained, targets):
        traces.append(1)
        scores = lambda x: jnp.take_along_axis(model(x), targets[:, None], 1).sum()
        return jnp.sum(jax.grad(scores)(explained), axis=-1)

    variables = model.variables
    placed = jax.device_put(variables["params"]["fc"], jax.devices()[0])
    in_numpy = jax.tree.map(np.asarray, variables["params"]["conv1"])
    halved = {"scale": jnp.ones(12, jnp.bfloat16), "bias": jnp.ones(12, jnp.bfloat16)}
    params = {**variables["params"], "fc": placed, "conv1": in_numpy, "bn2": halved}
    mixed = model.replace(variables={**variables, "params": params})
    parameter_randomisation(
        mixed, explain, jnp.asarray(IMAGES), jnp.asarray(TARGETS), jax.random.key(1)
    )
    assert len(traces) == 1
    assert explain._cache_size() == 1


def test_a_gradient_follows_the_weights(model):
    """A real method by its name; the target stays though the answer changes."""
    asked = []

    def explain(model, explained, targets):
        asked.append(np.asarray(targets))
        return get("gradient")(model, explained, targets)

    steps = parameter_randomisation(
        model, explain, IMAGES, TARGETS, jax.random.key(2), steps=2
    )
    for step in steps:
        assert (step.similarities.spearman < 0.9).all()
    assert len(asked) == 3
    for targets in asked:
        np.testing.assert_array_equal(targets, TARGETS)


def test_random_labels():
    explained = np.zeros((3, 24, 24, 3), np.float32)
    one, other = linear(0), linear(1)
    compare = lambda *models: label_randomisation(
        *models, weights_of, explained, TARGETS
    )
    for values in compare(one, one):
        np.testing.assert_allclose(values, 1)
    assert np.abs(compare(one, other).spearman).max() < 0.17
    kernel = one.variables["params"]["fc"]["kernel"]
    flipped = one.replace(variables={"params": {"fc": {"kernel": -kernel}}})
    found = compare(one, flipped)
    np.testing.assert_allclose(found.spearman, -1)
    np.testing.assert_allclose(found.spearman_absolute, 1)
    assert CLASSES > TARGETS.max()
