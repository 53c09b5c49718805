"""What holds for every method: the same call, and what it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax import attribution
from saliency_jax.attribution.registry import FILE_OF, describe
from saliency_jax.errors import InputError
from saliency_jax.evaluation.randomisation import randomise
from tests.attribution.cheap import cheap
from tests.attribution.small_network import (
    CLASSES,
    SIZE,
    classifier,
    images,
    with_dead_channels,
)

NAMES = list(FILE_OF)
KEY = jax.random.key(1)

every_method = pytest.mark.parametrize("name", NAMES)


def maps_of(name, *arguments, **options):
    method = attribution.get(name)
    return np.asarray(method(*arguments, **{"key": KEY, **cheap(name), **options}))


def assert_close(maps, expected, tolerance=1e-4):
    """Equal up to rounding, on the scale of each map."""
    scale = np.abs(expected).max(axis=(1, 2), keepdims=True) + 1e-12
    np.testing.assert_allclose(maps / scale, expected / scale, atol=tolerance)


def test_all_are_listed_with_their_options():
    listed = attribution.methods()
    assert list(listed) == NAMES
    for name, method in listed.items():
        assert method.name == name and method.summary.endswith((".", "?"))
        assert not {"key", "batch_size", "targets"} & set(method.options)
    assert listed["gradient"].options["upsampling"].choices == (
        "bilinear",
        "nearest",
        None,
    )
    assert listed["rise"].stochastic and not listed["gradient"].stochastic
    assert attribution.get("grad_cam") is attribution.grad_cam
    for wrong, message in (
        ("gradcam", r"no method 'gradcam' \(did you mean grad_cam\?\): use one"),
        ("zzz", "no method 'zzz': use one of gradient, "),
    ):
        with pytest.raises(InputError, match=message):
            attribution.get(wrong)


@every_method
def test_a_batch_is_its_images_one_by_one_whatever_the_batch_size(name):
    model, batch, targets = classifier(), images(3), np.array([0, 4, 2])
    maps = maps_of(name, model, batch, targets)
    assert maps.shape == (3, SIZE, SIZE) and maps.dtype == np.float32
    assert np.ptp(maps, axis=(1, 2)).min() > 0
    single = [
        maps_of(name, model, batch[i : i + 1], targets[i : i + 1]) for i in range(3)
    ]
    assert_close(maps, np.concatenate(single))
    for batch_size in (1, 2):
        part = maps_of(name, model, batch, targets, batch_size=batch_size)
        assert_close(part, maps)


@every_method
def test_inside_a_users_jit_and_on_uint8_images(name):
    model, targets = classifier(), np.array([0, 4, 2])
    pixels = np.round(images(3) * 255).astype(np.uint8)
    expected = maps_of(name, model, pixels / np.float32(255), targets)
    assert_close(maps_of(name, model, pixels, targets), expected)
    method, options = attribution.get(name), {"key": KEY, **cheap(name)}
    inside = jax.jit(lambda *x: method(*x, batch_size=2, **options))
    assert_close(np.asarray(inside(model, pixels, targets)), expected)


@every_method
def test_targets(name):
    model, batch = classifier(), images(2)
    predicted = np.asarray(jnp.argmax(model(batch), axis=-1))
    of_predicted = maps_of(name, model, batch, predicted)
    assert_close(maps_of(name, model, batch), of_predicted)
    assert_close(maps_of(name, model, batch, int(predicted[0]))[:1], of_predicted[:1])
    for wrong in (CLASSES, -1, np.array([0, 99])):
        with pytest.raises(InputError, match="the classifier knows classes 0 to 4"):
            maps_of(name, model, batch, wrong)
    with pytest.raises(InputError, match=r"targets of shape \(3,\) for 2 images"):
        maps_of(name, model, batch, np.array([0, 1, 2]))
    with pytest.raises(InputError, match=r"images of shape \(16, 16, 3\): expected"):
        maps_of(name, model, batch[0])
    with pytest.raises(InputError, match="batch_size is 0: it must be at least 1"):
        maps_of(name, model, batch, batch_size=0)


@every_method
def test_finite_on_constant_images_and_dead_channels(name):
    constant = np.stack(
        [np.zeros((SIZE, SIZE, 3)), np.full((SIZE, SIZE, 3), (0.4, 0.5, 0.6))]
    )
    constant = constant.astype(np.float32)
    assert np.isfinite(maps_of(name, classifier(), constant)).all()
    assert np.isfinite(maps_of(name, with_dead_channels(), images(2), 1)).all()
    assert np.isfinite(maps_of(name, with_dead_channels(), constant, 1)).all()


NOT_THE_TOP = {
    "eigen_cam": "sees the last maps alone, not the head: conv2 makes them",
    "trained_masker": "is a network of its own, which never asks the classifier",
}


# Whose first steps, from a mask of ones, are of the mask's area alone.
LONGER = {
    "extremal_perturbation": {"steps": 20, "learning_rate": 0.03, "areas": 0.3},
}


@every_method
def test_maps_depend_on_what_the_top_layers_have_learnt(name):
    """Adebayo et al. (arXiv 1810.03292); `NOT_THE_TOP` says where they cannot.

    The change of a map is on its own scale. What rounding makes is below 1e-4.
    """
    model, batch, targets = classifier(), images(3), np.array([0, 4, 2])
    layers = ["fc", "bn2", "conv2"] if name in NOT_THE_TOP else ["fc"]
    redrawn = randomise(model, layers, batch, jax.random.key(11))
    maps, others = (
        maps_of(name, either, batch, targets, **LONGER.get(name, {}))
        for either in (model, redrawn)
    )
    if name == "trained_masker":
        np.testing.assert_array_equal(others, maps)
        return
    change = np.abs(others - maps).max(axis=(1, 2))
    assert (change > 2e-3 * np.abs(maps).max(axis=(1, 2))).all()


@every_method
def test_in_bfloat16(name):
    batch, targets = images(2), np.array([0, 4])
    maps = maps_of(name, classifier(dtype=jnp.bfloat16), batch, targets)
    assert maps.dtype == np.float32 and np.isfinite(maps).all()
    exact = maps_of(name, classifier(), batch, targets)
    # Where little was drawn, rounding weighs more.
    least = 0.9 if describe(name, attribution.get(name)).stochastic else 0.97
    for one, other in zip(maps, exact, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > least


@every_method
def test_only_the_key_decides_what_is_random(name):
    model, batch = classifier(), images(2)
    maps = maps_of(name, model, batch, 1)
    np.testing.assert_array_equal(maps_of(name, model, batch, 1), maps)
    other = maps_of(name, model, batch, 1, key=jax.random.key(7))
    method = describe(name, attribution.get(name))
    assert (np.abs(other - maps).max() > 0) == method.stochastic
    without = maps_of(name, model, batch, 1, key=None)
    np.testing.assert_array_equal(maps_of(name, model, batch, 1, key=None), without)


@every_method
def test_new_images_weights_and_targets_do_not_recompile(name):
    traced = []
    listener = lambda event, duration, **_: traced.append(event)
    first, second = classifier(0), classifier(1)
    new_images = images(2, seed=1)
    maps_of(name, first, images(2, seed=0), np.array([0, 1]))
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        maps_of(name, second, new_images, np.array([2, 3]))
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert not [event for event in traced if "compile" in event]
