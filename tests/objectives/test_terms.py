"""Cross-entropy, entropy and correctness, by hand and against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from saliency_jax.objectives import terms

LOGITS = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5], [0.1, 0.6, 0.3]]))
LABELS = jnp.array([0, 1, 2])


def test_cross_entropy_is_minus_the_log_probability_of_the_label():
    expected = -np.log([0.7, 0.25, 0.3])
    np.testing.assert_allclose(terms.cross_entropy(LOGITS, LABELS), expected, rtol=1e-6)
    # a constant added to all logits of an example changes nothing
    np.testing.assert_allclose(
        terms.cross_entropy(LOGITS + 100.0, LABELS), expected, rtol=1e-4
    )


def test_label_smoothing_spreads_its_share_over_all_classes():
    targets = np.full((3, 3), 0.3 / 3) + 0.7 * np.eye(3)
    expected = -(targets * np.asarray(LOGITS)).sum(axis=1)
    actual = terms.cross_entropy(LOGITS, LABELS, 0.3)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


PRESENT = jnp.array([[True, False, True], [False, False, False], [True, True, True]])


def test_binary_cross_entropy_sums_over_the_classes():
    logits = jnp.log(jnp.array([[0.5, 4.0, 1.0], [1.0, 1.0, 1.0], [3.0, 1.0, 9.0]]))
    # Probabilities odds / (1 + odds): 1/3, 4/5, 1/2; halves; 3/4, 1/2, 9/10.
    expected = -np.log([1 / 3 * 1 / 5 * 1 / 2, 1 / 8, 3 / 4 * 1 / 2 * 9 / 10])
    actual = terms.binary_cross_entropy(logits, PRESENT)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    smoothed = terms.binary_cross_entropy(logits[:1], PRESENT[:1], 0.3)
    p, targets = np.array([1 / 3, 4 / 5, 1 / 2]), np.array([0.8, 0.1, 0.8])
    by_hand = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum()
    np.testing.assert_allclose(smoothed, [by_hand], rtol=1e-5)


def test_entropy_of_both_outputs():
    np.testing.assert_allclose(
        terms.entropy(LOGITS, "softmax"), -terms.negative_entropy(LOGITS)
    )
    logits = jnp.array([[0.0, 0.0, 0.0], [500.0, -500.0, 0.0]])
    bits = np.log(2) * np.array([3, 1])
    np.testing.assert_allclose(terms.entropy(logits, "sigmoid"), bits, rtol=1e-6)


def test_any_present_class_is_right():
    assert terms.is_present(LOGITS, PRESENT).tolist() == [True, False, True]


def test_negative_entropy_is_minus_ln_k_where_uniform_and_zero_where_certain():
    uniform = terms.negative_entropy(jnp.zeros((1, 1000)))
    np.testing.assert_allclose(uniform, [-6.9078], atol=1e-4)
    certain = terms.negative_entropy(jnp.array([[1000.0, 0.0, -1000.0]]))
    np.testing.assert_allclose(certain, [0.0], atol=1e-6)
    p = np.exp(np.asarray(LOGITS))
    np.testing.assert_allclose(
        terms.negative_entropy(LOGITS), (p * np.log(p)).sum(axis=1), rtol=1e-6
    )


def test_is_correct_compares_the_highest_logit():
    assert terms.is_correct(LOGITS, LABELS).tolist() == [True, False, False]
    logits = jnp.array([[3.0, 2.0, -1.0], [3.0, 2.0, -1.0], [3.0, 2.0, -1.0]])
    own = terms.is_correct(logits, LABELS, "sigmoid")
    assert own.tolist() == [True, True, False]


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits: terms.cross_entropy(logits, LABELS, 0.1),
        lambda logits: terms.binary_cross_entropy(logits, PRESENT, 0.1),
        lambda logits: terms.entropy(logits, "sigmoid"),
        terms.negative_entropy,
    ],
)
def test_gradients_are_those_of_finite_differences(loss):
    check_grads(
        lambda logits: loss(jnp.asarray(logits)),
        (LOGITS,),
        order=1,
        atol=1e-2,
        rtol=1e-2,
    )


def test_extreme_logits_give_finite_values_and_gradients():
    logits = jnp.array([[1e4, 0.0, -1e4], [-1e4, -1e4, 1e4]])
    labels = jnp.array([2, 0])
    for loss in (lambda x: terms.cross_entropy(x, labels), terms.negative_entropy):
        value, gradient = jax.value_and_grad(lambda x, f=loss: f(x).sum())(logits)
        assert np.isfinite(value) and np.isfinite(gradient).all()
