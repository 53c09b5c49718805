"""Ten crops: where their maps are laid, how they are turned and counted."""

import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.gradients.plain import gradient
from saliency_jax.attribution.gradients.ten_crop import ten_crop_gradient
from saliency_jax.errors import InputError
from tests.attribution.small_network import SIZE, classifier, images

PICTURES = np.random.default_rng(0).uniform(size=(2, 8, 9, 3)).astype(np.float32)
CORNERS = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]  # of crops of 6 x 7 pixels


def laid_by_hand(maps_of, pictures=PICTURES, corners=CORNERS, crop=(6, 7)):
    """The mean of the maps `[B, *crop]` that a function gives of crops."""
    sums, counts = np.zeros(pictures.shape[:3]), np.zeros(pictures.shape[1:3])
    for row, column in corners:
        place = np.s_[row : row + crop[0], column : column + crop[1]]
        shown = pictures[:, *place]
        for turn in (1, -1):
            sums[:, *place] += np.asarray(maps_of(shown[:, :, ::turn]))[:, :, ::turn]
            counts[place] += 1
    return sums / counts


def test_each_pixel_has_the_mean_of_the_crops_that_show_it():
    """The gradient is a ramp over each crop, whatever it shows."""
    ramp = np.arange(1.0, 43).reshape(6, 7).astype(np.float32)

    def ramps(images):
        assert images.shape[1:] in ((6, 7, 3), (8, 9, 3))  # the latter for the class
        here = jnp.asarray(np.resize(ramp, images.shape[1:3]))[None, ..., None]
        return jnp.sum(here * images, axis=(1, 2, 3))[:, None]

    expected = laid_by_hand(lambda crops: np.broadcast_to(ramp, crops.shape[:3]))
    for batch_size in (None, 3):
        maps = ten_crop_gradient(
            ramps, PICTURES, 0, crop_size=(6, 7), batch_size=batch_size
        )
        np.testing.assert_allclose(maps, expected, rtol=1e-6)
    assert expected[0, 0, 0] == (1 + 7) / 2  # of one crop and its mirror image
    maps = ten_crop_gradient(ramps, PICTURES, 0, crop_size=(6, 7), reduction=None)
    np.testing.assert_allclose(maps, expected[..., None].repeat(3, -1), rtol=1e-6)


def test_maps_lie_where_the_crops_were():
    """The gradient of half the squares is the image."""
    squares = lambda images: jnp.sum(images**2, axis=(1, 2, 3))[:, None] / 2
    for size in (None, 6, (5, 9), (8, 9)):
        maps = ten_crop_gradient(squares, PICTURES, 0, crop_size=size)
        np.testing.assert_allclose(maps, PICTURES.max(-1), rtol=1e-6)


def test_crops_are_seven_eighths_of_the_image():
    rows_times_columns = lambda images: (
        jnp.sum(images, axis=(1, 2, 3)) * images.shape[1] + images.shape[2]
    )[:, None]
    blank = np.zeros((1, 16, 32, 1), np.float32)
    maps = ten_crop_gradient(rows_times_columns, blank, 0)
    np.testing.assert_allclose(maps, np.full((1, 16, 32), 14.0))


@pytest.mark.parametrize("at", [{}, {"layer": "conv2"}])
def test_a_network(at):
    model, batch = classifier(), images(2)
    targets = np.array([1, 4])
    corners = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]
    of = lambda crops: gradient(model, crops, targets, **at)
    expected = laid_by_hand(of, batch, corners, (14, 14))
    maps = np.asarray(ten_crop_gradient(model, batch, targets, **at))
    np.testing.assert_allclose(maps, expected, atol=1e-5 * expected.max())
    mirrored = np.asarray(ten_crop_gradient(model, batch[:, :, ::-1], targets, **at))
    np.testing.assert_allclose(mirrored[:, :, ::-1], maps, atol=1e-5 * expected.max())


def test_the_class_is_that_of_the_whole_image():
    model, batch = classifier(), images(3)
    predicted = np.asarray(model(batch)).argmax(-1)
    np.testing.assert_array_equal(
        ten_crop_gradient(model, batch, crop_size=6),
        ten_crop_gradient(model, batch, predicted, crop_size=6),
    )


def test_crops_as_large_as_the_image_for_classifiers_of_one_size():
    weights = np.full((SIZE * SIZE * 3, 1), 0.5, np.float32)
    dense = lambda images: images.reshape(len(images), -1) @ weights
    maps = ten_crop_gradient(dense, images(2), 0, resize=True)
    np.testing.assert_allclose(maps, np.full((2, SIZE, SIZE), 0.5), rtol=1e-6)
    with pytest.raises(TypeError):
        ten_crop_gradient(dense, images(2), 0)
    # A bright pixel, which is seen where it is.
    spot = np.zeros((1, SIZE, SIZE, 3), np.float32)
    spot[0, 5, 11] = 1
    squares = lambda images: jnp.sum(images**2, axis=(1, 2, 3))[:, None]
    maps = np.asarray(ten_crop_gradient(squares, spot, 0, resize=True))[0]
    assert np.unravel_index(maps.argmax(), maps.shape) == (5, 11)
    np.testing.assert_array_equal(maps[:4], 0)


def test_what_no_crop_shows_is_zero():
    sums = lambda images: jnp.sum(images, axis=(1, 2, 3))[:, None]
    maps = np.asarray(ten_crop_gradient(sums, PICTURES, 0, crop_size=2))
    expected = np.zeros((8, 9))
    for rows in (np.s_[:2], np.s_[-2:]):
        expected[rows, :2] = expected[rows, -2:] = 1
    expected[3:5, 3:5] = 1
    np.testing.assert_array_equal(maps[1], expected)


def test_what_cannot_be_is_said():
    model, batch = classifier(), images(1)
    for size in (0, 17, (4, 17)):
        with pytest.raises(InputError, match=r"expected 1 to 16 rows and 1 to 16 col"):
            ten_crop_gradient(model, batch, 1, crop_size=size)
    with pytest.raises(InputError, match="upsampling is None: maps of crops are laid"):
        ten_crop_gradient(model, batch, 1, layer="conv1", upsampling=None)
