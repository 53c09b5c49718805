"""Folded BatchNorm: dead in training, alive after unfolding, the same in evaluation."""

from functools import partial

import flax.traverse_util
import jax
import numpy as np
import pytest

from saliency_jax.models import create
from saliency_jax.models.classifier import Classifier, normalise
from saliency_jax.models.unfold import is_folded, unfold
from tests.models import reproducible


def folded(name, **options):
    """A classifier whose BatchNorms only add, as a converter leaves them."""
    module = create.create_backbone(name, 6, **options)
    images = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
    variables = reproducible.variables(module, normalise(images[:1]))
    identity = {"scale": 1.0, "mean": 0.0, "var": 1.0}
    flat = flax.traverse_util.flatten_dict(variables)
    for path, leaf in flat.items():
        if path[-1] in identity:
            flat[path] = np.full(leaf.shape, identity[path[-1]], np.float32)
    variables = flax.traverse_util.unflatten_dict(flat)
    return Classifier(variables, module, 3 * (0.5,), 3 * (0.5,)), variables, images


@partial(jax.jit, static_argnums=2)
@partial(jax.jit, static_argnums=2)
def logits_of(classifier, images, train):
    inputs = normalise(images, classifier.mean, classifier.std)
    (logits, _), _ = classifier.module.apply(
        classifier.variables, inputs, train, mutable=["batch_stats"]
    )
    return logits


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10", {"width": 8}),
        pytest.param(
            "mobilenet_v2", {"width_multiplier": 0.25}, marks=pytest.mark.slow
        ),
    ],
)
def test_training_gives_what_evaluation_gives(name, options):
    classifier, variables, images = folded(name, **options)
    assert is_folded(variables)
    expected = logits_of(classifier, images, False)
    spread = np.std(expected)
    assert np.abs(logits_of(classifier, images, True) - expected).max() > spread

    alive = unfold(classifier, [images])
    assert not is_folded(alive)
    assert jax.tree.map(np.shape, alive) == jax.tree.map(np.shape, variables)
    unfolded = classifier.replace(variables=alive)
    for train in (False, True):
        error = np.abs(logits_of(unfolded, images, train) - expected).max()
        assert error < 0.01 * spread, train
    # Of several batches together, as of their union.
    halves = unfold(classifier, [images[:8], images[8:]])
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), halves, alive
    )


def test_epsilon_is_that_of_each_layer():
    """A user's own module says nothing of it."""
    classifier, _, images = folded("tests.own_networks:batch_norm", dtype=np.float32)
    unfolded = classifier.replace(variables=unfold(classifier, [images]))
    expected = logits_of(classifier, images, False)
    for train in (False, True):
        logits = logits_of(unfolded, images, train)
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def test_what_is_not_folded():
    classifier, variables, images = folded("resnet10", width=8)
    assert not is_folded(reproducible.variables(classifier.module, normalise(images)))
    one = jax.tree.map(lambda leaf: leaf, variables)
    one["batch_stats"]["bn1"]["var"] = np.full(8, 1.1, np.float32)
    assert not is_folded(one)
    assert not is_folded({"params": {}, "batch_stats": {}})


def test_the_real_folded_file_is_recognised(shared_data):
    from saliency_jax.models.weights import load_weights

    for file, network, options, expected in (
        ("mobilenet_v2_tf", "mobilenet_v2", {}, True),
        ("mobilenet_v1_075_keras", "mobilenet_v1", {"width_multiplier": 0.75}, False),
        ("squeezenet1_1", "squeezenet1_1", {}, False),
    ):
        module = create.create_backbone(network, 1000, **options)
        path = shared_data / "weights" / f"{file}.safetensors"
        assert is_folded(load_weights(path, module)) == expected
