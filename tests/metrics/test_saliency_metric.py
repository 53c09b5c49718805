import numpy as np
import pytest

from saliency_jax.metrics import saliency_metric
from saliency_jax.metrics.saliency_metric import SaliencyMetric

BLACK = (0.0, 0.0, 0.0)


def crop(image, box, size=None, mean=BLACK):
    (made,) = saliency_metric.crops(
        image[None], np.array([box]), size or len(image), mean
    )
    return made


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def test_areas_have_a_floor():
    boxes = np.array([[0, 0, 10, 10], [0, 5, 10, 10], [2, 2, 4, 4], [0, 0, 0, 0]])
    np.testing.assert_allclose(
        saliency_metric.log_areas(boxes, 10), np.log([1, 0.5, 0.05, 0.05])
    )


def test_the_metric_by_hand():
    metric = SaliencyMetric(
        np.log([0.05, 1.0, 0.5]), np.log([1.0, 0.5, 0.5]), np.ones(3, bool)
    )
    np.testing.assert_allclose(metric.score, [np.log(0.05), np.log(2), 0], atol=1e-12)


def test_the_crop_of_everything_is_the_image(noise):
    np.testing.assert_array_equal(crop(noise, [0, 0, 8, 8]), noise)


def test_a_crop_is_enlarged_bilinearly():
    image = np.full((4, 4, 3), 255, np.uint8)
    image[1:3, 1:3] = np.array([[0, 80], [40, 120]])[..., None]
    # weights 1, 3/4, 1/4, 0 of the nearer pixel; nothing of the white around it
    expected = np.add.outer([0, 10, 30, 40], [0, 20, 60, 80])
    made = crop(image, [1, 1, 3, 3])
    for channel in range(3):
        np.testing.assert_array_equal(made[..., channel], expected)


def test_a_crop_knows_height_from_width(noise):
    noise[2:4, 1:8] = 7
    assert (crop(noise, [2, 1, 4, 8]) == 7).all()
    assert not (crop(noise, [1, 2, 8, 4]) == 7).all()


def test_an_empty_box_is_the_mean_colour(noise):
    for empty in ([0, 0, 0, 0], [3, 2, 3, 6], [3, 2, 6, 2]):
        for size in (8, 5, 13):
            made = crop(noise, empty, size, mean=(0.5, 0.25, 1.0))
            assert (made == np.array([128, 64, 255])).all()  # 127.5 and 63.75


def test_edges_of_another_size_move_outwards(noise):
    # at 5 pixels [1, 2) is [1.6, 3.2) at 8: [1, 4)
    np.testing.assert_array_equal(
        crop(noise, [1, 1, 2, 2], size=5), crop(noise, [1, 1, 4, 4])
    )
    np.testing.assert_array_equal(crop(noise, [0, 0, 5, 5], size=5), noise)
    # at 16 pixels even a single one shows something
    np.testing.assert_array_equal(
        crop(noise, [15, 0, 16, 1], size=16), crop(noise, [7, 0, 8, 1])
    )


def test_each_image_has_its_own_box(noise):
    images = np.stack([noise, noise[::-1]])
    boxes = np.array([[0, 0, 4, 4], [4, 0, 8, 4]])
    first, second = saliency_metric.crops(images, boxes, 8, BLACK)
    np.testing.assert_array_equal(first, crop(noise, [0, 0, 4, 4]))
    np.testing.assert_array_equal(second, first[::-1])
