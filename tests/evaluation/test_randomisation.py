"""Layers that are drawn anew, and what the maps of a method do."""

import jax
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.evaluation.randomisation import layers_from_the_top, randomise
from saliency_jax.models.classifier import Classifier
from tests.attribution.small_network import classifier


def test_layers_from_the_top():
    assert layers_from_the_top(classifier()) == ["fc", "bn2", "conv2", "conv1"]
    function = Classifier.from_function(lambda images: images.mean((1, 2)))
    with pytest.raises(InputError, match="is a function, whose layers are not known"):
        layers_from_the_top(function)


def test_only_the_named_layers_change():
    before = classifier()
    after = randomise(before, ["fc", "bn2"], jax.random.key(5))
    for name in ("conv1", "conv2"):
        old, new = (x.variables["params"][name] for x in (before, after))
        jax.tree.map(np.testing.assert_array_equal, old, new)
    kernel = after.variables["params"]["fc"]["kernel"]
    assert np.abs(kernel - before.variables["params"]["fc"]["kernel"]).min() > 0
    np.testing.assert_array_equal(after.variables["batch_stats"]["bn2"]["mean"], 0)
    assert jax.tree.structure(after) == jax.tree.structure(before)
