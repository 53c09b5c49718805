"""The real-time masker's objective, against values computed by hand."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.models.classifier import OUTPUTS
from saliency_jax.objectives import black_box, terms
from saliency_jax.objectives.black_box import black_box_loss, published

LABELS = jnp.array([0, 2])
REAL = jnp.array([True, False])


@pytest.mark.parametrize(("value", "expected"), [(0, 0.1023), (0.5, 0.8125), (1, 1)])
def test_area_of_constant_masks(value, expected):
    """The author's code gives these; 1.00015 for a mask of ones."""
    masks = jnp.full((2, 8, 6), float(value))
    np.testing.assert_allclose(black_box.area(masks, 0.3, 0.0005), expected, atol=2e-4)
    np.testing.assert_allclose(black_box.area(masks, 1.0, 0.0005), value)


def test_the_area_has_a_finite_gradient_at_zero():
    gradient = jax.grad(lambda m: black_box.area(m, 0.3, 0.0005).sum())(
        jnp.zeros((1, 4, 4))
    )
    np.testing.assert_allclose(gradient, 0.3 * 0.0005**-0.7 / 16, rtol=1e-4)


def test_smoothness_of_ones_is_the_borders():
    """The author's code: 134.4 for a mask of ones at 224 pixels."""
    ones = jnp.ones((1, 224, 224))
    np.testing.assert_allclose(black_box.smoothness(ones, 0.3), 134.4, rtol=1e-5)
    np.testing.assert_allclose(black_box.smoothness(ones, 0.0), 0.0)


def test_smoothness_by_hand():
    mask = jnp.array([[[0.0, 1.0, 0.0], [0.0, 0.5, 0.0]]])
    # Down: 0.25. Across: 1 + 1 + 0.25 + 0.25.
    np.testing.assert_allclose(black_box.smoothness(mask, 0.0), [2.75 / 2])
    # Top 1, bottom 0.25, sides 0.
    np.testing.assert_allclose(black_box.smoothness(mask, 0.4), [(2.75 + 0.5) / 2])


def test_margins():
    logits = jnp.array([[2.0, 5.0, 1.0], [0.0, -1.0, 3.0]])
    np.testing.assert_allclose(
        black_box.margin(logits, LABELS, "softmax"), [2 - 5, 3 - 0]
    )
    np.testing.assert_allclose(black_box.margin(logits, LABELS, "sigmoid"), [2, 3])


def test_log_probabilities():
    logits = jnp.array([[2.0, 5.0, 1.0], [0.0, -1.0, 3.0]])
    softmax = [2 - math.log(sum(map(math.exp, (2, 5, 1)))), None]
    softmax[1] = 3 - math.log(sum(map(math.exp, (0, -1, 3))))
    np.testing.assert_allclose(
        terms.log_probability(logits, LABELS, "softmax"), softmax, rtol=1e-6
    )
    sigmoid = [-math.log(1 + math.exp(-2)), -math.log(1 + math.exp(-3))]
    np.testing.assert_allclose(
        terms.log_probability(logits, LABELS, "sigmoid"), sigmoid, rtol=1e-5
    )


MASKS = jnp.full((2, 4, 4), 0.5)
# Margins 1.5 and 4 where kept, 2 and -3 where removed.
KEPT = jnp.array([[1.5, 0.0, -2.0], [0.0, 0.0, 4.0]])
REMOVED = jnp.array([[2.0, 0.0, -1.0], [3.0, 1.0, 0.0]])


def test_the_authors_loss_by_hand():
    options = published("author")
    loss, parts = black_box_loss(MASKS, KEPT, REMOVED, LABELS, REAL, options)
    # Real: the kept picture wins by more than 1; the removed one should lose by 5.
    # Fake: the kept picture should lose by 1, the removed one should win by 1.
    np.testing.assert_allclose(parts["preserver"], [0.0, 1 + 4])
    np.testing.assert_allclose(parts["destroyer"], [5 + 2, 1 + 3])
    area, border = 0.5005**0.3, 0.3 * 16 * 0.25 / 2
    expected = [
        8 * area + 0.005 * border + 0.3 * preserver + destroyer
        for preserver, destroyer in ((0, 7), (5, 4))
    ]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_the_papers_loss_by_hand():
    options = published("paper")
    loss, parts = black_box_loss(MASKS, KEPT, REMOVED, LABELS, REAL, options)
    kept = math.exp(1.5) / sum(map(math.exp, (1.5, 0, -2)))
    removed = math.exp(2) / sum(map(math.exp, (2, 0, -1)))
    np.testing.assert_allclose(parts["preserver"], [-math.log(kept), 0], rtol=1e-6)
    np.testing.assert_allclose(parts["destroyer"], [removed**0.3, 0], rtol=1e-6)
    expected = [1e-3 * 0.5 - math.log(kept) + 5 * removed**0.3, 1e-3 * 0.5]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_an_inverted_fake_in_the_papers_variant():
    options = dataclasses.replace(published("paper"), fake="inverted")
    _, parts = black_box_loss(MASKS, KEPT, REMOVED, LABELS, REAL, options)
    kept = math.exp(4) / (math.exp(4) + 2)
    removed = 1 / (math.exp(3) + math.exp(1) + 1)
    np.testing.assert_allclose(parts["preserver"][1], -math.log(1 - kept), rtol=1e-5)
    np.testing.assert_allclose(parts["destroyer"][1], (1 - removed) ** 0.3, rtol=1e-5)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_certain_black_box_still_teaches_an_inverted_fake(output):
    """Where what is kept shows the true class beyond any doubt."""
    options = dataclasses.replace(published("paper"), fake="inverted")
    certain = jnp.array([[0.0, 30.0, 0.0], [30.0, 0.0, 0.0]])
    labels, fake = jnp.array([1, 0]), jnp.zeros((2,), bool)
    loss = lambda logits: jnp.sum(
        black_box_loss(MASKS, logits, REMOVED, labels, fake, options, output)[0]
    )
    gradient = jax.grad(loss)(certain)
    np.testing.assert_allclose(gradient[[0, 1], labels], 1.0, rtol=1e-5)


def test_area_only_fakes_leave_the_black_box_alone():
    options = dataclasses.replace(published("author"), fake="area_only")
    fake = jnp.zeros((2,), bool)
    loss = lambda logits: jnp.sum(
        black_box_loss(MASKS, logits, logits, LABELS, fake, options)[0]
    )
    np.testing.assert_array_equal(jax.grad(loss)(KEPT), 0.0)


@pytest.mark.parametrize("variant", black_box.VARIANTS)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("fake", black_box.FAKES)
@pytest.mark.parametrize("certainty", [-1e4, 1e4])
def test_gradients_are_finite_however_certain_the_black_box(
    variant, output, fake, certainty
):
    options = dataclasses.replace(published(variant), fake=fake)
    logits = jnp.zeros((2, 3)).at[jnp.arange(2), LABELS].set(certainty)
    loss = lambda masks, kept, removed: jnp.sum(
        black_box_loss(masks, kept, removed, LABELS, REAL, options, output)[0]
    )
    gradients = jax.grad(loss, argnums=(0, 1, 2))(MASKS, logits, logits)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in gradients)


def test_an_example_does_not_touch_another():
    options = published("author")
    both, _ = black_box_loss(MASKS, KEPT, REMOVED, LABELS, REAL, options)
    for index in range(2):
        one, _ = black_box_loss(
            *(x[index : index + 1] for x in (MASKS, KEPT, REMOVED, LABELS, REAL)),
            options,
        )
        np.testing.assert_allclose(one[0], both[index], rtol=1e-6)


def test_unknown_choices_are_named():
    with pytest.raises(InputError, match="unknown variant 'code'"):
        published("code")
    with pytest.raises(InputError, match="unknown fake 'none'"):
        dataclasses.replace(published("paper"), fake="none")
