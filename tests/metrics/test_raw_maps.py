import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.raw_maps import checked_maps, min_max_normalised


def test_each_map_by_itself():
    maps = np.array([[[-3.0, -1, 1]], [[7, 7, 7]], [[0, 5, 10]]])
    expected = [[[0, 0.5, 1]], [[0, 0, 0]], [[0, 0.5, 1]]]
    normalised = min_max_normalised(maps)
    np.testing.assert_array_equal(normalised, expected)
    assert normalised.dtype == np.float32


def test_any_positive_scale_and_offset():
    maps = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)
    once = min_max_normalised(maps)
    np.testing.assert_array_equal(min_max_normalised(once), once)
    np.testing.assert_allclose(min_max_normalised(8 * maps - 3), once, atol=1e-6)


def test_the_ends_of_float32():
    high = np.finfo(np.float32).max
    maps = np.array([[[-high, 0, high]], [[0, 1e-45, 1e-44]]], np.float32)
    normalised = min_max_normalised(maps)
    np.testing.assert_allclose(normalised[0], [[0, 0.5, 1]])
    assert normalised[1].max() == 1 and 0 < normalised[1, 0, 1] < 1


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        (np.zeros((4, 4)), r"\(4, 4\)"),
        (np.zeros((1, 4, 4, 3)), r"\(1, 4, 4, 3\)"),
        (np.zeros((2, 0, 4)), r"\(2, 0, 4\)"),
        (np.array([[[0.0, 1]], [[0, np.nan]]]), "map 1 of 2 is not finite"),
        (np.array([[[0.0, np.inf]]]), "map 0 of 1 is not finite"),
        (np.full((1, 2, 2), 1e39), "not finite"),  # beyond float32
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_no_map(maps, said):
    for check in (checked_maps, min_max_normalised):
        with pytest.raises(InputError, match=said):
            check(maps)


def test_the_unit_range_where_it_is_asked_for():
    maps = np.array([[[0.0, 1.5]]])
    np.testing.assert_array_equal(checked_maps(maps), maps)
    with pytest.raises(InputError, match="from 0 to 1.5"):
        checked_maps(maps, in_unit_range=True)
    with pytest.raises(InputError, match="from -0.5 to 0"):
        checked_maps(np.array([[[-0.5, 0]]]), in_unit_range=True)
    assert checked_maps(np.zeros((0, 3, 3)), in_unit_range=True).shape == (0, 3, 3)
