"""Attacks: captum's vectors, the ball, the bounds, and what moves a classifier."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.synthesis.adversarial import (
    fgsm,
    from_ball,
    into_ball,
    lengths,
    pgd,
)
from tests.attribution.small_network import classifier, images

WEIGHTS = np.array([[1.0, -2.0, 0.0], [-1.0, 0.5, 0.0]], np.float32)


def as_images(*rows):
    """Vectors as images of one row and one channel."""
    return jnp.asarray(rows, jnp.float32)[:, None, :, None]


def linear(images):
    return images.reshape(len(images), -1) @ WEIGHTS.T


def hinge(images):
    """captum's `1 - ReLU(1 - x)`, whose values are taken for probabilities."""
    return 1 - jax.nn.relu(1 - images.reshape(len(images), -1))


def minus_log(outputs, labels):
    return -jnp.log(jnp.take_along_axis(outputs, labels[:, None], axis=1)[:, 0])


@pytest.mark.parametrize(
    ("x", "label", "options", "expected"),
    [
        ((2, -9, 9, 1, -3), 1, {"epsilon": 0.1}, (2, -8.9, 9, 1, -3)),
        (
            (9, 10, -6, -1),
            3,
            {"epsilon": 0.2, "targeted": True},
            (9, 10, -6, -1.2),
        ),
        (
            (9, 10, -6, -1),
            3,
            {"epsilon": 0.2, "targeted": True, "bounds": (-5.0, 5.0)},
            (5, 5, -5, -1.2),
        ),
    ],
)
def test_captum_vectors(x, label, options, expected):
    options = {"bounds": None, **options}
    attacked = fgsm(hinge, as_images(x), label, loss=minus_log, **options)
    np.testing.assert_allclose(attacked, as_images(expected), rtol=1e-6)


def test_a_pixel_without_gradient_does_not_move_and_the_others_move_by_epsilon():
    x = as_images((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    attacked = fgsm(linear, x, np.array([0, 1]), epsilon=0.1)
    # Away from class 0 is down in the first pixel, where its weight is greater.
    expected = as_images((0.4, 0.6, 0.5), (0.6, 0.4, 0.5))
    np.testing.assert_allclose(attacked, expected, rtol=1e-6)
    towards = fgsm(linear, x, np.array([1, 0]), epsilon=0.1, targeted=True)
    np.testing.assert_allclose(towards, expected, rtol=1e-6)


def test_epsilon_is_of_pixels_whatever_the_normalisation():
    x = as_images((0.2, 0.4, 0.6))
    scaled = Classifier.from_function(linear, mean=(0.3,), std=(0.01,))
    attacked = fgsm(scaled, x, 0, epsilon=0.03)
    np.testing.assert_allclose(np.abs(attacked - x)[..., :2, 0], 0.03, rtol=1e-5)


def test_images_stay_in_their_bounds_and_bytes_are_taken():
    pixels = np.array([[[[0], [255], [128]]]], np.uint8)
    attacked = np.asarray(fgsm(linear, pixels, 0, epsilon=0.5))
    np.testing.assert_allclose(attacked.ravel(), (0, 1, 128 / 255), rtol=1e-6)
    free = np.asarray(fgsm(linear, pixels, 0, epsilon=0.5, bounds=None))
    np.testing.assert_allclose(free.ravel(), (-0.5, 1.5, 128 / 255), rtol=1e-6)


def test_without_labels_the_predicted_class_is_attacked():
    model, batch = classifier(), images(3)
    predicted = np.asarray(model(batch)).argmax(axis=1)
    np.testing.assert_array_equal(
        fgsm(model, batch), fgsm(model, batch, predicted, batch_size=2)
    )


def test_a_sigmoid_of_the_class_alone_is_attacked():
    """By a softmax the other class's weights would count."""
    x = as_images((0.5, 0.5, 0.5))
    several = Classifier.from_function(
        lambda x: linear(x) * jnp.array([[1.0, 100.0]]),
        mean=(0.0,),
        std=(1.0,),
        output="sigmoid",
    )
    moves = pgd(several, x, 0, epsilon=0.1, norm="l2", random_start=False) - x
    np.testing.assert_allclose(
        np.ravel(moves), -0.1 * WEIGHTS[0] / np.linalg.norm(WEIGHTS[0]), rtol=1e-5
    )


def test_one_step_of_pgd_from_the_image_is_fgsm():
    model, batch, labels = classifier(), images(3), np.array([0, 4, 2])
    options = {"steps": 1, "step_size": 0.02, "random_start": False}
    np.testing.assert_allclose(
        pgd(model, batch, labels, epsilon=0.02, **options),
        fgsm(model, batch, labels, epsilon=0.02),
        atol=1e-6,
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_stays_in_its_ball_and_raises_the_loss_more_than_fgsm(norm):
    model, batch, labels = classifier(), images(4), np.array([0, 4, 2, 1])
    epsilon = 0.05 if norm == "linf" else 1.0
    options = {"epsilon": epsilon, "norm": norm, "key": jax.random.key(5)}
    attacked = pgd(model, batch, labels, **options)
    moves = attacked - batch
    sizes = np.abs(moves).max((1, 2, 3)) if norm == "linf" else lengths(moves).ravel()
    assert np.all(sizes <= epsilon * 1.0001) and np.all(sizes > 0.8 * epsilon)
    assert attacked.min() >= 0 and attacked.max() <= 1

    losses = lambda x: minus_log(jax.nn.softmax(model(x)), jnp.asarray(labels))
    assert np.all(losses(attacked) > losses(batch))
    if norm == "linf":
        once = fgsm(model, batch, labels, epsilon=epsilon)
        assert np.sum(losses(attacked)) > np.sum(losses(once))
    wanted = pgd(model, batch, labels, targeted=True, **options)
    assert np.all(losses(wanted) < losses(batch))


def test_a_start_depends_on_its_number_alone():
    model, batch, labels = classifier(), images(3), np.array([0, 4, 2])
    options = {"key": jax.random.key(3), "steps": 2}
    whole = pgd(model, batch, labels, **options)
    parts = pgd(model, batch, labels, batch_size=2, **options)
    np.testing.assert_allclose(whole, parts, atol=1e-6)
    first = pgd(model, batch[:1], labels[:1], **options)
    np.testing.assert_allclose(whole[:1], first, atol=1e-6)
    last = pgd(model, batch[2:], labels[2:], places=np.array([2]), **options)
    np.testing.assert_allclose(whole[2:], last, atol=1e-6)
    other = pgd(model, batch, labels, key=jax.random.key(4), steps=2)
    assert np.abs(whole - other).max() > 1e-4


def test_points_of_a_ball_are_uniform():
    """In three dimensions a share of r^3 lies within r; in a cube all is alike."""

    def draw(norm, seed):
        keys = jax.random.split(jax.random.key(seed), 4000)
        return jax.vmap(lambda key: from_ball(key, (1, 1, 3), norm))(keys)

    points = np.asarray(draw("l2", 0)).reshape(-1, 3)
    radii = np.linalg.norm(points, axis=1)
    assert radii.max() <= 1
    for radius in (0.5, 0.8, 0.95):
        assert abs(np.mean(radii < radius) - radius**3) < 0.025
    assert np.abs(points.mean(axis=0)).max() < 0.03
    cube = np.asarray(draw("linf", 1)).reshape(-1, 3)
    assert abs(cube.std() - 1 / np.sqrt(3)) < 0.01 and np.abs(cube).max() <= 1


def test_the_nearest_point_of_a_ball():
    x = as_images((3.0, 4.0), (0.3, 0.4))
    np.testing.assert_allclose(
        into_ball(x, jnp.float32(1), "l2"), as_images((0.6, 0.8), (0.3, 0.4)), rtol=1e-6
    )
    np.testing.assert_allclose(
        into_ball(x, jnp.float32(3.5), "linf"), as_images((3, 3.5), (0.3, 0.4))
    )
    assert np.all(into_ball(0 * x, jnp.float32(1), "l2") == 0)


def test_inside_a_users_jit():
    model, batch, labels = classifier(), images(2), np.array([0, 4])
    attack = jax.jit(lambda model, x: fgsm(model, x, labels))
    np.testing.assert_allclose(
        attack(model, batch), fgsm(model, batch, labels), atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targeted": True}, "a targeted attack needs labels"),
        ({"labels": 7}, "target 7: the classifier knows classes 0 to 1"),
        ({"epsilon": -0.1}, "epsilon is -0.1: it must be at least 0"),
        ({"bounds": (1.0, 0.0)}, r"bounds=\(1.0, 0.0\): expected the lower"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    for attack in (fgsm, pgd):
        with pytest.raises(InputError, match=message):
            attack(linear, as_images((0.5, 0.5, 0.5)), **options)


def test_an_unknown_norm_is_refused():
    with pytest.raises(InputError, match="norm"):
        inspect.unwrap(pgd)(linear, as_images((0.5, 0.5, 0.5)), 0, norm="l1")
