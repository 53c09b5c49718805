"""The classifier step against its definition, on one and four devices, and learning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from saliency_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD, normalise
from saliency_jax.training import sharding
from saliency_jax.training.classifier_step import make_classifier_step
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.state import TrainState, create_net
from tests.training import casm_reference, tiny

SMOOTHING = 0.2


@functools.cache
def step_function():
    return make_classifier_step(
        tiny.CLASSIFIER,
        create_optimiser(tiny.SGD, 100),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        label_smoothing=SMOOTHING,
    )


@functools.cache
def jitted_step():
    return jax.jit(step_function())


def start():
    variables = tiny.networks(0)["classifier"]
    return TrainState(
        jnp.int32(3), create_net(variables, create_optimiser(tiny.SGD, 9))
    )


def test_a_step_equals_its_definition():
    before, batch = start(), tiny.batch()
    after, metrics = jitted_step()(before, batch)
    inputs = (batch["image"] / 255.0 - casm_reference.MEAN.reshape(1, 1, 1, 3)) / (
        casm_reference.STD.reshape(1, 1, 1, 3)
    )
    targets = (1 - SMOOTHING) * jax.nn.one_hot(batch["label"], 5) + SMOOTHING / 5

    def loss_fn(params):
        (logits, _), updates = tiny.CLASSIFIER.apply(
            {"params": params, "batch_stats": before.classifier.batch_stats},
            inputs,
            True,
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (logits, updates["batch_stats"])

    params = before.classifier.params
    (loss, (logits, statistics)), gradient = jax.jit(
        jax.value_and_grad(loss_fn, has_aux=True)
    )(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    expected, _ = casm_reference.sgd(params, zeros, gradient)
    for actual, wanted in (
        (after.classifier.params, expected),
        (after.classifier.batch_stats, statistics),
    ):
        for one, other in zip(
            jax.tree.leaves(actual), jax.tree.leaves(wanted), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=2e-6, rtol=1e-5)
    assert int(after.step) == 4 and after.masker is None and after.pool is None
    assert metrics["loss"] == pytest.approx(float(loss), rel=1e-5)
    hits = jnp.argmax(logits, 1) == batch["label"]
    assert metrics["accuracy"] == hits.mean() == 5 / 8
    assert metrics["learning_rate"] == pytest.approx(0.1)


def test_a_sigmoids_step_is_taught_all_labels_of_an_image():
    batch = tiny.batch()
    present = np.zeros((8, 5), bool)
    present[np.arange(8), batch["label"]] = present[:, 4] = True
    step = make_classifier_step(
        tiny.CLASSIFIER,
        create_optimiser(tiny.SGD, 100),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        label_smoothing=0.0,
        output="sigmoid",
    )
    step = jax.jit(step)
    state, losses, metrics = start(), [], {}
    for _ in range(120):
        state, metrics = step(state, batch | {"present": present})
        losses.append(float(metrics["loss"]))
    variables = {
        "params": state.classifier.params,
        "batch_stats": state.classifier.batch_stats,
    }
    inputs = normalise(batch["image"])
    (logits, _), _ = tiny.CLASSIFIER.apply(
        variables, inputs, True, mutable=["batch_stats"]
    )
    np.testing.assert_array_equal(logits > 0, present)
    assert metrics["accuracy"] == 1 and losses[-1] < 0.5 < losses[0]
    one, _ = step(start(), batch)  # without others the label is all there is
    alone = jax.nn.one_hot(batch["label"], 5, dtype=bool)
    same, _ = step(start(), batch | {"present": alone})
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_bytes_and_floats_are_the_same_images():
    batch = tiny.batch()
    floats = batch | {"image": batch["image"].astype(jnp.float32) / 255}
    for one, other in zip(
        *(jax.tree.leaves(jitted_step()(start(), b)) for b in (batch, floats)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=2e-6, rtol=1e-5)


def test_four_devices_take_the_same_step_as_one():
    alone, alone_metrics = jitted_step()(start(), tiny.batch())
    mesh = sharding.data_mesh()
    everywhere, split = sharding.replicated(mesh), sharding.by_batch(mesh)
    step = jax.jit(
        step_function(),
        in_shardings=(everywhere, split),
        out_shardings=(everywhere, everywhere),
    )
    together, metrics = step(
        jax.device_put(start(), everywhere), jax.device_put(tiny.batch(), split)
    )
    for one, other in zip(
        jax.tree.leaves((alone, alone_metrics)),
        jax.tree.leaves((together, metrics)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=2e-6, rtol=1e-5)


def test_it_learns_eight_images_by_heart():
    state, losses = start(), []
    for _ in range(60):
        state, metrics = jitted_step()(state, tiny.batch())
        losses.append(float(metrics["loss"]))
    assert metrics["accuracy"] == 1
    # smoothed targets have an entropy of 0.66 nats, which no answer can go below
    assert 0.66 < losses[-1] < 0.85 < losses[0]
