"""Occlusion: the worked example, windows at the border, colours and outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.asking import check_option
from saliency_jax.attribution.layers import Unit
from saliency_jax.attribution.perturbation.sliding_patch import occlusion
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from tests.attribution.worked_example import IMAGE, answer_of

SUM = [[7, 16, 13, 4], [31, 83, 89, 37], [60, 157, 177, 80], [36, 90, 101, 47]]
MEAN = [
    [7, 8, 6.5, 4],
    [15.5, 20.75, 22.25, 18.5],
    [30, 39.25, 44.25, 40],
    [36, 45, 50.5, 47],
]


@pytest.mark.parametrize(("variant", "expected"), [("sum", SUM), ("mean", MEAN)])
def test_worked_example(variant, expected):
    options = dict(patch_size=2, stride=1, value=0, variant=variant)
    for batch_size in (None, 2):
        maps = occlusion(answer_of, IMAGE, 0, batch_size=batch_size, **options)
        np.testing.assert_allclose(maps[0], expected, atol=1e-4)


def brightness(images):
    return jnp.sum(images, axis=(1, 2, 3))[:, None]


def test_the_last_patch_is_cut_off_at_the_border():
    ones = np.ones((1, 4, 4, 1), np.float32)
    maps = occlusion(brightness, ones, 0, patch_size=3, stride=2)
    # Patches of 3x3, 3x2, 2x3 and 2x2 pixels.
    np.testing.assert_allclose(maps[0, 0], [9, 9, 7.5, 6], atol=1e-5)
    np.testing.assert_allclose(maps[0, 2], [7.5, 7.5, 6.25, 5], atol=1e-5)
    np.testing.assert_allclose(maps[0, 3], [6, 6, 5, 4], atol=1e-5)


def test_rows_and_columns():
    ones = np.ones((2, 4, 6, 1), np.float32)
    for form in (tuple, list, np.array):
        sides = {"patch_size": form((4, 2)), "stride": form((1, 2))}
        maps = occlusion(brightness, ones, 0, **sides)
        np.testing.assert_allclose(maps, np.full((2, 4, 6), 8), atol=1e-5)
    # By default patches are a seventh of the sides.
    maps = occlusion(brightness, np.ones((1, 14, 28, 1), np.float32), 0)
    np.testing.assert_allclose(maps, np.full((1, 14, 28), 8), atol=1e-5)


def test_colours():
    model = Classifier.from_function(brightness, mean=(0.5, 0.25), std=(1.0, 1.0))
    image = np.full((1, 4, 4, 2), (0.5, 0.25), np.float32)
    options = dict(patch_size=2, stride=2)
    np.testing.assert_allclose(occlusion(model, image, 0, **options), 0, atol=1e-5)
    for value, fall in ((0.25, 1.0), ((0.0, 0.5), 1.0), (np.zeros(2), 3.0)):
        maps = occlusion(model, image, 0, value=value, **options)
        np.testing.assert_allclose(maps, np.full((1, 4, 4), fall), atol=1e-5)
    with pytest.raises(InputError, match=r"value of shape \(3,\) for images of 2"):
        occlusion(model, image, 0, value=3 * (0.0,))


def test_outputs_and_targets():
    def two_classes(images):
        return jnp.concatenate([brightness(images), -brightness(images)], axis=-1)

    image = np.ones((1, 2, 2, 1), np.float32)
    options = dict(patch_size=2, stride=1, value=0)
    maps = occlusion(two_classes, image, 1, **options)
    np.testing.assert_allclose(maps, np.full((1, 2, 2), -4), atol=1e-5)
    fall = jax.nn.softmax(jnp.array([4.0, -4.0]))[0] - 0.5
    maps = occlusion(two_classes, image, output="probability", **options)
    np.testing.assert_allclose(maps, np.full((1, 2, 2), fall), atol=1e-6)
    several = Classifier.from_function(
        two_classes, mean=(0.0,), std=(1.0,), output="sigmoid"
    )
    fall = jax.nn.sigmoid(4.0) - 0.5
    maps = occlusion(several, image, 0, output="probability", **options)
    np.testing.assert_allclose(maps, np.full((1, 2, 2), fall), atol=1e-6)
    difference = lambda logits: logits[0] - logits[1]
    maps = occlusion(two_classes, image, difference, **options)
    np.testing.assert_allclose(maps, np.full((1, 2, 2), 8), atol=1e-5)
    # The unit is 40, and sees the nine pixels from the second row and column on.
    unit = Unit(0, (1, 1), "relu1")
    maps = occlusion(answer_of, IMAGE, unit, patch_size=1, stride=1, value=0)
    expected = np.zeros((4, 4))
    expected[1:, 1:] = IMAGE[0, 1:, 1:, 0]
    np.testing.assert_allclose(maps[0], expected, atol=1e-4)


def test_errors():
    with pytest.raises(InputError, match="variant='min' is unknown: use one of"):
        check_option("variant", "min", ("mean", "sum"))
    call = lambda **options: occlusion(answer_of, IMAGE, 0, **options)
    with pytest.raises(InputError, match="patch_size is 5 for images of 4 rows"):
        call(patch_size=5)
    with pytest.raises(InputError, match="stride is 3 for a patch of 2 rows"):
        call(patch_size=2, stride=3)
    with pytest.raises(InputError, match="stride is 0 for a patch of 2 rows"):
        call(patch_size=2, stride=0)
    call(patch_size=4, stride=9)
    with pytest.raises(InputError, match=r"patch_size=\[2, 3, 4\]: expected a whole"):
        call(patch_size=[2, 3, 4])
