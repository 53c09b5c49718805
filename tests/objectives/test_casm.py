"""CASM's objective: hand values, gates, published settings, symmetries, gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from saliency_jax.errors import InputError
from saliency_jax.objectives import casm

LABELS = jnp.array([0, 1, 2, 0])
# The critic's answers to the masked-out images: right, wrong, wrong, right.
CRITIC = jnp.array([[4.0, 0, 1], [2, 0, 1], [0, 3, 1], [1, 0, 0]])
CLEAN_CORRECT = jnp.array([True, True, False, False])
AREAS = (0.3, 0.6, 0.2, 0.9)
SETTINGS = {"weight": 10.0, "variant": "author"}


def masks_of(areas):
    """Masks [B, 10, 10] of those areas."""
    masks = np.zeros((len(areas), 100), np.float32)
    for mask, area in zip(masks, areas, strict=True):
        mask[: round(100 * area)] = 1
    return jnp.asarray(masks.reshape(-1, 10, 10))


def loss(critic, masks, score="entropy", **changed):
    return casm.masker_loss(
        critic, masks, LABELS, CLEAN_CORRECT, score=score, **{**SETTINGS, **changed}
    )


def test_area_term_by_hand():
    # -10 * mean(relu([1, 0] - [0.3, 0.6])) = -10 * 0.7 / 2
    term = casm.area_term(masks_of((0.3, 0.6)), jnp.array([True, False]), 10.0)
    np.testing.assert_allclose(term, [-7.0, 0.0], rtol=1e-6)
    assert float(term.mean()) == pytest.approx(-3.5)


def test_area_is_pushed_down_where_counted_and_left_alone_elsewhere():
    gradient = jax.grad(
        lambda masks: casm.area_term(masks, jnp.array([True, False]), 10.0).sum()
    )(masks_of((0.3, 0.6)))
    np.testing.assert_allclose(gradient[0], np.full((10, 10), 0.1), rtol=1e-6)
    assert not gradient[1].any()


def test_entropy_counts_only_where_the_clean_image_is_right():
    score, _, _ = loss(jnp.zeros((4, 1000)), masks_of(AREAS))
    np.testing.assert_allclose(score, [-6.9078, -6.9078, 0, 0], atol=1e-4)


def test_classification_counts_everywhere():
    score, _, _ = loss(CRITIC, masks_of(AREAS), score="classification")
    z = np.asarray(CRITIC, np.float64)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(score, log_p[range(4), LABELS], rtol=1e-5)
    assert (score < 0).all()  # to minimise it is to make the critic wrong


def test_author_counts_the_area_where_clean_is_right_and_masked_is_wrong():
    _, area, counted = loss(CRITIC, masks_of(AREAS))
    assert counted.tolist() == [False, True, False, False]
    np.testing.assert_allclose(area, [0, -10 * 0.4, 0, 0], rtol=1e-6)


def test_paper_has_no_gates():
    score, area, counted = loss(CRITIC, masks_of(AREAS), variant="paper")
    assert counted.all()
    np.testing.assert_allclose(area, [-7, -4, -8, -1], rtol=1e-5)
    assert (score < 0).all()


@pytest.mark.parametrize(
    ("name", "fixed", "probability", "every", "entropy", "classification"),
    [
        ("F", True, 0.0, 0, 2.5, 9.0),
        ("L", False, 0.0, 0, 14.0, 18.0),
        ("FL", False, 0.5, 0, 7.5, 11.0),
        ("L1000", False, 0.5, 1000, 10.0, 17.0),
        ("L100", False, 0.5, 100, 10.0, 17.0),
    ],
)
def test_published_thinning(name, fixed, probability, every, entropy, classification):
    published = casm.thinning(name)
    assert published == casm.Thinning(
        fixed,
        probability,
        every,
        {"entropy": entropy, "classification": classification},
    )
    assert casm.published_area_weight(name, "entropy") == entropy
    assert casm.published_area_weight(name, "classification") == classification


@pytest.mark.parametrize("name", ["", "l", "L0", "L-1", "L1.5", "LF", "F1", "100"])
def test_unknown_thinning_is_named(name):
    with pytest.raises(InputError, match=f"thinning strategy '{name}'.*L100"):
        casm.thinning(name)


def test_unknown_score_is_named():
    with pytest.raises(InputError, match="score 'entropie'.*entropy"):
        casm.published_area_weight("L", "entropie")


def test_weight_scales_with_the_highest_entropy():
    assert casm.scaled_area_weight(10.0, 1000) == pytest.approx(10.0)
    assert casm.scaled_area_weight(10.0, 100) == pytest.approx(10 * 2 / 3)
    assert casm.scaled_area_weight(9.0, 10) == pytest.approx(3.0)
    assert casm.scaled_area_weight(10.0, 200) == pytest.approx(
        10 * math.log(200) / math.log(1000)
    )


@pytest.mark.parametrize("score", casm.SCORES)
@pytest.mark.parametrize("variant", casm.VARIANTS)
def test_examples_do_not_see_each_other(score, variant):
    order = jnp.array([2, 0, 3, 1])
    masks = masks_of(AREAS)
    straight = loss(CRITIC, masks, score, variant=variant)
    permuted = casm.masker_loss(
        CRITIC[order],
        masks[order],
        LABELS[order],
        CLEAN_CORRECT[order],
        score=score,
        weight=10.0,
        variant=variant,
    )
    for one, other in zip(straight, permuted, strict=True):
        np.testing.assert_array_equal(one[order], other)


@pytest.mark.parametrize("score", casm.SCORES)
def test_gradients_are_those_of_finite_differences(score):
    masks = 0.2 + 0.5 * masks_of(AREAS)

    def total(critic, masks):
        terms = loss(jnp.asarray(critic), jnp.asarray(masks), score)
        return terms[0] + terms[1]

    check_grads(total, (CRITIC, masks), order=1, modes=("rev",), atol=1e-2, rtol=1e-2)
