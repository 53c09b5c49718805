"""Infidelity: none for a linear model's perfect maps, twins in NumPy, its scaling."""

import jax
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.faithfulness.infidelity import infidelity, square
from tests.metrics.faithfulness import linear_classifier as linear


def ask(maps, perturbation, **options):
    return infidelity(
        linear.classifier(),
        linear.IMAGES,
        maps,
        linear.TARGETS,
        perturbation=perturbation,
        **options,
    )


@pytest.mark.parametrize(
    ("perturbation", "perfect"),
    [("square", linear.contributions()), ("gaussian", linear.gradients())],
)
def test_a_perfect_map_of_a_linear_model(perturbation, perfect):
    found = ask(perfect, perturbation, samples=30)
    np.testing.assert_allclose(found.infidelity, np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(found.scaled, np.zeros(3), atol=1e-6)
    for scale in (1e-20, 1e20):  # whose squares are no float32
        other = ask(np.float32(scale) * perfect, perturbation, samples=30)
        np.testing.assert_allclose(other.scaled, np.zeros(3), atol=1e-6)
    # Three times too much, with the wrong sign: f - 3 f is off by 4 of f.
    wrong = ask(-3 * perfect, perturbation, samples=30)
    falls = ask(np.zeros_like(perfect), perturbation, samples=30)
    assert falls.infidelity.min() > 0.01
    np.testing.assert_allclose(wrong.infidelity, 16 * falls.infidelity, rtol=1e-4)
    np.testing.assert_allclose(wrong.scaled, np.zeros(3), atol=1e-5)
    np.testing.assert_array_equal(falls.scaled, falls.infidelity)


def test_grey_weights_against_a_noisy_baseline():
    """Where all channels have one weight, the mean of the edit is all that counts."""
    weights = (
        np.repeat(linear.WEIGHTS[:, :, :1], 3, axis=2) * np.asarray(linear.STD)[:, None]
    )
    maps = 3 * np.moveaxis(linear.WEIGHTS[:, :, 0, linear.TARGETS], -1, 0)
    found = infidelity(
        linear.classifier(weights),
        linear.IMAGES,
        maps,
        linear.TARGETS,
        perturbation="noisy_baseline",
    )
    np.testing.assert_allclose(found.infidelity, np.zeros(3), atol=1e-6)


jitted_square = jax.jit(square, static_argnames="size")


def numpy_edit(perturbation, key, image):
    """The edited image, and what is multiplied by the map."""
    if perturbation == "gaussian":
        noise = 0.2 * np.asarray(jax.random.normal(key, linear.SIZE))
        noise = np.minimum(np.maximum(noise, image.max(axis=-1) - 1), image.min(-1))
        return image - noise[..., None], noise
    if perturbation == "noisy_baseline":
        noise = 0.2 * np.asarray(jax.random.normal(key, image.shape))
        edited = np.clip(np.asarray(linear.MEAN) + noise, 0, 1)
        return edited, (image - edited).mean(axis=-1)
    inside = np.asarray(jitted_square(key, linear.SIZE))
    return np.where(inside[..., None], np.asarray(linear.MEAN), image), 1.0 * inside


@pytest.mark.parametrize("perturbation", ["square", "gaussian", "noisy_baseline"])
def test_twin(perturbation):
    key = jax.random.key(7)
    found = ask(linear.MAPS, perturbation, samples=6, key=key)
    for i, (image, map_, target) in enumerate(
        zip(linear.IMAGES, linear.MAPS, linear.TARGETS, strict=True)
    ):
        edits = [
            numpy_edit(perturbation, jax.random.fold_in(key, sample), image)
            for sample in range(6)
        ]
        edited, weights = (np.stack(x) for x in zip(*edits, strict=True))
        assert 0 <= edited.min() and edited.max() <= 1
        before = linear.logits(image[None])[0, target]
        falls = before - linear.logits(edited)[:, target]
        foretold = (weights * map_).sum(axis=(1, 2))
        expected = np.mean((foretold - falls) ** 2)
        np.testing.assert_allclose(found.infidelity[i], expected, rtol=1e-4)
        # The least squares' residual, by another way.
        residual = np.linalg.lstsq(foretold[:, None], falls, rcond=None)[1][0]
        np.testing.assert_allclose(found.scaled[i], residual / 6, rtol=1e-3)


def test_squares():
    draw = jax.jit(jax.vmap(lambda key: square(key, (28, 40))))
    squares = np.asarray(draw(jax.random.split(jax.random.key(0), 1000)))
    rows, columns = (squares.any(axis=axis) for axis in (2, 1))
    height, width = rows.sum(axis=1), columns.sum(axis=1)
    np.testing.assert_array_equal(height, width)
    np.testing.assert_array_equal(squares.sum(axis=(1, 2)), height * width)
    sides, counts = np.unique(height, return_counts=True)
    np.testing.assert_array_equal(sides, np.arange(1, 11))
    assert counts.min() > 60
    # Squares reach all borders.
    assert rows[:, [0, -1]].any(axis=0).all()
    assert columns[:, [0, -1]].any(axis=0).all()


def test_errors():
    with pytest.raises(InputError, match="samples is 0: it must be at least 1"):
        ask(linear.MAPS, "square", samples=0)
