"""RISE: the masks against scikit-image, and maps with a known expectation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.transform import resize

from saliency_jax.attribution.perturbation.random_grids import (
    Axis,
    _Grids,
    _mask,
    axis_of,
    enlargement,
    rise,
)
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier

KEY = jax.random.key(3)


def random_grid(cells):
    return np.random.default_rng(cells).integers(0, 2, (cells, cells)).astype("f4")


def enlarged(variant, side, cells, offset=0):
    axis = axis_of(variant, side, cells)
    whole = axis._replace(side=axis.side + axis.offsets - 1 - offset)
    matrix = enlargement(whole, cells, offset)
    return np.asarray(matrix @ random_grid(cells) @ matrix.T)


@pytest.mark.parametrize(("side", "cells"), [(224, 7), (30, 4), (50, 7), (16, 1)])
def test_the_authors_masks_are_those_of_scikit_image(side, cells):
    cell = -(-side // cells)
    whole = 2 * ((cells + 1) * cell,)
    expected = resize(
        random_grid(cells), whole, order=1, mode="reflect", anti_aliasing=False
    )
    masks = enlarged("author", side, cells)
    size = side + cell - 1
    np.testing.assert_allclose(masks, expected[:size, :size], atol=3e-6)
    part = enlarged("author", side, cells, offset=2) if cell > 2 else masks[2:, 2:]
    np.testing.assert_allclose(part, expected[2:size, 2:size], atol=3e-6)


@pytest.mark.parametrize(("side", "cells"), [(224, 7), (30, 4), (50, 7)])
def test_masks_of_other_libraries(side, cells):
    grid = random_grid(cells)
    up = lambda grid, size: np.asarray(
        jax.image.resize(grid, (size, size), "linear", antialias=False)
    )
    masks = enlarged("xplique", side, cells)
    np.testing.assert_allclose(masks, up(grid, int(side * (1 + 1 / cells))), atol=3e-6)
    # TorchRay mirrors the grid by a cell and enlarges that.
    whole = side + -(-side // cells)
    cell = -(-whole // cells)
    padded = up(np.pad(grid, 1, mode="reflect"), cell * (cells + 2))[cell:, cell:]
    masks = enlarged("torchray", side, cells)
    np.testing.assert_allclose(masks, padded[: whole - 1, : whole - 1], atol=3e-6)


def test_the_border_of_a_mask():
    # Half a pixel in, a pixel of a cell of four is 3/8 beyond the cell's centre.
    mirrored, constant = Axis(4, 4.0, 1, True), Axis(4, 4.0, 1, False)
    np.testing.assert_allclose(enlargement(mirrored, 2, 0)[0], [0.625, 0.375])
    np.testing.assert_allclose(enlargement(constant, 2, 0)[0], [1, 0])
    np.testing.assert_allclose(enlargement(mirrored, 2, 4)[-1], [0.375, 0.625])
    np.testing.assert_allclose(enlargement(constant, 2, 4)[-1], [0, 1])


@pytest.mark.parametrize("variant", ["author", "xplique", "torchray"])
def test_masks_have_the_probability_everywhere(variant):
    grids = _Grids(3, 0.3, (axis_of(variant, 20, 3), axis_of(variant, 26, 3)))
    masks = jax.vmap(lambda key: _mask(key, grids))(
        jax.random.split(jax.random.key(9), 2000)
    )
    assert masks.shape == (2000, 20, 26)
    assert masks.min() == 0 and masks.max() <= 1 + 1e-6
    np.testing.assert_allclose(
        jnp.mean(masks, axis=0), np.full((20, 26), 0.3), atol=0.05
    )


def of_brightness(brightness):
    """A classifier of two classes whose first probability is the brightness."""

    def logits_fn(images):
        shown = jnp.clip(brightness(images), 1e-6, 1 - 1e-6)
        return jnp.stack([jnp.log(shown), jnp.log(1 - shown)], axis=-1)

    return Classifier.from_function(logits_fn, mean=(0.0,), std=(1.0,))


def test_a_model_that_looks_at_one_cell():
    region = np.zeros((28, 28), np.float32)
    region[16:20, 8:12] = 1 / 16
    model = of_brightness(lambda images: jnp.einsum("bhwc,hw->b", images, region))
    image = np.ones((1, 28, 28, 1), np.float32)
    options = dict(key=KEY, masks=3000, batch_size=500)
    expected = np.full((28, 28), 0.5)
    for variant, factor in (("author", 1), ("xplique", 1), ("torchray", 0.5)):
        if variant == "torchray":  # of the sigmoid
            model = Classifier.from_function(
                lambda images: jnp.log(
                    (shown := jnp.clip(images[:, 18, 10], 1e-6, 1 - 1e-6)) / (1 - shown)
                ),
                mean=(0.0,),
                std=(1.0,),
            )
        maps = np.asarray(rise(model, image, 0, variant=variant, **options))[0]
        row, column = np.unravel_index(maps.argmax(), maps.shape)
        assert abs(row - 17.5) <= 2.5 and abs(column - 9.5) <= 2.5
        # The mean of a mask, given the mask at an independent pixel.
        far = np.ones((28, 28), bool)
        far[5:, :22] = False
        assert abs(maps[far].mean() / factor - expected[far].mean()) < 0.03
        assert maps[17, 9] / factor > 0.65


def test_a_constant_probability():
    model = Classifier.from_function(lambda images: jnp.zeros((len(images), 4)))
    image = np.random.default_rng(0).uniform(size=(2, 12, 16, 3)).astype(np.float32)
    options = dict(key=KEY, masks=1500, cells=3, batch_size=500)
    shape = (2, 12, 16)
    maps = rise(model, image, 1, variant="xplique", **options)
    np.testing.assert_allclose(maps, np.full(shape, 0.25), rtol=1e-5)
    maps = rise(model, image, 1, **options)
    np.testing.assert_allclose(maps, np.full(shape, 0.25), rtol=0.1)
    maps = rise(model, image, 1, variant="torchray", **options)
    np.testing.assert_allclose(maps, np.full(shape, 0.25), rtol=0.1)  # p times 1/2
    # Masks are the same for all images.
    np.testing.assert_array_equal(maps[0], maps[1])


def test_with_probability_one_the_image_is_shown():
    model = of_brightness(lambda images: jnp.mean(images, axis=(1, 2, 3)))
    image = np.full((1, 8, 8, 1), 0.3, np.float32)
    options = dict(masks=5, cells=2, probability=1.0)
    maps = rise(model, image, 0, **options)
    np.testing.assert_allclose(maps, np.full((1, 8, 8), 0.3), rtol=1e-5)
    squared = rise(model, image, lambda probabilities: probabilities[0] ** 2, **options)
    np.testing.assert_allclose(squared, np.full((1, 8, 8), 0.09), rtol=1e-5)


def test_what_removed_pixels_show():
    model = of_brightness(lambda images: jnp.mean(images, axis=(1, 2, 3)))
    image = np.full((1, 8, 8, 1), 0.3, np.float32)
    same = rise(model, image, 0, key=KEY, masks=40, value=0.3, variant="xplique")
    np.testing.assert_allclose(same, np.full((1, 8, 8), 0.3), rtol=1e-3)
    dark = rise(model, image, 0, key=KEY, masks=400, variant="xplique")
    assert 0.1 < dark.mean() < 0.2


def test_errors():
    model = of_brightness(lambda images: jnp.mean(images, axis=(1, 2, 3)))
    image = np.ones((1, 8, 8, 1), np.float32)
    with pytest.raises(InputError, match="masks is 0: it must be at least 1"):
        rise(model, image, 0, masks=0)
    with pytest.raises(InputError, match="probability is 0"):
        rise(model, image, 0, probability=0.0)
