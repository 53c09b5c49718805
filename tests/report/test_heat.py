"""Colours of maps, and where the cells of the grid are."""

import numpy as np

from saliency_jax.report.figures import GAP, HEADER
from saliency_jax.report.heat import heat_grid

SIZE = 160  # as large as is drawn, so that pixels are pixels


def cells(maps):
    """The map's part of a grid of one image, which is black."""
    images = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    grid = heat_grid(images, {"method": maps}, ["black"])
    assert grid.shape == (HEADER + SIZE, 2 * SIZE + GAP, 3)
    assert not grid[HEADER:, :SIZE].any()
    return grid[HEADER:, SIZE + GAP :].astype(int)


def test_a_positive_map_is_hot_where_it_is_large():
    maps = np.zeros((1, SIZE, SIZE), np.float32)
    maps[0, :40, :80] = 3.0
    drawn = cells(maps)
    assert not drawn[50:].any() and not drawn[:, 90:].any()
    assert (drawn[:40, :80] > 150).all()


def test_a_signed_map_has_two_colours():
    maps = np.zeros((1, SIZE, SIZE), np.float32)
    maps[0, :40], maps[0, -40:] = -1.0, 1.0
    drawn = cells(maps)
    red, _, blue = np.moveaxis(drawn, -1, 0)
    assert (blue[:40] > red[:40] + 100).all() and (red[-40:] > blue[-40:] + 100).all()
    assert not drawn[60:100].any()


def test_neither_a_few_extreme_pixels_nor_a_constant_hide_the_rest():
    maps = np.full((1, SIZE, SIZE), 7.0, np.float32)
    maps[0, 40:, :] += 1.0
    maps[0, 0, 0] = 1e6
    drawn = cells(maps)
    assert not drawn[10:40].any() and (drawn[50:] > 150).all()


def test_a_map_of_zeros():
    assert not cells(np.zeros((1, SIZE, SIZE), np.float32)).any()
