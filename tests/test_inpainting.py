import numpy as np
import pytest

from saliency_jax.inpainting import inpaint_telea

MEAN = (0.2, 0.4, 0.6)


@pytest.fixture
def noisy():
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture
def hole():
    removed = np.zeros((16, 16), bool)
    removed[5:10, 4:9] = True
    return removed


def test_a_hole_takes_the_colour_around_it(hole):
    smooth = np.full((16, 16, 3), 90, np.uint8)
    holed = np.where(hole[..., None], 255, smooth).astype(np.uint8)
    filled = inpaint_telea(holed, hole, MEAN)
    np.testing.assert_allclose(filled.astype(int), smooth, atol=2)


def test_only_the_hole_changes(noisy, hole):
    filled = inpaint_telea(noisy, hole, MEAN)
    np.testing.assert_array_equal(filled[~hole], noisy[~hole])
    assert (filled[hole] != noisy[hole]).any()
    nothing = np.zeros_like(hole)
    np.testing.assert_array_equal(inpaint_telea(noisy, nothing, MEAN), noisy)


def test_of_a_whole_image_nothing_shows_through(noisy, hole):
    filled = inpaint_telea(noisy, np.ones_like(hole), MEAN)
    assert filled.shape == noisy.shape and (filled == [51, 102, 153]).all()
