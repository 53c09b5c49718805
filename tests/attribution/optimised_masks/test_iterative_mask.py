"""Masks without a masker: on a classifier that looks at one patch and nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.optimised_masks import iterative_mask
from saliency_jax.attribution.optimised_masks.iterative_mask import (
    IterativeOptions,
    iterative_masks,
)
from saliency_jax.errors import InputError
from saliency_jax.masking import masked_in
from saliency_jax.objectives.black_box import black_box_loss
from saliency_jax.removal import RemovalOptions
from tests.attribution.optimised_masks.planted import (
    PATCHES,
    SIZE,
    classifier_of,
    logits_of,
    planted_images,
)

ZERO = RemovalOptions(removal="zero")
FEW = IterativeOptions(iterations=5, mask_size=8)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def images():
    return planted_images(3)


@pytest.mark.parametrize("removal", [RemovalOptions(), ZERO])
def test_a_mask_shows_the_patch_of_its_class(images, removal):
    targets = np.array([0, 1, 1])
    options = IterativeOptions(removal=removal)
    classifier = classifier_of(PATCHES)
    masks = np.asarray(
        iterative_masks(classifier, images, targets, key=KEY, options=options)
    )
    assert masks.shape == (3, SIZE, SIZE) and masks.dtype == np.float32
    assert masks.min() >= 0 and masks.max() <= 1
    for mask, target in zip(masks, targets, strict=True):
        inside = PATCHES[target] > 0
        shown = mask > 0.5 * mask.max()
        assert mask[inside].mean() > 0.45
        assert mask[~inside].mean() < 0.1
        assert (shown & inside).sum() / (shown | inside).sum() > 0.7


def test_the_descent_is_nesterovs_from_one_half(images):
    """Three iterations by hand, without draws."""
    options = IterativeOptions(removal=ZERO, iterations=3)
    classifier, targets = classifier_of(PATCHES), jnp.array([1])
    image = jnp.asarray(images[:1])

    def loss(a, b):
        masks = jnp.abs(a) / (jnp.abs(a) + jnp.abs(b) + 0.001)
        kept, removed = (
            classifier(masked_in(image, shown, 0.5 * jnp.ones((1, 1, 1, 3))))
            for shown in (masks, 1 - masks)
        )
        real = jnp.array([True])
        constants = options.objective
        return black_box_loss(masks, kept, removed, targets, real, constants)[0][0]

    channels = [np.full((1, SIZE, SIZE), 0.5, np.float32)] * 2
    velocity = [0.0, 0.0]
    for _ in range(3):
        gradients = jax.grad(loss, argnums=(0, 1))(*map(jnp.asarray, channels))
        for which, gradient in enumerate(map(np.asarray, gradients)):
            velocity[which] = 0.9 * velocity[which] + gradient
            step = gradient + 0.9 * velocity[which]
            channels[which] = channels[which] - 0.1 * step
    a, b = map(np.abs, channels)
    masks = iterative_masks(classifier, image, targets, key=KEY, options=options)
    np.testing.assert_allclose(masks, a / (a + b + 0.001), atol=1e-5)
    assert np.abs(np.asarray(masks) - 0.5).max() > 0.01


def test_the_constants_are_the_codes():
    options = IterativeOptions()
    assert options.objective.variant == "author"
    assert options.objective.area_weight == 11
    assert options.objective.smoothness_weight == 0.5
    assert options.objective.preserver_weight == 0.2
    assert options.objective.destroyer_weight == 1
    assert options.objective.area_power == 0.3
    assert (options.iterations, options.mask_size) == (200, 32)
    assert (options.learning_rate, options.momentum) == (0.1, 0.9)


def test_masks_do_not_depend_on_the_size_of_the_batches(images):
    classifier, targets = classifier_of(PATCHES), np.array([0, 1, 2])
    masks = [
        iterative_masks(
            classifier, images, targets, key=KEY, options=FEW, batch_size=size
        )
        for size in (None, 2, 7)
    ]
    for others in masks[1:]:
        np.testing.assert_allclose(others, masks[0], atol=1e-5)
    # nor on the others
    last = iterative_masks(classifier, images[2:], 2, key=KEY, options=FEW)
    np.testing.assert_allclose(last[0], masks[0][2], atol=1e-5)


def test_a_part_of_the_images_has_the_masks_that_it_has_among_all(images):
    classifier, targets = classifier_of(PATCHES), np.array([0, 1, 2])
    of = lambda images, targets, **places: np.asarray(
        iterative_masks(classifier, images, targets, key=KEY, options=FEW, **places)
    )
    masks = of(images, targets, places=np.arange(3))
    part = {"images": images[1:], "targets": targets[1:]}
    for batch_size in (None, 1):
        there = of(**part, places=np.array([1, 2]), batch_size=batch_size)
        np.testing.assert_allclose(there, masks[1:], atol=1e-5)
    assert np.abs(of(**part) - masks[1:]).max() > 1e-3


def test_the_draws_depend_on_the_key_and_the_place(images):
    twice = np.stack([images[0], images[0]])
    classifier = classifier_of(PATCHES)
    of = lambda key, **places: np.asarray(
        iterative_masks(classifier, twice, 0, key=key, options=FEW, **places)
    )
    masks = of(KEY)
    np.testing.assert_array_equal(masks[0], masks[1])
    own = of(KEY, places=np.array([0, 1]))
    assert np.abs(own[0] - own[1]).max() > 1e-3
    np.testing.assert_allclose(own[0], masks[0], atol=1e-5)
    np.testing.assert_array_equal(of(jax.random.key(0)), masks)
    assert np.abs(of(jax.random.key(1)) - masks).max() > 1e-3


def test_without_targets_the_predicted_class_is_explained(images):
    classifier = classifier_of(PATCHES)
    darker = images.copy()
    darker[0] -= 0.1 * PATCHES[0][..., None]
    darker[1] -= 0.1 * PATCHES[1][..., None]
    darker[2] *= 0.1
    predicted = np.asarray(classifier(darker)).argmax(-1)
    np.testing.assert_array_equal(predicted, [1, 0, 2])
    arguments = {"key": KEY, "options": FEW}
    np.testing.assert_allclose(
        iterative_masks(classifier, darker, **arguments),
        iterative_masks(classifier, darker, predicted, **arguments),
        atol=1e-6,
    )
    np.testing.assert_array_equal(
        iterative_masks(classifier, darker, 1, **arguments),
        iterative_masks(classifier, darker, np.array([1, 1, 1]), **arguments),
    )


def test_a_function_and_bytes_do_as_well(images):
    as_bytes = np.rint(255 * images).astype(np.uint8)
    masks = iterative_masks(
        lambda images: logits_of(PATCHES, images), as_bytes, 0, key=KEY, options=FEW
    )
    classifier = classifier_of(PATCHES)
    floats = as_bytes.astype(np.float32) / 255
    expected = iterative_masks(classifier, floats, 0, key=KEY, options=FEW)
    np.testing.assert_allclose(masks, expected, atol=1e-5)


def test_new_weights_do_not_recompile(images):
    of = lambda patches: np.asarray(
        iterative_masks(classifier_of(patches), images, 0, key=KEY, options=FEW)
    )
    masks = of(PATCHES)
    before = iterative_mask._step._cache_size()
    others = of(PATCHES[::-1].copy())
    assert iterative_mask._step._cache_size() == before
    assert np.abs(masks - others).max() > 0.01


def test_inside_the_users_own_jit(images):
    classifier = classifier_of(PATCHES)
    function = jax.jit(
        lambda classifier, images, targets: iterative_masks(
            classifier, images, targets, key=KEY, options=FEW, batch_size=2
        )
    )
    np.testing.assert_allclose(
        function(classifier, images, jnp.array([0, 1, 2])),
        iterative_masks(classifier, images, np.array([0, 1, 2]), key=KEY, options=FEW),
        atol=1e-5,
    )


def test_images_smaller_than_the_grid_have_a_cell_for_each_pixel():
    images = np.random.default_rng(0).random((2, 6, 40, 3), np.float32)
    flat = lambda images: images.mean((1, 2))
    options = dataclasses.replace(FEW, mask_size=16)
    masks = iterative_masks(flat, images, 0, key=KEY, options=options)
    assert masks.shape == (2, 6, 40)
    exact = dataclasses.replace(options, mask_size=6)
    rows = [iterative_masks(flat, images[:, :, :6], 0, key=KEY, options=exact)]
    rows.append(iterative_masks(flat, images[:, :, :6], 0, key=KEY, options=options))
    np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize("shape", [(32, 32, 3), (2, 32, 32, 1), (0, 32, 32, 3)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"shape \(.*expected \[B, H, W, 3\]"):
        iterative_masks(classifier_of(PATCHES), jnp.zeros(shape), key=KEY)


def test_what_cannot_be_is_said(images):
    classifier = classifier_of(PATCHES)
    with pytest.raises(InputError, match=r"targets of shape \(2,\) for 3 images"):
        iterative_masks(classifier, images, np.array([0, 1]), key=KEY)
    with pytest.raises(InputError, match=r"places of shape \(2,\) for 3 images"):
        iterative_masks(classifier, images, 0, key=KEY, places=np.array([0, 1]))
    for target in (3, -1):
        with pytest.raises(InputError, match=f"target {target}: .* classes 0 to 2"):
            iterative_masks(classifier, images, target, key=KEY)
    with pytest.raises(InputError, match="pass a class, or one for each image"):
        iterative_masks(classifier, images, jnp.sum, key=KEY)
    with pytest.raises(InputError, match="batch_size is 0"):
        iterative_masks(classifier, images, key=KEY, batch_size=0)
    with pytest.raises(InputError, match="have no known range"):
        iterative_masks(classifier, images.astype(np.int32), key=KEY)
    for name in ("iterations", "mask_size"):
        with pytest.raises(InputError, match=f"{name} is 0"):
            IterativeOptions(**{name: 0})
