"""The original code's defects, which must not come back: one test for each row.

The rows are those of the table of faults that were found in casme and its successor.
The eleventh (an option of theirs that took a colour for a boolean, a wrong help text)
has no counterpart here: there is no grey fill and no such option.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.evaluation import rules
from saliency_jax.masking import masked_out, mean_infill
from saliency_jax.models.classifier import Classifier, normalise
from saliency_jax.objectives import casm
from saliency_jax.report.figures import masked_pair
from saliency_jax.saliency import Masker
from saliency_jax.training import evaluators
from tests.training import casm_reference, tiny


def leaves_equal(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def historic_step(state, batch=None):
    """A step against a past classifier, with the published kind of settings."""
    batch = tiny.batch() if batch is None else batch
    return tiny.jitted_step(thinning="L100")(state, batch, historic=True)


def current_step(state, batch=None):
    batch = tiny.batch() if batch is None else batch
    return tiny.jitted_step()(state, batch, historic=False)


def with_running_statistics(state, factor):
    """The state with other running statistics of the masker."""
    moved = jax.tree.map(lambda x: factor * x, state.masker.batch_stats)
    return tiny.replaced(state, masker={"batch_stats": moved})


def test_row_1_the_gate_is_an_and_and_the_regulariser_is_not_zero():
    """Booleans summed and compared with 2 are never equal in a later PyTorch."""
    right, wrong = [5.0, 0.0], [0.0, 5.0]
    _, area, counted = casm.masker_loss(
        jnp.array([right, wrong, right, wrong]),
        jnp.full((4, 2, 2), 0.25),
        jnp.zeros(4, jnp.int32),
        jnp.array([True, True, False, False]),
        score="entropy",
        weight=4.0,
        variant="author",
    )
    assert counted.tolist() == [False, True, False, False]
    np.testing.assert_allclose(area, [0, -3, 0, 0])
    _, metrics = historic_step(tiny.state(pool=tiny.pool_of(1)))
    assert metrics["counted"] > 0 and metrics["masker_area_term"] < 0


def test_row_2_both_gradients_are_taken_at_the_same_weights():
    """The original moved the classifier before it went back through its graph."""
    before, batch = tiny.state(), tiny.batch()
    after, _ = current_step(before, batch)
    chosen = {"module": tiny.DECODER, "fixed": False, "score": "entropy"}
    chosen |= {"variant": "author", "weight": tiny.options().area_weight}
    expected = casm_reference.step(before, batch, None, **chosen)
    for name in ("classifier", "masker"):
        pairs = zip(
            jax.tree.leaves(getattr(after, name).params),
            jax.tree.leaves(expected[name]["params"]),
            strict=True,
        )
        for actual, wanted in pairs:
            np.testing.assert_allclose(actual, wanted, atol=2e-6, rtol=1e-5)


def test_row_3_the_pool_holds_copies():
    """On a CPU the original's snapshots were the live weights."""
    step = jax.jit(
        tiny.jitted_step(thinning="L100").__wrapped__,
        static_argnames="historic",
        donate_argnums=0,
    )
    state = jax.tree.map(jnp.copy, tiny.state(pool=tiny.pool_of(1), step=99))
    given_away = state.classifier.params
    state, _ = step(state, tiny.batch(), historic=True)
    assert jax.tree.leaves(given_away)[0].is_deleted()
    assert state.pool.saved_at.tolist()[2] == -1 and int(state.pool.count) == 2
    # the classifier after the clean update, its parameters and statistics together
    snapshot = jax.tree.map(np.array, state.classifier)
    for _ in range(3):
        state, _ = step(state, tiny.batch(), historic=True)
    for name in ("params", "batch_stats"):
        stored = jax.tree.map(lambda leaf: leaf[1], getattr(state.pool, name))
        assert leaves_equal(stored, getattr(snapshot, name))
        assert not leaves_equal(stored, getattr(state.classifier, name))


def test_row_4_images_are_normalised_everywhere():
    """A normalisation whose result was ignored left evaluation un-normalised."""
    variables = tiny.networks(0)["classifier"]
    model = Classifier(variables, tiny.CLASSIFIER)
    masker = Masker(tiny.networks(0)["masker"], model, tiny.DECODER)
    images = tiny.batch()["image"]
    inputs = (images / 255.0 - casm_reference.MEAN.reshape(1, 1, 1, 3)) / (
        casm_reference.STD.reshape(1, 1, 1, 3)
    )
    logits, taps = tiny.CLASSIFIER.apply(variables, inputs, False)
    masks = tiny.DECODER.apply(masker.variables, taps, (16, 16), False)
    for predicted, expected in zip(
        masker.predict(images), (masks, logits), strict=True
    ):
        np.testing.assert_allclose(predicted, expected, atol=1e-5)
    _, metrics = tiny.jitted_step(thinning="F")(
        tiny.state(), tiny.batch(), historic=False
    )
    clean_loss = casm_reference.cross_entropy(logits, tiny.batch()["label"])
    np.testing.assert_allclose(metrics["clean_loss"], clean_loss, rtol=1e-5)


def test_row_5_the_past_classifier_is_the_critic():
    """The successor's code drew a past classifier and then asked the current one."""
    before = tiny.state(pool=tiny.pool_of(1))
    after, _ = historic_step(before)
    other_past, _ = historic_step(before.replace(pool=tiny.pool_of(2)))
    assert not leaves_equal(after.masker.params, other_past.masker.params)
    # A current classifier that answers differently, by the same maps and with the same
    # clean predictions, changes nothing for the masker.
    fc = jax.tree.map(lambda leaf: 1.5 * leaf, before.classifier.params["fc"])
    sharper = tiny.replaced(
        before, classifier={"params": before.classifier.params | {"fc": fc}}
    )
    other_current, metrics = historic_step(sharper)
    assert metrics["clean_accuracy"] == 5 / 8
    assert leaves_equal(after.masker, other_current.masker)
    # but it does when it is the critic itself
    one, _ = current_step(before.replace(pool=None))
    other, _ = current_step(sharper.replace(pool=None))
    assert not leaves_equal(one.masker.params, other.masker.params)


def test_row_6_batch_statistics_in_training_and_running_ones_afterwards():
    before = tiny.state(pool=tiny.pool_of(1))
    after, metrics = historic_step(before)
    shifted, shifted_metrics = historic_step(with_running_statistics(before, 3.0))
    # training normalises by the batch, whatever the running statistics are
    assert leaves_equal(after.masker.params, shifted.masker.params)
    assert metrics["mask_mean"] == shifted_metrics["mask_mean"]
    for old, new, other_new in zip(
        *map(
            jax.tree.leaves,
            (
                before.masker.batch_stats,
                after.masker.batch_stats,
                shifted.masker.batch_stats,
            ),
        ),
        strict=True,
    ):
        np.testing.assert_allclose(other_new - new, 0.9 * 2 * old, atol=1e-5)
        assert np.abs(new - old).max() > 0.01

    # afterwards the mask of an image does not depend on the other images
    model = Classifier(before.classifier.variables, tiny.CLASSIFIER)
    predict = jax.jit(lambda masker, images: masker.predict(images))
    masker = Masker(before.masker.variables, model, tiny.DECODER)
    images = tiny.batch()["image"]
    others = jnp.roll(images, 3, axis=0)
    together = predict(masker, images)
    for one, other in zip(together, predict(masker, others), strict=True):
        np.testing.assert_allclose(jnp.roll(one, 3, axis=0), other, atol=1e-5)
    changed = predict(masker, images.at[1:].set(255))
    for one, other in zip(together, changed, strict=True):
        np.testing.assert_allclose(one[0], other[0], atol=1e-5)


def test_row_7_the_maskers_objective_does_not_move_the_classifier():
    # against a past classifier: the clean update alone, bit for bit
    before = tiny.state(pool=tiny.pool_of(1))
    after, _ = historic_step(before)
    other_masker = jax.tree.map(lambda leaf: -leaf, before.masker.params)
    other, _ = historic_step(tiny.replaced(before, masker={"params": other_masker}))
    assert leaves_equal(after.classifier, other.classifier)
    assert not leaves_equal(after.masker, other.masker)
    # and it is not a player that stands still
    assert not leaves_equal(after.classifier.params, before.classifier.params)
    # nor does the past one move
    assert leaves_equal(after.pool, before.pool)

    # against the current one: whatever the masker is after
    before = tiny.state()
    entropy, _ = current_step(before)
    classification, _ = tiny.jitted_step(score="classification")(
        before, tiny.batch(), historic=False
    )
    for one, other in zip(
        jax.tree.leaves(entropy.classifier),
        jax.tree.leaves(classification.classifier),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=1e-5)
    assert not leaves_equal(entropy.masker.params, classification.masker.params)


def test_row_8_a_batch_of_one():
    """Squeezed masks and means broke where a batch had one image."""
    one = jax.tree.map(lambda leaf: leaf[:1], tiny.batch())
    after, metrics = current_step(tiny.state(), one)
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))

    boxes = np.array([[[2, 2, 10, 10]]], np.int32)
    batch = {
        "image": np.zeros((1, 16, 16, 3), np.uint8),
        "label": np.array([3]),
        "valid": np.array([True]),
        "boxes_pixels": boxes,
        "original_size": np.array([[16, 16]], np.int32),
    }
    mask = np.zeros((1, 16, 16), np.float32)
    mask[0, 2:10, 2:10] = 1
    logits = np.eye(5, dtype=np.float32)[[3]]
    scores = evaluators.localisation(lambda images, labels: (mask, logits), [batch])
    assert scores["le"] == scores["om"] == 0 and scores["accuracy"] == 1
    assert scores["f1"] == pytest.approx(1, abs=1e-5)
    assert scores["mask_mean"] == 0.25


def test_row_9_one_fill_policy():
    """Mean colour in training, black in evaluation and grey in pictures, once."""
    mean, std = (0.5, 0.25, 0.125), (0.2, 0.3, 0.4)
    everything = jnp.ones((1, 4, 4))
    image = jax.random.uniform(jax.random.key(0), (1, 4, 4, 3))
    hidden = masked_out(image, everything, mean_infill(mean))
    np.testing.assert_allclose(normalise(hidden, mean, std), 0, atol=1e-6)
    pixels = np.round(255 * np.asarray(image[0])).astype(np.uint8)
    _, picture = masked_pair(pixels, np.ones((4, 4), np.float32), mean)
    np.testing.assert_array_equal(picture, np.round(255 * hidden[0]))


def test_row_10_om_is_about_the_runs_own_classifier():
    """OM of different methods compares only if it is said whose answers it counts."""
    mask = np.zeros((2, 16, 16), np.float32)
    mask[:, 2:10, 2:10] = 1
    batch = {
        "image": np.zeros((2, 16, 16, 3), np.uint8),
        "label": np.array([3, 3]),
        "valid": np.array([True, True]),
        "boxes_pixels": np.array([[[2, 2, 10, 10]]] * 2, np.int32),
        "original_size": np.array([[16, 16]] * 2, np.int32),
    }
    answers = np.eye(5, dtype=np.float32)[[3, 4]]  # the classifier beside the masker
    scores = evaluators.localisation(lambda images, labels: (mask, answers), [batch])
    assert (scores["le"], scores["om"]) == (0, 0.5)
    assert "the run's own classifier" in rules.localisation("author")
