"""What all of these metrics have in common: the door, batches, jit, new weights."""

import functools

import jax
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.faithfulness.confidence import confidence
from saliency_jax.metrics.faithfulness.infidelity import infidelity
from saliency_jax.metrics.faithfulness.insertion_deletion import insertion_deletion
from saliency_jax.metrics.faithfulness.questions import ranks
from saliency_jax.metrics.faithfulness.random_subsets import (
    faithfulness_correlation,
    sensitivity_n,
)
from saliency_jax.metrics.faithfulness.road import road
from tests.metrics.faithfulness import linear_classifier as linear

METRICS = {
    "insertion_deletion": functools.partial(insertion_deletion, moves=5),
    "confidence": confidence,
    "sensitivity_n": functools.partial(sensitivity_n, subsets=5, shares=(0.1, 0.3)),
    "faithfulness_correlation": functools.partial(
        faithfulness_correlation, subsets=5, pixels=4
    ),
    "infidelity": functools.partial(infidelity, samples=5),
    "road": functools.partial(road, shares=(0.25, 0.5)),
}


def same(found, expected):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, found, expected)


@pytest.mark.parametrize("name", METRICS)
def test_contract(name):
    metric = METRICS[name]
    given = linear.IMAGES, linear.MAPS
    predicted = np.argmax(linear.logits(linear.IMAGES), axis=1)
    whole = metric(linear.classifier(), *given, predicted)
    assert all(len(leaf) == 3 for leaf in jax.tree.leaves(whole))
    # A class that is not given is the predicted one; batches change nothing.
    same(metric(linear.classifier(), *given, batch_size=2), whole)
    # Nor does what else is asked.
    rows = np.array([2, 0, 0])
    others = metric(linear.classifier(), *(x[rows] for x in given), predicted[rows])
    same(others, jax.tree.map(lambda x: x[rows], whole))
    # Neither new weights nor new classes compile anything.
    traced = []
    listener = lambda event, duration, **_: traced.append(event)
    new = linear.classifier(linear.WEIGHTS[..., ::-1])
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        other = metric(new, *given, 3 - predicted)
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert not [event for event in traced if "compile" in event]
    same(other, whole)
    if name != "road":
        same(jax.jit(metric)(linear.classifier(), *given, predicted), whole)


def test_order_of_equal_pixels():
    maps = np.array([[[1.0, 3, -2], [3, 1, 3]]], np.float32)
    np.testing.assert_array_equal(ranks(maps), [[[3, 0, 5], [1, 4, 2]]])
    zeros = np.array([[[0.0, -0.0, 0.0]]], np.float32)
    np.testing.assert_array_equal(ranks(zeros), [[[0, 1, 2]]])


def test_errors():
    ask = lambda maps: confidence(linear.classifier(), linear.IMAGES, maps)
    with pytest.raises(InputError, match=r"maps of shape \(3, 6, 7\) for images of"):
        ask(linear.MAPS.transpose(0, 2, 1))
    broken = linear.MAPS.copy()
    broken[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="map 1 has values that are not finite"):
        ask(broken)
    with pytest.raises(InputError, match="target 4: the classifier knows classes 0 to"):
        confidence(linear.classifier(), linear.IMAGES, linear.MAPS, 4)
