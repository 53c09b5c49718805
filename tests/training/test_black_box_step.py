"""The two phases of the stage black_box, on the smallest networks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.models.classifier import Classifier
from saliency_jax.models.resnet import ResNet
from saliency_jax.models.selective_masker import SelectiveDecoder, SelectiveMasker
from saliency_jax.objectives.black_box import published
from saliency_jax.removal import RemovalOptions
from saliency_jax.training import black_box_step
from saliency_jax.training.black_box_step import (
    PhaseOptions,
    StepOptions,
    make_black_box_step,
)
from saliency_jax.training.labels import draw_classes
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.state import NetState, TrainState
from tests.training import tiny

GREY = (0.5, 0.5, 0.5)
ENCODER = ResNet((1, 1, 1), False, tiny.CLASSES, width=4, stem="small_stride2")
MASKER = SelectiveMasker(ENCODER, SelectiveDecoder(tiny.CLASSES, base=4))
OPTIMISER = create_optimiser(tiny.ADAM, 10)
OPTIONS = StepOptions(
    phases={
        "selector": PhaseOptions(OPTIMISER, 0, 0.5),
        "decoder": PhaseOptions(OPTIMISER, 3, 0.3),
    },
    objective=published("author"),
    removal=RemovalOptions(),
    pooling="mean",
    confidence=0.0,
    encoder_mean=GREY,
    encoder_std=GREY,
    seed=0,
)


def black_box(net):
    return Classifier(net.variables, tiny.CLASSIFIER)


@functools.cache
def first_state():
    images = jnp.zeros((1, tiny.SIZE, tiny.SIZE, 3))
    init = jax.jit(lambda key: MASKER.init(key, images, jnp.zeros((1,), int), False))
    frozen = tiny.networks(0)["classifier"]
    return TrainState(
        jnp.asarray(3),
        NetState(frozen["params"], frozen["batch_stats"], ()),
        black_box_step.init_masker(init(jax.random.key(1)), OPTIONS.phases),
    )


@functools.cache
def after(phase, steps=1, options=OPTIONS):
    step = jax.jit(make_black_box_step(black_box, MASKER, options), static_argnums=2)
    state, losses = first_state(), []
    for _ in range(steps):
        state, metrics = step(state, tiny.batch(), phase)
        losses.append(float(metrics["loss"]))
    return state, metrics, losses


def moved(before, after):
    """Whether any leaf of a tree is another."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)


@pytest.mark.parametrize("phase", black_box_step.PHASES)
def test_a_phase_moves_its_own_part_and_nothing_else(phase):
    before, (state, metrics, _) = first_state(), after(phase)
    assert int(state.step) == 4
    assert not moved(before.classifier, state.classifier)
    for collection in ("params", "batch_stats"):
        old, new = (getattr(s.masker, collection) for s in (before, state))
        assert not moved(old["encoder"], new["encoder"])
    old, new = before.masker.params["decoder"], state.masker.params["decoder"]
    is_decoder = phase == "decoder"
    assert moved(old["selector"], new["selector"]) != is_decoder
    assert moved(old["up_4"], new["up_4"]) == is_decoder
    assert moved(old["mask"], new["mask"]) == is_decoder
    old, new = (s.masker.batch_stats["decoder"] for s in (before, state))
    assert moved(old, new) == is_decoder
    other = "selector" if is_decoder else "decoder"
    assert not moved(before.masker.opt_state[other], state.masker.opt_state[other])
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("phase", black_box_step.PHASES)
def test_a_phase_learns_its_batch(phase):
    _, metrics, losses = after(phase, steps=30)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    if phase == "selector":
        assert metrics["presence_accuracy"] > 0.6


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param("paper", marks=pytest.mark.slow),
        "sigmoid",
        pytest.param("zero", marks=pytest.mark.slow),
    ],
)
def test_every_variant_gives_finite_steps(variant):
    changed = {
        "paper": {"objective": published("paper"), "pooling": "max"},
        "sigmoid": {},
        "zero": {"removal": RemovalOptions(removal="zero")},
    }[variant]
    output = "sigmoid" if variant == "sigmoid" else "softmax"
    step = make_black_box_step(
        lambda net: black_box(net).replace(output=output),
        MASKER,
        dataclasses.replace(OPTIONS, **changed),
    )
    state, metrics = jax.jit(step, static_argnums=2)(
        first_state(), tiny.batch(), "decoder"
    )
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.masker.params))


def test_a_step_is_a_function_of_seed_and_step():
    step = jax.jit(make_black_box_step(black_box, MASKER, OPTIONS), static_argnums=2)
    one, _ = step(first_state(), tiny.batch(), "decoder")
    again, _ = step(first_state(), tiny.batch(), "decoder")
    assert not moved(one.masker, again.masker)
    later, _ = step(first_state().replace(step=jnp.asarray(4)), tiny.batch(), "decoder")
    assert moved(one.masker, later.masker)


def test_fake_classes():
    labels = jnp.tile(jnp.arange(5), 2000)
    alone = jax.nn.one_hot(labels, 5, dtype=bool)
    asked, true, is_real = draw_classes(jax.random.key(0), labels, alone, 0.3)
    np.testing.assert_array_equal(true, labels)
    np.testing.assert_array_equal(asked[is_real], labels[is_real])
    assert not (asked == labels)[~is_real].any()
    assert abs(float(is_real.mean()) - 0.7) < 0.02
    offsets = (asked - labels)[~is_real] % 5
    shares = np.bincount(offsets, minlength=5)[1:] / len(offsets)
    np.testing.assert_allclose(shares, 0.25, atol=0.03)
    for probability, share in ((0.0, 1.0), (1.0, 0.0)):
        *_, is_real = draw_classes(jax.random.key(0), labels, alone, probability)
        assert float(is_real.mean()) == share


def test_fake_classes_of_images_with_several_labels():
    present = jnp.tile(jnp.array([[1, 0, 1, 1, 0]], bool), (6000, 1))
    labels = jnp.tile(jnp.array([0, 2, 3]), 2000)
    asked, true, is_real = draw_classes(jax.random.key(0), labels, present, 0.3)
    shares = lambda classes: np.bincount(classes, minlength=5) / len(classes)
    np.testing.assert_allclose(shares(true), [1 / 3, 0, 1 / 3, 1 / 3, 0], atol=0.02)
    np.testing.assert_array_equal(asked[is_real], true[is_real])
    np.testing.assert_allclose(shares(asked[~is_real]), [0, 0.5, 0, 0, 0.5], atol=0.04)
    assert abs(float(is_real.mean()) - 0.7) < 0.02
    everything = jnp.ones((6000, 5), bool)
    asked, true, is_real = draw_classes(jax.random.key(0), labels, everything, 1.0)
    assert is_real.all() and (asked == true).all()


def test_only_a_sigmoid_is_asked_for_other_labels():
    """With every class present nothing is fake, unless one label is all there is."""
    batch = tiny.batch()
    several = batch | {"present": jnp.ones((len(batch["label"]), tiny.CLASSES), bool)}
    for output, is_fake in (("softmax", True), ("sigmoid", False)):
        of_output = lambda net, output=output: black_box(net).replace(output=output)
        options = dataclasses.replace(
            OPTIONS,
            phases={
                name: dataclasses.replace(phase, fake_probability=1.0)
                for name, phase in OPTIONS.phases.items()
            },
        )
        step = make_black_box_step(of_output, MASKER, options)
        _, metrics = jax.jit(step, static_argnums=2)(first_state(), several, "decoder")
        assert (metrics["fake_mask_mean"] > 0) == is_fake
        assert (metrics["mask_mean"] > 0) != is_fake
