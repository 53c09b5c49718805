"""Extremal perturbations: the area, the smooth maximum, the pyramid and the ascent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.layers import Unit
from saliency_jax.attribution.optimised_masks import fixed_area
from saliency_jax.attribution.optimised_masks.blending import blurred_by
from saliency_jax.attribution.optimised_masks.coarse_masks import smooth_maximum
from saliency_jax.attribution.optimised_masks.fixed_area import (
    area_penalty,
    extremal_perturbation,
)
from saliency_jax.errors import InputError
from saliency_jax.removal import gaussian_blur
from tests.attribution.optimised_masks.planted import (
    PATCHES,
    classifier_of,
    planted_images,
)
from tests.attribution.small_network import classifier, images

STEPS = 200
QUICK = {"steps": STEPS, "area_weight": 100.0, "area_growth": 1.02, "mirror": False}
SIGNS = np.random.default_rng(7).choice([-1.0, 1.0], (32, 32)).astype(np.float32)


def textured(images):
    """Of two classes: how much of its texture is in its patch, which blur destroys."""
    weights = SIGNS * PATCHES / PATCHES.sum(axis=(1, 2), keepdims=True)
    return 200 * jnp.einsum("bhwc,khw->bk", images, weights) / 3


def textures(count):
    image = 0.5 + 0.5 * SIGNS * PATCHES.sum(axis=0)
    return np.broadcast_to(image[None, ..., None], (count, 32, 32, 3))


# The texture goes with the first blur, the bright patch with the last alone: so the
# preserving mask begins at the one, and the deleting mask at the other.
BRIGHT = (classifier_of(PATCHES), planted_images(2))
FAST = {"area_weight": 30.0, "area_growth": 1.03, "learning_rate": 0.05}


@pytest.mark.parametrize(
    "variant, function, batch, options",
    [
        ("preserve", textured, textures(2), {}),
        ("dual", textured, textures(2), {}),
        ("delete", *BRIGHT, FAST),
        ("dual", *BRIGHT, FAST),
    ],
)
def test_the_patch_is_found_with_the_area_asked_for(variant, function, batch, options):
    targets = np.array([0, 1])
    maps, aux = extremal_perturbation(
        function,
        batch,
        targets,
        variant=variant,
        areas=0.15,
        return_aux=True,
        **{**QUICK, **options},
    )
    maps = np.asarray(maps)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), 0.15, atol=0.05)
    for one, target in zip(maps, targets, strict=True):
        inside = PATCHES[target] > 0
        assert one[inside].mean() > 0.6 and one[~inside].mean() < 0.15
    assert aux["masks"].shape == (2, 1, 32, 32)
    assert aux["rewards"].shape == aux["penalties"].shape == (2, 1, STEPS)


def test_masks_of_several_areas_are_summed_and_each_its_own():
    areas, quick = (0.05, 0.2), {**QUICK, "steps": 20}
    call = lambda areas, **options: extremal_perturbation(
        textured,
        textures(2),
        np.array([0, 1]),
        areas=areas,
        return_aux=True,
        **quick,
        **options,
    )
    maps, aux = call(np.array(areas))
    np.testing.assert_allclose(maps, aux["masks"].sum(axis=1), atol=1e-6)
    for which, area in enumerate(areas):
        alone, _ = call(area)
        np.testing.assert_allclose(aux["masks"][:, which], alone, atol=1e-3)
    assert np.abs(aux["masks"][:, 0] - aux["masks"][:, 1]).max() > 0.01
    smooth, _ = call(areas, smooth=0.1, batch_size=1)
    expected = gaussian_blur(maps[..., None], 3.2, 4.0)[..., 0]
    np.testing.assert_allclose(smooth, expected, atol=1e-4)


def test_the_penalty_is_that_of_sorted_masks():
    random = np.random.default_rng(0)
    masks = random.random((3, 5, 4)).astype(np.float32)
    masks[1] = np.round(masks[1] * 3) / 3  # many are equal
    masks[2] = 0.5
    for hidden in (0, 1, 13, 19):
        reference = (np.arange(20) >= hidden).astype(float)
        expected = ((np.sort(masks.reshape(3, -1)) - reference) ** 2).mean(axis=1)
        got = area_penalty(jnp.asarray(masks), jnp.full(3, hidden))
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    slope = jax.grad(lambda m: area_penalty(m, jnp.full(3, 13)).sum())
    slopes = np.asarray(slope(jnp.asarray(masks)))
    order = np.argsort(masks[0].ravel())
    wanted = np.empty(20)
    wanted[order] = np.arange(20) >= 13
    np.testing.assert_allclose(
        slopes[0].ravel(), 2 / 20 * (masks[0].ravel() - wanted), atol=1e-6
    )
    # equal pixels are pulled alike, towards 7 ones in 20
    np.testing.assert_allclose(slopes[2], 2 / 20 * (0.5 - 7 / 20), atol=1e-6)


def test_the_smooth_maximum_of_one_cell_is_its_kernel():
    """A kernel of 1 up to half of sigma, then `exp(-2 (d/sigma - 0.5)^2)`."""
    cells = jnp.zeros((1, 5, 5)).at[0, 2, 2].set(1.0)
    mask = smooth_maximum(cells, (15, 15), 0, 3, 6.0, 80.0)[0]
    assert mask.shape == (15, 15)
    for y, x, distance in ((7, 7, 0), (7, 10, 3), (7, 13, 6), (10, 11, 5)):
        expected = np.exp(-2 * max(distance / 6 - 0.5, 0) ** 2)
        np.testing.assert_allclose(mask[y, x], expected, atol=1e-4)
    np.testing.assert_allclose(mask, mask[::-1], atol=1e-6)
    np.testing.assert_allclose(mask, mask[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(mask, mask.T, atol=1e-6)


def test_the_smooth_maximum_is_the_softmax_pooling_of_all_products():
    """By NumPy, pixel by pixel; also with a margin, and cut where cells stick out."""
    random = np.random.default_rng(1)
    cells = random.random((2, 4, 3)).astype(np.float32)
    side, sigma, cold, margin = 3, 4.0, 20.0, 2
    got = np.asarray(
        smooth_maximum(jnp.asarray(cells), (11, 8), margin, side, sigma, cold)
    )
    assert got.shape == (2, 15, 12)
    reach = 1 + int(np.ceil(sigma / side))
    for y in range(-margin, 11 + margin):
        for x in range(-margin, 8 + margin):
            products = []
            for row in range(y // side - reach, y // side + reach + 1):
                for column in range(x // side - reach, x // side + reach + 1):
                    there = 0 <= row < 4 and 0 <= column < 3
                    values = cells[:, row, column] if there else np.zeros(2)
                    distance = np.hypot(y - 3 * row - 1, x - 3 * column - 1)
                    kernel = np.exp(-2 * max(distance / sigma - 0.5, 0) ** 2)
                    products.append(kernel * values)
            products = np.stack(products)
            weights = np.exp(cold * products)
            expected = (weights * products).sum(0) / weights.sum(0)
            np.testing.assert_allclose(
                got[:, y + margin, x + margin], expected, atol=1e-5
            )


def test_the_pyramid_is_interpolated_by_the_mask():
    levels = jnp.asarray([10.0, 20.0, 40.0, 80.0]).reshape(1, 4, 1, 1, 1)
    pyramid = jnp.broadcast_to(levels, (1, 4, 1, 5, 1))
    masks = jnp.asarray([0.0, 1 / 3, 0.5, 5 / 6, 1.0]).reshape(1, 1, 5)
    got = blurred_by(pyramid, masks)[0, 0, :, 0]
    np.testing.assert_allclose(got, [10, 20, 30, 60, 80], rtol=1e-5)
    slopes = jax.grad(lambda m: blurred_by(pyramid, m).sum())(masks)
    np.testing.assert_allclose(slopes[0, 0, [2, 3, 4]], [60, 120, 120], rtol=1e-5)


def test_the_ascent_is_pytorchs_with_dampening():
    """By hand: lr 0.01, momentum and dampening 0.9, the first step whole; clipped."""
    model, batch, weight = classifier(), jnp.asarray(images(1)), 300.0

    def energy(cells, step):
        mask = smooth_maximum(cells, (16, 16), 0, 1, 1.5, 20.0)
        sigmas = np.linspace(20, 0, 8) * 16 / 224
        pyramid = jnp.stack([gaussian_blur(batch, float(s), 4.0) for s in sigmas], 1)
        edited = blurred_by(pyramid, mask)
        if step % 2 == 0:
            edited = edited[:, :, ::-1]
        wanted = (jnp.arange(256) >= int(256 * 0.9)).astype(jnp.float32)
        penalty = jnp.mean((jnp.sort(mask.ravel()) - wanted) ** 2)
        return model(edited)[0, 2] - weight * 1.0035**step * penalty

    cells = np.ones((1, 16, 16), np.float32)
    options = {"steps": 1, "margin": 0.0, "return_aux": True}
    _, aux = extremal_perturbation(model, batch, 2, **options)
    got = aux["rewards"] - aux["penalties"]
    np.testing.assert_allclose(got[0, 0, 0], energy(jnp.asarray(cells), 0), rtol=1e-4)

    cells = np.random.default_rng(0).random((1, 16, 16)).astype(np.float32)
    _, start = fixed_area._begin(batch, CONSTANTS)
    pyramid, _ = fixed_area._begin(batch, CONSTANTS)
    ascent = start._replace(cells=jnp.asarray(cells))
    velocity = 0.0
    for step in range(3):
        gradient = np.asarray(jax.grad(energy)(jnp.asarray(cells), step))
        velocity = gradient if step == 0 else 0.9 * velocity + 0.1 * gradient
        cells = np.clip(cells + 0.01 * velocity, 0, 1)
        ascent = fixed_area._step(
            ascent,
            jnp.asarray(step),
            model,
            pyramid,
            jnp.asarray([2]),
            jnp.asarray([int(256 * 0.9)]),
            constants=CONSTANTS,
        )
    np.testing.assert_allclose(ascent.cells, cells, atol=1e-4)


CONSTANTS = fixed_area.Constants(
    variant="preserve",
    steps=3,
    learning_rate=0.01,
    area_weight=300.0,
    area_growth=1.0035,
    reward="logit",
    cell=7.0,
    sigma=21.0,
    coldness=20.0,
    levels=8,
    blur=20.0,
    margin=0.0,
    mirror=True,
)


def test_rewards_of_the_first_step():
    """All cells at 1 show almost the image; 1 - m almost its strongest blur."""
    model, batch, targets = classifier(), images(2), np.array([1, 3])
    first = lambda **options: np.asarray(
        extremal_perturbation(
            model, batch, targets, steps=1, return_aux=True, mirror=False, **options
        )[1]["rewards"][:, 0, 0]
    )
    preserved, deleted = first(), first(variant="delete")
    np.testing.assert_allclose(first(variant="dual"), preserved + deleted, atol=1e-4)
    logits = np.asarray(model(batch))
    chosen = logits[np.arange(2), targets]
    np.testing.assert_allclose(preserved, chosen, atol=0.05)
    blurred = gaussian_blur(jnp.asarray(batch), 20 * 16 / 224, 4.0)
    np.testing.assert_allclose(
        -deleted, np.asarray(model(blurred))[np.arange(2), targets], atol=0.05
    )
    others = logits.copy()
    others[np.arange(2), targets] = -np.inf
    contrast = first(reward="contrastive")
    np.testing.assert_allclose(contrast, chosen - others.max(axis=1), atol=0.1)


def test_other_targets_are_maximised_as_they_are():
    model, batch = classifier(), images(2)
    first = lambda target: np.asarray(
        extremal_perturbation(
            model, batch, target, steps=1, return_aux=True, mirror=False, coldness=80.0
        )[1]["rewards"][:, 0, 0]
    )
    logits, (hidden,) = map(np.asarray, model.features(batch))
    np.testing.assert_allclose(
        first(lambda logits: logits[1] - logits[0]),
        logits[:, 1] - logits[:, 0],
        atol=0.02,
    )
    np.testing.assert_allclose(
        first(Unit(3, None, "tap_0")), hidden[..., 3].mean((1, 2)), atol=0.02
    )


def test_with_a_margin_the_border_is_not_cheaper_than_the_middle():
    """Where all of the image counts alike a mask keeps off the border."""
    alike = lambda images: 20 * jnp.mean(images, axis=(1, 2))[:, :1]
    random = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    at_border = lambda **options: np.asarray(
        extremal_perturbation(alike, random, 0, areas=0.15, **QUICK, **options)
    )[0][BORDER].mean()
    assert at_border(margin=0.0) > 2 * at_border()


BORDER = np.pad(np.zeros((28, 28), bool), 2, constant_values=True)


def test_what_cannot_be_is_said():
    model, batch = classifier(), images(1)
    for options, words in (
        ({"areas": 0.0}, r"areas=\(0.0,\): expected shares"),
        ({"areas": (0.1, 1.5)}, r"areas=\(0.1, 1.5\): expected shares"),
        ({"areas": ()}, r"areas=\(\): expected shares"),
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"levels": 1}, "levels is 1: it must be at least 2"),
        ({"sigma": 0.0}, "sigma is 0.0: it must be above 0"),
        ({"coldness": 100.0}, "coldness is 100.0: it must be at most 80"),
        ({"targets": jnp.sum, "reward": "contrastive"}, "pass a class, or one for"),
    ):
        with pytest.raises(InputError, match=words):
            extremal_perturbation(model, batch, **options)
    for name in ("variant", "reward"):
        with pytest.raises(InputError, match=f"{name}='both' is unknown: use one of"):
            fixed_area._check(CONSTANTS._replace(**{name: "both"}), (0.1,), 0.0)
