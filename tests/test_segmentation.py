"""Objects by graph cut: the least cut, the seeds, the colour mixtures, bad input."""

import inspect
import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from saliency_jax import segmentation
from saliency_jax.colour_models import colour_evidence
from saliency_jax.errors import InputError
from saliency_jax.metrics.map_boxes import component_boxes
from saliency_jax.segmentation import (
    contrast_weights,
    find_seeds,
    graph_cut,
    minimum_cut,
)

SIZE = 64


def disc_scene(seed=0, size=SIZE):
    """A reddish disc on a striped background, and a noisy blob beside its centre."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:size, :size]
    disc = (row - 30) ** 2 + (column - 36) ** 2 < 15**2
    stripes = 100 + 50 * np.sin(column / 2 + row / 5)
    image = np.stack([0.5 * stripes, stripes, 0.9 * stripes], axis=-1)
    image[disc] = [190, 70, 60]
    image = (image + rng.normal(0, 12, image.shape)).clip(0, 255).astype(np.uint8)
    blob = np.exp(-((row - 24) ** 2 + (column - 31) ** 2) / (2 * 10**2))
    saliency = blob + rng.normal(0, 0.1, blob.shape)
    return image, saliency.astype(np.float32), disc


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def cut_one(image, saliency, **options):
    return graph_cut(image[None], saliency[None], **options)[0]


# The energy, written once more, pair by pair


def energy(labels, evidence, image, gamma):
    colours = image.astype(float)
    height, width = labels.shape
    pairs = [
        ((y, x), (y + dy, x + dx))
        for y, x in np.ndindex(height, width)
        for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1))
        if y + dy < height and 0 <= x + dx < width
    ]
    squares = [((colours[p] - colours[q]) ** 2).sum() for p, q in pairs]
    beta = 1 / (2 * np.mean(squares))
    total = -evidence[labels].sum()
    for (p, q), square in zip(pairs, squares, strict=True):
        if labels[p] != labels[q]:
            total += gamma / np.hypot(*np.subtract(p, q)) * np.exp(-beta * square)
    return total


def seeds_at(shape, *places):
    seeds = np.zeros(shape, bool)
    for place in places:
        seeds[place] = True
    return seeds


@pytest.mark.parametrize("gamma", [0.7, 3.0, 50.0])
def test_no_labelling_of_a_small_image_costs_less(gamma):
    rng = np.random.default_rng(int(gamma))
    shape = (3, 4)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    evidence = rng.normal(0, 2 + gamma, shape)
    inside, outside = seeds_at(shape, (0, 1)), seeds_at(shape, (2, 3), (2, 0))
    cut = minimum_cut(evidence, contrast_weights(image, gamma), inside, outside)
    assert cut[inside].all() and not cut[outside].any()
    least = min(
        energy(labels, evidence, image, gamma)
        for drawn in itertools.product((False, True), repeat=12)
        if (labels := np.reshape(drawn, shape))[0, 1]
        and not labels[2, 3]
        and not labels[2, 0]
    )
    # Capacities are rounded to gamma / 5000, at most 1/5000 nat: 29 pairs, 12 pixels.
    assert energy(cut, evidence, image, gamma) <= least + 41 * max(1, gamma) / 5000
    alone = evidence > 0  # what each pixel would say by itself
    assert (cut != (alone | inside) & ~outside).any()


def test_without_contrast_term_each_pixel_decides_by_itself():
    evidence = np.random.default_rng(0).normal(size=(5, 6))
    image = np.random.default_rng(1).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    none = np.zeros((5, 6), bool)
    cut = minimum_cut(evidence, contrast_weights(image, 0.0), none, none)
    np.testing.assert_array_equal(cut, evidence > 0)


def test_evidence_of_any_size_fits_the_flow():
    evidence = np.array([[1e12, -3.0, -1e12]])
    image = np.array([[[9, 9, 9], [9, 9, 9], [200, 0, 0]]], np.uint8)
    none = np.zeros((1, 3), bool)
    cut = minimum_cut(evidence, contrast_weights(image, 50.0), none, none)
    np.testing.assert_array_equal(cut, [[True, True, False]])


def test_contrast_weights_by_hand():
    image = np.array([[[0, 0, 0], [0, 0, 2]], [[0, 0, 0], [0, 0, 0]]], np.uint8)
    # Squares: right 4, 0; below 0, 4; below right 0; below left 4: beta = 1/(2 * 2).
    right, below, below_right, below_left = contrast_weights(image, 50.0)
    apart = np.exp(-1)
    np.testing.assert_allclose(right, [[50 * apart], [50]])
    np.testing.assert_allclose(below, [[50, 50 * apart]])
    np.testing.assert_allclose(below_right, [[50 / 2**0.5]])
    np.testing.assert_allclose(below_left, [[50 * apart / 2**0.5]])
    flat = contrast_weights(np.full((2, 2, 3), 7, np.uint8), 50.0)
    np.testing.assert_allclose(flat[0], 50)


# Colours


def test_evidence_of_one_gaussian_is_that_of_scipy():
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    inside = np.arange(72).reshape(8, 9) < 30
    colours = image.reshape(-1, 3).astype(float)

    def log_density(region):
        given = colours[region.ravel()]
        covariance = np.cov(given.T, bias=True) + np.eye(3) / 12
        return multivariate_normal(given.mean(axis=0), covariance).logpdf(colours)

    expected = log_density(inside) - log_density(~inside)
    got = colour_evidence(image, inside, ~inside, components=1)
    np.testing.assert_allclose(got.ravel(), expected, rtol=1e-9, atol=1e-9)


def test_gaussians_find_the_colours_of_a_region_of_two():
    """One Gaussian would put the grey between black and white into the region."""
    rng = np.random.default_rng(0)
    image = rng.normal(128, 6, (20, 20, 3))
    image[:5], image[5:10] = rng.normal(40, 6, (2, 5, 20, 3)) + [[[[0]]], [[[176]]]]
    image = image.astype(np.uint8)
    inside = np.arange(20)[:, None] + np.zeros(20, int) < 10
    assert (colour_evidence(image, inside, ~inside, components=2) > 0)[inside].all()
    grey = colour_evidence(image, inside, ~inside, components=2)[~inside]
    assert (grey < -3).all()


@pytest.mark.parametrize("colours", [1, 2, 3])
def test_fewer_colours_or_pixels_than_gaussians(colours):
    rng = np.random.default_rng(0)
    palette = np.array([[0, 0, 0], [255, 255, 255], [10, 250, 3]], np.uint8)
    image = palette[rng.integers(0, colours, (12, 12))]
    inside = np.zeros((12, 12), bool)
    inside[3, 4] = True
    outside = ~inside & (np.arange(12) < 6)
    evidence = colour_evidence(image, inside, outside)
    assert np.isfinite(evidence).all()
    if colours == 1:
        np.testing.assert_allclose(evidence, 0, atol=1e-9)
    else:
        assert (evidence[(image != image[3, 4]).any(axis=-1)] < 0).all()


# Seeds


def test_seeds_are_beyond_the_quantiles():
    saliency = np.random.default_rng(0).permutation(1000).reshape(20, 50)
    inside, outside = find_seeds(saliency, 0.3, 0.95)
    np.testing.assert_array_equal(inside, saliency >= 950)
    np.testing.assert_array_equal(outside, saliency <= 299)


@pytest.mark.parametrize(
    ("values", "inside", "outside"),
    [
        ([0] * 98 + [1, 2], [98, 99], range(98)),  # nearly all zero
        ([5] * 98 + [1, 2], range(98), [98, 99]),  # nearly all at the greatest
        ([5] * 98 + [1, 9], [99], [98]),  # nearly all in the middle
    ],
)
def test_seeds_of_a_map_of_ties(values, inside, outside):
    got = find_seeds(np.reshape(values, (10, 10)), 0.3, 0.95)
    assert [list(np.flatnonzero(one)) for one in got] == [list(inside), list(outside)]


@pytest.mark.parametrize("variant", ["seeds", "grabcut"])
def test_hard_seeds_stay_and_soft_ones_change_sides(monkeypatch, variant):
    monkeypatch.setattr(segmentation, "_largest_component", lambda binary: binary)
    image, saliency, disc = disc_scene()
    inside, outside = find_seeds(saliency, 0.3, 0.95)
    assert (outside & disc).any() and (inside & ~disc).any()  # some are wrong
    hard = cut_one(image, saliency, variant=variant)
    assert hard[inside].all() and not hard[outside].any()
    soft = cut_one(image, saliency, variant=variant, seeds="soft")
    assert soft[outside].any() and not soft[inside].all()


# Objects


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("variant", ["seeds", "grabcut"])
def test_disc_is_recovered_from_a_displaced_blob(seed, variant):
    image, saliency, disc = disc_scene(seed)
    assert iou(saliency > np.quantile(saliency, 1 - disc.mean()), disc) < 0.6
    found = cut_one(image, saliency, seeds="soft", variant=variant)
    assert iou(found, disc) > 0.9
    box = component_boxes(
        graph_cut(image[None], saliency[None], seeds="soft", variant=variant)
    )
    np.testing.assert_allclose(box, [[16, 22, 45, 51]], atol=2)


def test_contrast_term_joins_what_colours_alone_tear():
    image, saliency, disc = disc_scene()
    noise = np.random.default_rng(9).normal(0, 80, image.shape)
    image = (image + noise).clip(0, 255).astype(np.uint8)
    alone, joined, shrunk = (
        cut_one(image, saliency, seeds="soft", gamma=gamma)
        for gamma in (0.0, 5.0, 50.0)
    )
    assert iou(alone, disc) < 0.7 < 0.95 < iou(joined, disc)
    # Where colours say little, much of it leaves no object, unless seeds are hard.
    assert not shrunk.any()
    assert cut_one(image, saliency).sum() > 0.25 * disc.sum()


def test_object_is_one_component_and_images_do_not_mix():
    scenes = [disc_scene(seed) for seed in range(3)]
    images, maps = (np.stack(each) for each in list(zip(*scenes, strict=True))[:2])
    together = graph_cut(images, maps)
    for one, image, saliency in zip(together, images, maps, strict=True):
        np.testing.assert_array_equal(one, cut_one(image, saliency))
        binary = segmentation._largest_component(one)
        np.testing.assert_array_equal(binary, one)
    np.testing.assert_array_equal(together, graph_cut(images, maps))


def test_only_the_order_of_a_map_counts():
    image, saliency, _ = disc_scene()
    expected = cut_one(image, saliency)
    np.testing.assert_array_equal(cut_one(image, 9 * saliency - 100), expected)
    np.testing.assert_array_equal(cut_one(image / np.float32(255), saliency), expected)


def test_mirrored_image_has_the_mirrored_object():
    image, saliency, _ = disc_scene()
    mirrored = cut_one(image[:, ::-1], saliency[:, ::-1])
    assert iou(mirrored[:, ::-1], cut_one(image, saliency)) > 0.99


@pytest.mark.parametrize("variant", ["seeds", "grabcut"])
def test_grey_and_flat_images_and_constant_maps(variant):
    image, saliency, disc = disc_scene()
    images = np.stack(
        [
            np.where(disc, 220, 90)[..., None] + np.zeros(3, int),  # two flat greys
            np.repeat(image[..., :1], 3, axis=-1),  # of red: the disc is brighter
            np.full_like(image, 77),
            image,
        ]
    ).astype(np.uint8)
    maps = np.stack([saliency] * 3 + [np.zeros_like(saliency)])
    found = graph_cut(images, maps, seeds="soft", variant=variant)
    assert iou(found[0], disc) == 1
    assert iou(found[1], disc) > 0.9
    assert not found[2:].any()
    boxes = component_boxes(graph_cut(images, maps, seeds="soft", variant=variant))
    np.testing.assert_array_equal(boxes[0], [16, 22, 45, 51])
    np.testing.assert_array_equal(boxes[2:], 0)


def test_colour_that_neither_seed_has_goes_with_its_neighbours():
    """OpenCV's likelihoods underflow there: not a number, and on the object's side."""
    image = np.full((40, 40, 3), [20, 30, 40], np.uint8)
    image[12:28, 12:28] = [200, 50, 50]
    image[:5, :5] = [50, 220, 90]
    saliency = np.ones((40, 40))
    saliency[12:28, 12:28] = saliency[:5, :5] = 2
    saliency[14:24, 14:26] = 3
    found = cut_one(image, saliency)
    np.testing.assert_array_equal(found, (image == [200, 50, 50]).all(axis=-1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": np.zeros((2, 5, 5, 1), np.uint8)}, r"\[B, H, W, 3\]"),
        ({"images": np.zeros((5, 5, 3), np.uint8)}, r"\[B, H, W, 3\]"),
        ({"images": np.full((2, 5, 5, 3), 7.0)}, r"in \[0, 1\]"),
        ({"images": np.full((2, 5, 5, 3), np.nan)}, r"in \[0, 1\]"),
        ({"images": np.zeros((2, 5, 5, 3), np.int64)}, "int64"),
        ({"maps": np.zeros((1, 5, 5))}, r"expected \(2, 5, 5\)"),
        ({"maps": np.full((2, 5, 5), np.nan)}, "not finite"),
        ({"background": 0.95}, "background=0.95"),
        ({"foreground": 1.5}, "foreground=1.5"),
        ({"components": 0}, "components is 0"),
        ({"gamma": -1.0}, "gamma is -1"),
        ({"seeds": "firm"}, "seeds='firm'"),
        ({"variant": "graph"}, "variant='graph'"),
    ],
)
def test_errors(change, says):
    given = {"images": np.zeros((2, 5, 5, 3), np.uint8), "maps": np.zeros((2, 5, 5))}
    with pytest.raises(InputError, match=says):
        inspect.unwrap(graph_cut)(**given | change)
