"""What methods say to images, targets, keys and classifiers that cannot be meant."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from saliency_jax import attribution
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from tests.commands import start

IMAGES = np.random.default_rng(0).random((2, 8, 6, 3), np.float32)


def logits_of(images):
    return jnp.stack([images[..., 0].sum((1, 2)), images[..., 1].sum((1, 2))], 1)


def refused(message, logits_fn=logits_of, images=IMAGES, **asked):
    with pytest.raises(InputError, match=message) as told:
        attribution.gradient(logits_fn, images, **asked)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[0], r"images of shape \(8, 6, 3\): expected \[B, H, W, C\]"),
        (IMAGES.transpose(0, 3, 1, 2), r"channels first: .*transpose\(0, 2, 3, 1\)"),
    ],
)
def test_images_that_cannot_be_meant(images, message):
    refused(message, images=images)


@pytest.mark.parametrize("images", [255 * IMAGES, IMAGES * 6 - 3])
def test_images_of_another_range_are_told(images):
    with pytest.warns(UserWarning, match=r"images reach from .*from_function"):
        maps = attribution.gradient(logits_of, images)
    np.testing.assert_array_equal(maps, np.ones((2, 8, 6)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_value_that_is_not_finite_is_enough(value):
    images = IMAGES.copy()
    images[1, 2, 3, 1] = value
    refused("images hold NaN or infinite values", images=images)


def test_images_may_leave_their_range_a_bit_and_are_not_known_inside_jit():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribution.gradient(logits_of, IMAGES * 1.2 - 0.1)
        jax.jit(lambda images: attribution.gradient(logits_of, images))(255 * IMAGES)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.array([[0], [1]]), r"targets of shape \(2, 1\) for 2 images"),
        (2, "target 2: the classifier knows classes 0 to 1"),
        (-1, "target -1: the classifier knows classes 0 to 1"),
        (lambda logits: logits, r"gives float32 \[2\]: expected one number of the"),
        (lambda logits: None, "gives NoneType: expected one number"),
        (lambda logits: jnp.argmax(logits), r"gives int32 \[\]: expected one number"),
        (lambda logits: logits[:, 0], r"fails \(Too many indices.*of one image"),
        (lambda one, other: one, r"fails \(.*other.*\): expected one number"),
    ],
)
def test_targets_that_cannot_be_meant(targets, message):
    refused(message, targets=targets)


@pytest.mark.parametrize(
    ("logits_fn", "message"),
    [
        (nn.Dense(2), "the module Dense has no variables"),
        (lambda x: {"logits": logits_of(x)}, r"gives dict for .*logits \[2, classes\]"),
        (lambda x: logits_of(x)[0], r"gives \(2,\) for images \(2, 8, 6, 3\)"),
        (lambda x: logits_of(x)[:1], r"gives \(1, 2\) for images"),
    ],
)
def test_what_is_no_classifier(logits_fn, message):
    refused(message, logits_fn)
    if not isinstance(logits_fn, nn.Module):
        with pytest.raises(InputError, match=message):
            Classifier.from_function(logits_fn)(IMAGES)


UNTYPED = """
import numpy as np
from saliency_jax import attribution
from saliency_jax.errors import InputError

images = np.zeros((2, 8, 6, 3), np.float32)
logits_of = lambda images: images[:, :2, 0, 0]
for logits_fn, images, asked in [
    (logits_of, list(images), {}),
    (logits_of, None, {}),
    ("resnet50", images, {}),
    (None, images, {}),
    (logits_of, images, {"targets": "cat"}),
    (logits_of, images, {"targets": [[0, 1], [0]]}),
    (logits_of, images, {"targets": np.float32([0, 1])}),
    (logits_of, images, {"key": 3}),
]:
    try:
        attribution.smooth_grad(logits_fn, images, **asked)
    except InputError as error:
        print(error)
for method, asked in [
    (attribution.occlusion, {"patch_size": "all"}),
    (attribution.occlusion, {"stride": 1.5}),
    (attribution.occlusion, {"stride": [1, [2]]}),
    (attribution.occlusion, {"value": "black"}),
    (attribution.integrated_gradients, {"baseline": [1, [2]]}),
    (attribution.extremal_perturbation, {"areas": "all"}),
    (attribution.extremal_perturbation, {"areas": [[0.1], [0.1, 0.2]]}),
    (attribution.extremal_perturbation, {"areas": [[0.1, 0.2]]}),
]:
    try:
        method(logits_of, images, 0, **asked)
    except InputError as error:
        print(error)
attribution.gradient(logits_of, images + 255)
"""


def test_what_has_another_type():
    """In a process of its own, without the tests' check of types."""
    told, errors = start("-c", UNTYPED).communicate(timeout=300)
    assert [line.split(":")[0] for line in told.splitlines()] == [
        "images of type list",
        "images of type NoneType",
        "a classifier of type str",
        "a classifier of type NoneType",
        "targets 'cat'",
        "targets [[0, 1], [0]]",
        "targets of type float32",
        "key is the number 3",
        "patch_size='all'",
        "stride=1.5",
        "stride=[1, [2]]",
        "value='black'",
        "baseline=[1, [2]]",
        "areas='all'",
        "areas=[[0.1], [0.1, 0.2]]",
        "areas=[[0.1, 0.2]]",
    ], errors
    line = UNTYPED.count("\n")  # where the method is called
    assert f"<string>:{line}: UserWarning: images reach from 255 to 255" in errors


def test_a_colour_in_bytes_is_the_same_colour():
    red = np.array([255, 0, 51], np.uint8)
    for options in (
        lambda colour: {"method": attribution.occlusion, "value": colour},
        lambda colour: {"method": attribution.integrated_gradients, "baseline": colour},
    ):
        maps = [
            (asked := options(colour)).pop("method")(logits_of, IMAGES, 1, **asked)
            for colour in (red, red / np.float32(255))
        ]
        np.testing.assert_allclose(*maps, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "option"),
    [
        (attribution.occlusion, "value"),
        (attribution.rise, "value"),
        (attribution.lime, "value"),
        (attribution.integrated_gradients, "baseline"),
    ],
)
def test_a_colour_that_cannot_be_meant(method, option):
    for colour, message in (
        (np.array([255, 0, 51]), f"{option} of type int64 has no known range"),
        (np.array([0.5, np.nan, 0.5]), f"{option} holds NaN or infinite values"),
    ):
        with pytest.raises(InputError, match=message):
            method(logits_of, IMAGES, 1, **{option: colour})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 7}, r"grid is 7 for images of shape \(2, 8, 6, 3\)"),
        ({"on_share": 2.0}, "on_share is 2.0: expected a share"),
    ],
)
def test_mask_chains_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        attribution.mask_estimation(logits_of, IMAGES, steps=2, chains=1, **options)
