"""Mask estimation: what a chain does where the probability is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.transform import resize

from saliency_jax.attribution.asking import keys_of
from saliency_jax.attribution.optimised_masks import mask_chain
from saliency_jax.attribution.optimised_masks.coarse_masks import in_cells
from saliency_jax.attribution.optimised_masks.mask_chain import mask_estimation
from saliency_jax.errors import InputError

KEY = jax.random.key(3)
IMAGE = np.ones((1, 8, 8, 1), np.float32)


def constant(logit):
    """The first of two classes has the same logit whatever is shown."""
    return lambda images: (
        jnp.stack([logit + 0 * images.sum((1, 2, 3))] * 2, 1)
        * (jnp.asarray([[1.0, -1.0]]))
    )


def in_a_corner(images, low=0.2, high=0.9):
    """A probability of 0.9 where the upper left quarter is shown, of 0.2 elsewhere."""
    seen = images[:, :2, :2].mean((1, 2, 3)) > 0.5
    p = jnp.where(seen, high, low)
    return jnp.log(jnp.stack([p, 1 - p], axis=1))


def chain_of(function, cells=4, image=IMAGE, **options):
    return mask_estimation(
        function, image, 0, key=KEY, grid=cells, return_aux=True, **options
    )


def test_it_freezes_where_the_class_is_certain():
    """Then every step shows the first mask, but for the shifts."""
    maps, aux = chain_of(constant(50.0), cells=8, steps=30, chains=1, learning_rate=0.0)
    keys = keys_of(KEY, jnp.zeros(1, jnp.int32))
    start = mask_chain._begin(keys, jnp.asarray(IMAGE), CONSTANTS)
    expected = np.zeros((8, 8))
    for step in range(1, 31):
        shown = mask_chain._upsampled(keys, jnp.asarray(step), start.masks, (8, 8))
        expected += np.asarray(shown[0])
    np.testing.assert_allclose(maps[0], expected / 30, atol=1e-5)
    np.testing.assert_allclose(aux["probabilities"], 1)


def test_it_inverts_where_the_class_is_impossible():
    """Then in every two steps each cell is on once, so that all is shown alike."""
    maps, _ = chain_of(constant(-50.0), steps=40, chains=5, learning_rate=0.0)
    np.testing.assert_allclose(maps, 0.5, atol=0.06)
    # a pixel is a cell: without shifts it is exact
    exact, _ = chain_of(constant(-50.0), cells=8, steps=40, chains=1, learning_rate=0.0)
    np.testing.assert_allclose(exact, 0.5, atol=1e-6)


def test_how_long_a_cell_is_on_is_the_stationary_share():
    """On stays on with 0.9, off switches on with 0.8: 8/9 of the time; others half.

    Any other cell is as likely to switch on as off, whatever the probability is.
    """
    maps, aux = chain_of(
        lambda images: in_a_corner_cell(images),
        cells=8,
        steps=400,
        chains=20,
        learning_rate=0.0,
    )
    # 8 cells are enlarged to 9 pixels, the first 1/18 of a cell beyond the middle of
    # its own, and so, mirrored, with 1/18 of the next one on each side.
    own = (17 / 18) ** 2
    np.testing.assert_allclose(maps[0, 0, 0], own * 8 / 9 + (1 - own) / 2, atol=0.02)
    others = np.asarray(maps[0]).ravel()[1:]
    np.testing.assert_allclose(others.mean(), 0.5, atol=0.02)
    assert abs(others - 0.5).max() < 0.1
    expected = 0.9 * 8 / 9 + 0.2 / 9
    np.testing.assert_allclose(aux["probabilities"].mean(), expected, atol=0.02)


def in_a_corner_cell(images):
    p = jnp.where(images[:, 0, 0, 0] > 0.5, 0.9, 0.2)
    return jnp.log(jnp.stack([p, 1 - p], axis=1))


@pytest.mark.parametrize("variant", ["author", "paper"])
def test_the_corner_that_is_looked_at_is_shown_most(variant):
    image = np.ones((1, 32, 32, 3), np.float32)
    function = lambda images: in_a_corner(
        images.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4)), low=0.05, high=0.95
    )
    maps, aux = chain_of(function, image=image, steps=100, chains=20, variant=variant)
    one = np.asarray(maps[0])
    assert np.hypot(*np.unravel_index(one.argmax(), one.shape)) < 16
    assert one[:8, :8].mean() > 1.2 * one[16:, 16:].mean()
    assert aux["change"][0, -1] == 0
    assert aux["change"][0, 0] > 2 * aux["change"][0, 10] > 0
    disagreement = np.asarray(aux["disagreement"][0])
    assert disagreement[0] > 2 * disagreement[-1] > 0
    np.testing.assert_array_equal(aux["after"], np.arange(5, 101, 5))


CONSTANTS = mask_chain.Constants(
    variant="author",
    steps=30,
    grid=8,
    on_share=0.3,
    learning_rate=0.02,
    roughness_rate=0.1,
    floor=0.1,
)


def test_the_authors_step_by_hand():
    """A cell that comes on or back to 1 has 1 - 0.02 |dp|; one that stays has 1."""
    before = jnp.asarray([[[1.0, 0.99], [0.0, 0.0]]])
    on = jnp.asarray([[[True, True], [True, False]]])
    after = mask_chain._reweighted_by_author(before, on, jnp.asarray([0.5]), CONSTANTS)
    np.testing.assert_allclose(after, [[[1.0, 0.99], [0.99, 0.0]]])
    after = mask_chain._reweighted_by_author(before, ~on, jnp.asarray([0.5]), CONSTANTS)
    np.testing.assert_allclose(after, [[[0.0, 0.0], [0.0, 0.99]]])


def test_which_cells_are_on_next_by_the_draws():
    keys = jax.random.split(jax.random.key(0), 2)
    on = jnp.asarray(np.random.default_rng(0).random((2, 50, 50)) < 0.5)
    after = mask_chain._walked(keys, jnp.asarray(4), on, jnp.asarray([0.9, 0.25]))
    for which, p in enumerate((0.9, 0.25)):
        stayed = np.asarray(after)[which][np.asarray(on)[which]].mean()
        came = np.asarray(after)[which][~np.asarray(on)[which]].mean()
        np.testing.assert_allclose((stayed, came), (p, 1 - p), atol=0.04)
    assert (after[0] != after[1]).any()
    always = mask_chain._walked(keys, jnp.asarray(4), on, jnp.asarray([1.0, 0.0]))
    np.testing.assert_array_equal(always[0], on[0])
    np.testing.assert_array_equal(always[1], ~on[1])


def test_the_repaired_papers_step_by_hand():
    before = jnp.asarray([[[1.0, 0.5], [0.0, 0.0]]])
    on = jnp.asarray([[[True, True], [True, False]]])
    # V: rows (1 + 0.25) / 2, columns (0.25 + 0) / 2
    roughness = 0.625 + 0.125
    of = lambda change: np.asarray(
        mask_chain._reweighted_by_paper(before, on, jnp.asarray([change]), CONSTANTS)
    )[0]
    added = 0.1 * roughness
    expected = [[0.6 + added, 0.3 + 0.5 * added], [0.6 + added, 0.0]]
    np.testing.assert_allclose(of(0.6), expected, rtol=1e-5)
    # without any change the floor is what each step leaves, and no weight is less
    expected = [[0.1 + added, 0.1 + 0.5 * added], [0.1 + added, 0.0]]
    np.testing.assert_allclose(of(0.0), expected, rtol=1e-5)


def test_the_grid_is_upsampled_as_in_rise():
    keys = jax.random.split(jax.random.key(0), 40)
    grid = np.zeros((4, 4), np.float32)
    grid[1, 2] = grid[0, 0] = 1  # at the border too, where the grid is mirrored
    grids = jnp.broadcast_to(grid, (40, 4, 4))
    shown = mask_chain._upsampled(keys, jnp.asarray(7), grids, (30, 32))
    assert shown.shape == (40, 30, 32)
    # of 4 cells to 5 times the cell's 8 pixels, of which a part is cut out
    options = {"order": 1, "mode": "reflect", "anti_aliasing": False}
    whole = resize(grid, (40, 40), **options)
    found = set()
    for one in np.asarray(shown):
        fits = [
            (y, x)
            for y in range(8)
            for x in range(8)
            if np.allclose(one, whole[y : y + 30, x : x + 32], atol=1e-5)
        ]
        assert len(fits) == 1
        found.add(fits[0])
    assert len(found) > 20


def test_maps_in_cells_are_means():
    maps = jnp.arange(24.0).reshape(1, 4, 6)
    np.testing.assert_allclose(in_cells(maps, 2)[0], [[4, 7], [16, 19]])


def test_postprocessing_by_hand():
    maps = jnp.asarray([[[0.0, 0.5], [0.5, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    script = mask_chain._postprocessed(maps, "script")
    np.testing.assert_allclose(
        script[0], [[0, 0.02 / 0.52], [0.02 / 0.52, 1]], rtol=1e-4
    )
    np.testing.assert_array_equal(script[1], 0)
    notebook = mask_chain._postprocessed(maps, "notebook")
    np.testing.assert_allclose(notebook[0], [[-0.5, 0], [0, 0.5]])


def test_chains_are_the_same_one_by_one():
    both, aux = chain_of(in_a_corner, steps=15, chains=3)
    for batch_size in (1, 2):
        part, of_part = chain_of(in_a_corner, steps=15, chains=3, batch_size=batch_size)
        np.testing.assert_allclose(part, both, atol=1e-5)
        np.testing.assert_allclose(
            of_part["probabilities"], aux["probabilities"], atol=1e-5
        )
    fewer, of_fewer = chain_of(in_a_corner, steps=15, chains=1)
    np.testing.assert_allclose(
        of_fewer["probabilities"], aux["probabilities"][:, :1], atol=1e-5
    )
    assert np.ptp(np.asarray(aux["probabilities"]), axis=1).max() > 0.1


def test_what_cannot_be_is_said():
    for options, words in (
        ({"steps": 0}, "steps is 0: it must be at least 1"),
        ({"chains": 0}, "chains is 0: it must be at least 1"),
        ({"targets": jnp.sum}, "mask_estimation explains classes: pass a class"),
    ):
        with pytest.raises(InputError, match=words):
            mask_estimation(in_a_corner, IMAGE, **options)
