"""Meaningful perturbation: its terms and first steps by hand, and a patch to find."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.layers import Unit
from saliency_jax.attribution.optimised_masks import meaningful
from saliency_jax.attribution.optimised_masks.blending import median_blur, shifted
from saliency_jax.attribution.optimised_masks.coarse_masks import (
    circle,
    total_variation,
    upsampling,
)
from saliency_jax.attribution.optimised_masks.meaningful import (
    VARIANTS,
    meaningful_perturbation,
)
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.removal import gaussian_blur
from tests.attribution.optimised_masks.planted import (
    PATCHES,
    SIZE,
    classifier_of,
    planted_images,
)
from tests.attribution.small_network import classifier, images

KEY = jax.random.key(0)
PLAIN = {"mask_blur": 0.0, "jitter": 0, "start": "ones"}


@pytest.mark.parametrize("variant", ["author", "localisation", "jacobgil"])
def test_the_patch_is_found(variant):
    targets = np.array([0, 1])
    maps, aux = meaningful_perturbation(
        classifier_of(PATCHES),
        planted_images(2),
        targets,
        key=KEY,
        variant=variant,
        steps=60,
        area_weight=2e-3 if variant != "jacobgil" else None,
        return_aux=True,
    )
    for one, target in zip(np.asarray(maps), targets, strict=True):
        inside = PATCHES[target] > 0
        assert one[inside].mean() > 2 * one[~inside].mean()
        assert np.unravel_index(one.argmax(), one.shape) in np.argwhere(inside)
    assert aux["losses"].shape == aux["scores"].shape == (2, 60)
    # only a noisy image, or a random mask, is not all of the class at first
    assert (np.asarray(aux["scores"])[:, -5:].mean(axis=1) < 0.5).all()


def test_the_first_steps_are_adams_by_hand():
    """Of a linear score, on 2x2 cells: all gradients are known."""
    random = np.random.default_rng(3)
    image = random.random((1, 16, 16, 1), np.float32)
    weights = random.normal(size=(16, 16)).astype(np.float32)
    reference = np.asarray(gaussian_blur(jnp.asarray(image), 10 * 16 / 224, 4.0))
    products = weights * (image - reference)[0, :, :, 0]
    slopes = products.reshape(2, 8, 2, 8).sum((1, 3))
    mask, first, second = np.ones((2, 2)), np.zeros((2, 2)), np.zeros((2, 2))
    losses = []
    for t in range(1, 5):
        down, across = mask[1] - mask[0], mask[:, 1] - mask[:, 0]
        rest = (weights * reference[0, :, :, 0]).sum()
        loss = (slopes * mask).sum() + rest + 0.5 * np.abs(1 - mask).sum()
        losses.append(loss + 2 * ((down**2).sum() + (across**2).sum()))
        gradient = slopes - 0.5 * (mask < 1)
        gradient += 4 * (np.stack([-down, down]) + np.stack([-across, across], axis=1))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        step = first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        mask = np.clip(mask - 0.1 * step, 0, 1)
    maps, aux = meaningful_perturbation(
        lambda images: jnp.einsum("bhwc,hw->b", images, weights)[:, None],
        image,
        lambda logits: logits[0],
        steps=4,
        mask_size=2,
        area_weight=0.5,
        smoothness_weight=2.0,
        smoothness_power=2.0,
        return_aux=True,
        **PLAIN,
    )
    np.testing.assert_allclose(maps[0, ::8, ::8], 1 - mask, atol=1e-5)
    np.testing.assert_allclose(aux["losses"][0], losses, atol=1e-4)
    assert np.ptp(mask) > 0.1


def test_total_variation_by_hand():
    masks = jnp.asarray([[[0.0, 0.3], [0.4, 1.0]]])
    sums = total_variation(masks, 2.0, False)
    np.testing.assert_allclose(sums, [0.16 + 0.09 + 0.49 + 0.36], rtol=1e-5)
    # the first cell has both differences, and the square root is of their squares' sum
    cubes = total_variation(masks, 3.0, False)
    np.testing.assert_allclose(cubes, [0.25**1.5 + 0.343 + 0.216], rtol=1e-5)
    means = total_variation(masks, 3.0, True)
    expected = (0.064 + 0.343) / 2 + (0.027 + 0.216) / 2
    np.testing.assert_allclose(means, [expected], rtol=1e-5)
    slope = jax.grad(lambda m: total_variation(m, 1.0, False).sum())
    assert np.isfinite(slope(jnp.ones((1, 3, 3)))).all()


def test_the_ports_area_is_a_mean_and_the_authors_a_sum():
    """After one step from ones all 16 cells are at 0.9: what |1 - m| costs."""
    image = np.full((1, 4, 4, 1), 0.5, np.float32)
    rises = lambda images: 1000 * jnp.mean(images, axis=(1, 2))
    for variant, total in (("author", 16 * 0.1), ("jacobgil", 0.1)):
        _, aux = meaningful_perturbation(
            lambda images: 0 * rises(images) + 1.0,
            image,
            lambda logits: logits[0],
            variant=variant,
            steps=2,
            area_weight=-1.0,
            return_aux=True,
            **{**PLAIN, "noise": 0.0, "start": "random", "smoothness_weight": 0.0},
        )
        draws = 1.0 - np.asarray(aux["losses"])[0]
        # area_weight -1 pushes every cell away from 1, by 0.1 in a step
        np.testing.assert_allclose(draws[1] - draws[0], total, atol=0.35 * total)


def test_cells_to_pixels():
    nearest = upsampling(6, 3, 0.0, "nearest")
    np.testing.assert_array_equal(nearest @ np.arange(3), [0, 0, 1, 1, 2, 2])
    aligned = upsampling(5, 3, 0.0, "aligned")
    np.testing.assert_allclose(aligned @ np.arange(3), [0, 0.5, 1, 1.5, 2])
    for method in ("nearest", "aligned"):
        rows = upsampling(224, 28, 5.0, method).sum(axis=1)
        np.testing.assert_allclose(rows, 1, atol=1e-6)


def test_the_median_is_numpys():
    values = np.random.default_rng(0).random((2, 7, 9, 3), np.float32)
    padded = np.pad(values, ((0, 0), (2, 2), (2, 2), (0, 0)), "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2))
    expected = np.median(windows, axis=(-2, -1))
    np.testing.assert_allclose(median_blur(jnp.asarray(values), 2), expected)


def test_shifts_mirror_and_are_centred():
    line = jnp.arange(6.0).reshape(1, 1, 6, 1)
    rows = jnp.broadcast_to(line, (1, 6, 6, 1))
    of = lambda by: np.asarray(shifted(rows, jnp.asarray([0, by]), 4))[0, 0, :, 0]
    np.testing.assert_array_equal(of(0), [1, 0, 0, 1, 2, 3])
    np.testing.assert_array_equal(of(2), [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(of(3), [1, 2, 3, 4, 5, 5])


def test_circles_remove_the_middle():
    none, some, all_of_it = np.asarray(circle(jnp.asarray([0.0, 60, 170]), (224, 224)))
    assert none.min() > 0.99 and all_of_it.max() < 0.01
    assert some[112, 112] < 0.01 and some[112, 172] == pytest.approx(0.5, abs=0.05)
    assert some[0, 0] > 0.99
    np.testing.assert_allclose(some[1:], some[1:][::-1], atol=1e-6)


AT_ITS_START = {
    "start": "circle",
    "steps": 1,
    "learning_rate": 0.0,
    "mask_blur": 0.0,
    "jitter": 0,
}


def test_the_start_is_the_smallest_circle_that_is_enough():
    """A classifier that looks at the middle: the circle of radius r must cover it."""
    patch = np.zeros((1, SIZE, SIZE), np.float32)
    patch[0, 12:20, 12:20] = 1
    image = np.random.default_rng(0).uniform(0, 0.1, (1, SIZE, SIZE, 3))
    image = np.maximum(image, patch[..., None]).astype(np.float32)
    maps, aux = meaningful_perturbation(
        classifier_of(patch),
        image,
        0,
        **AT_ITS_START,
        return_aux=True,
    )
    removed = np.asarray(maps[0])
    assert removed[12:20, 12:20].min() > 0.4 and removed[15, 15] > 0.95
    assert removed[0, 0] < 0.05 and removed.mean() < 0.5
    blurred = gaussian_blur(jnp.asarray(image), 10 * SIZE / 224, 4.0)
    both = classifier_of(patch)(np.stack([image[0], blurred[0]]))
    before, least = jax.nn.softmax(both)[:, 0]
    assert aux["scores"][0, 0] - least < 0.1 * (before - least)


@pytest.mark.parametrize("last", [SIZE, 2 * SIZE])
def test_the_circle_removes_what_is_at_the_end_of_a_long_image(last):
    """Which no circle about the middle covers: then all of it is removed."""
    patch = np.zeros((1, SIZE, 2 * SIZE), np.float32)
    patch[0, :, last - SIZE // 8 : last] = 1
    image = np.repeat(patch[..., None], 3, -1)
    _, aux = meaningful_perturbation(
        classifier_of(patch),
        image,
        0,
        **AT_ITS_START,
        return_aux=True,
    )
    blurred = gaussian_blur(jnp.asarray(image), 10 * SIZE / 224, 4.0)
    before, least = jax.nn.softmax(
        classifier_of(patch)(np.stack([image[0], blurred[0]]))
    )[:, 0]
    assert aux["scores"][0, 0] - least < 0.1 * (before - least)


def test_localisation_explains_the_five_most_probable_classes():
    model, batch = classifier(), images(2)
    of = lambda targets, **options: np.asarray(
        meaningful_perturbation(
            model, batch, targets, steps=1, start="ones", return_aux=True, **options
        )[1]["scores"]
    )
    # of five classes these are all
    np.testing.assert_allclose(of(None, variant="localisation"), 1.0, atol=1e-6)
    best = np.asarray(jax.nn.softmax(model(batch))).max(axis=1, keepdims=True)
    np.testing.assert_allclose(of(None), best, atol=1e-2)


def test_other_targets_are_minimised_as_they_are():
    model, batch = classifier(), images(2)
    first = lambda target: np.asarray(
        meaningful_perturbation(
            model, batch, target, steps=1, return_aux=True, **PLAIN
        )[1]["scores"][:, 0]
    )
    logits = np.asarray(model(batch))
    difference = lambda logits: logits[1] - logits[0]
    np.testing.assert_allclose(
        first(difference), logits[:, 1] - logits[:, 0], rtol=1e-4
    )
    hidden = np.asarray(model.features(batch)[1][0])
    unit = Unit(3, (1, 2), "tap_0")
    np.testing.assert_allclose(first(unit), hidden[:, 1, 2, 3], atol=1e-4)


def test_the_constants_are_published():
    author, boxes, port = VARIANTS.values()
    assert (author.steps, author.learning_rate, author.mask_size) == (300, 0.1, 28)
    assert (author.area_weight, author.smoothness_weight) == (1e-4, 1e-2)
    assert (author.smoothness_power, author.jitter, author.mask_blur) == (3, 4, 5)
    assert (boxes.area_weight, boxes.smoothness_power, boxes.top) == (1e-3, 2, 5)
    assert boxes.start == "circle" and boxes.reference_length == 10
    assert (port.steps, port.area_weight, port.smoothness_weight) == (500, 0.01, 0.2)
    assert (port.jitter, port.noise, port.reference_length) == (0, 0.2, 11)


def test_noise_is_for_normalised_images():
    spread = lambda images: jnp.stack([images[..., 0].std(), images[..., 1].std()])[
        None
    ]
    flat = np.full((1, 32, 32, 3), 0.5, np.float32)
    model = Classifier.from_function(spread, mean=(0.5,) * 3, std=(0.1, 0.5, 1.0))
    of = lambda which: meaningful_perturbation(
        model,
        flat,
        lambda logits: logits[which],
        variant="jacobgil",
        steps=1,
        return_aux=True,
    )[1]["scores"]
    for which in (0, 1):
        np.testing.assert_allclose(of(which), 0.2, rtol=0.1)


def test_what_cannot_be_is_said():
    model, batch = classifier(), images(1)
    for variant, start, words in (
        ("paper", "ones", "variant='paper' is unknown: use one of"),
        ("author", "zeros", "start='zeros' is unknown: use one of"),
    ):  # which the types of the tests would refuse already
        with pytest.raises(InputError, match=words):
            meaningful._checked(variant, {"start": start})
    for options, words in (
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"jitter": -1}, "jitter is -1: it must be at least 0"),
    ):
        with pytest.raises(InputError, match=words):
            meaningful_perturbation(model, batch, **options)
