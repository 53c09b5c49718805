"""Superpixels: their numbers, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.asking import ask
from saliency_jax.attribution.perturbation.linear_surrogate import lime
from saliency_jax.attribution.perturbation.segments import BLOCK, segmented, superpixels
from saliency_jax.attribution.perturbation.shapley import kernel_shap
from saliency_jax.errors import InputError
from tests.attribution.perturbation.game import (
    IMAGE,
    LINEAR,
    classifier_of,
    segments_of,
)


def halves():
    """Two images: black and red halves with a little noise, and a constant one."""
    random = np.random.default_rng(0)
    image = random.uniform(0, 0.02, (24, 24, 3)).astype(np.float32)
    image[:, 12:, 0] += 0.9
    return np.stack([image, np.full((24, 24, 3), 0.5, np.float32)])


@pytest.mark.parametrize("method", ["quickshift", "slic", "grid"])
def test_numbered_from_0_without_gaps(method):
    # Numbers of slic from 1 are the fault that hid a segment from LIME.
    options = {
        "quickshift": {"kernel_size": 2, "max_dist": 10},
        "slic": {"start_label": 1, "n_segments": 9},
    }.get(method, {})
    cut = superpixels(halves(), method, **options)
    assert cut.shape == (2, 24, 24) and cut.dtype == np.int32
    for segments in cut:
        numbers = np.unique(segments)
        np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert not set(cut[0, :, :12].ravel()) & set(cut[0, :, 12:].ravel())


def test_the_same_of_uint8_and_again():
    pixels = np.round(halves() * 255).astype(np.uint8)
    cut = superpixels(pixels)
    np.testing.assert_array_equal(superpixels(pixels / np.float32(255)), cut)
    np.testing.assert_array_equal(superpixels(pixels), cut)
    grey = superpixels(pixels[..., :1], kernel_size=2, max_dist=10)
    assert not set(grey[0, :, :12].ravel()) & set(grey[0, :, 12:].ravel())


def test_a_grid():
    cut = superpixels(np.zeros((1, 4, 6, 1)), "grid", cells=2)[0]
    np.testing.assert_array_equal(
        cut, [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    )
    with pytest.raises(InputError, match="a grid of 8 cells along sides of 4 and 6"):
        superpixels(np.zeros((1, 4, 6, 1)), "grid")


def test_colours_of_segments():
    image = np.array([[[0.0, 0.2], [1.0, 0.4]]], np.float32)[..., None]  # [1, 2, 2, 1]
    asked = ask(lambda images: images.sum(axis=(1, 2)), image, 0, None)
    given = np.array([[0, 70], [2, 70]])
    cut, count = segmented(asked, image, given, None, "segment")
    assert count == 71 and cut.used.shape == (1, 2 * BLOCK)
    assert set(np.flatnonzero(cut.used[0])) == {0, 2, 70}
    np.testing.assert_allclose(cut.mean[0, [0, 2, 70], 0], [0, 1, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(cut.hidden, cut.mean)
    cut, _ = segmented(asked, image, given, None, 0.7)
    np.testing.assert_allclose(cut.hidden[0, [0, 2, 70], 0], 3 * [0.7])


@pytest.mark.parametrize("method", [lime, kernel_shap])
def test_another_number_of_segments_does_not_recompile(method):
    events = []
    listener = lambda event, duration, **_: events.append(event)
    options = dict(key=jax.random.key(0), samples=20, value=0)
    model = classifier_of(LINEAR)
    method(model, IMAGE, 0, segments=segments_of(16), **options)
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        method(model, IMAGE, 0, segments=segments_of(12), **options)
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert not [event for event in events if "compile" in event]


def test_errors():
    image = np.zeros((1, 4, 4, 1), np.float32)
    asked = ask(lambda images: images.sum(axis=(1, 2)), image, 0, None)
    with pytest.raises(InputError, match=r"segments of shape \(3, 3\) for images of"):
        segmented(asked, image, np.zeros((3, 3), int), None, None)
    with pytest.raises(InputError, match="segment -1: expected numbers from 0"):
        segmented(asked, image, np.full((4, 4), -1), None, None)
    with pytest.raises(InputError, match="segment 7, but max_segments is 7"):
        segmented(asked, image, np.full((4, 4), 7), 7, None)
    with pytest.raises(InputError, match=r"images of shape \(4, 4, 1\)"):
        superpixels(image[0])
    with pytest.raises(InputError, match="inside jax.jit: make them outside"):
        jax.jit(lambda x: jnp.asarray(superpixels(x)))(image)
    inside = jax.jit(
        lambda segments: segmented(asked, image, segments, None, None)[0].used
    )
    with pytest.raises(InputError, match="pass max_segments="):
        inside(np.zeros((4, 4), int))
