"""The judges' answers, from classifiers that can be worked out by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from saliency_jax.data import pipeline
from saliency_jax.errors import InputError
from saliency_jax.evaluation import judging
from saliency_jax.evaluation.judges import Judge
from saliency_jax.inpainting import inpaint_telea
from saliency_jax.metrics.localisation import VARIANTS, binarise_quantile
from saliency_jax.models.classifier import Classifier
from tests.painted import SIZE, paint, painted_masker, source_of

BOX = [2, 4, 10, 12]  # a quarter of the image
EVERYTHING = [0, 0, SIZE, SIZE]
NOTHING = [0, 0, 0, 0]
GREY = 0.5  # of the removed pixels
RECORDS = [
    paint(BOX, predicted=9, label=0, boxes=[BOX]),
    paint(BOX, predicted=0, label=2, boxes=[]),
    paint([0, 0, 4, 4], predicted=3, label=1, boxes=[[0, 0, 3, 3], BOX]),
    paint([3, 2, 16, 9], predicted=255, label=2, boxes=[BOX]),
    paint(BOX, predicted=0, label=0, boxes=[EVERYTHING]),
]


class Colour(nn.Module):
    """Three classes: how red, green and blue an image is on average."""

    @nn.compact
    def __call__(self, images, train):
        gain = self.param("gain", nn.initializers.ones, ())
        return gain * images.mean(axis=(1, 2)), ()


class Pattern(nn.Module):
    """Three classes by a few random filters: where pixels are matters."""

    @nn.compact
    def __call__(self, images, train):
        maps = nn.relu(nn.Conv(8, (5, 5), strides=3)(images))
        return nn.Dense(3)(maps.reshape(len(images), -1)), ()


class Side(nn.Module):
    """The class is 2 for images of 8 pixels a side, else 0."""

    def __call__(self, images, train):
        index = 2 if images.shape[1] == 8 else 0
        return jnp.tile(20.0 * jax.nn.one_hot(index, 3), (len(images), 1)), ()


def colour(gain=4.0, mean=3 * (0.0,), std=3 * (1.0,), size=SIZE):
    return judge_of({"params": {"gain": jnp.array(gain)}}, Colour(), mean, std, size)


def judge_of(variables, module, mean=3 * (0.0,), std=3 * (1.0,), size=SIZE):
    return Judge("nowhere", Classifier(variables, module, mean, std), size)


def masker():
    made = painted_masker()
    return made.replace(classifier=made.classifier.replace(mean=3 * (GREY,)))


def judged(judges, records=RECORDS, batch_size=2, variant="author"):
    batches = pipeline.eval_batches(
        source_of(records), batch_size=batch_size, image_size=SIZE
    )
    return judging.judge_masks(
        masker(),
        judges,
        batches,
        len(records),
        batch_size,
        variant=variant,
        row="casm",
        mean=masker().classifier.mean,
    )


def assert_answers(answers, logits, labels):
    logits = np.asarray(logits, float)
    log_p = special.log_softmax(logits, axis=1)
    np.testing.assert_array_equal(answers.correct, logits.argmax(axis=1) == labels)
    np.testing.assert_allclose(
        answers.cross_entropy, -log_p[np.arange(len(labels)), labels], rtol=1e-3
    )
    np.testing.assert_allclose(
        answers.entropy, -(np.exp(log_p) * log_p).sum(axis=1), rtol=1e-3
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_by_hand(variant):
    # red inside the box, a quarter of the image, and 51/255 of blue everywhere
    record = paint(BOX, predicted=51, label=0, boxes=[BOX])
    answers = judged({"colour": colour()}, [record], variant=variant).answers
    inside, outside = np.array([1, 0, 0.2]), np.array([0, 0, 0.2])
    for picture, pooled in {
        ("image", "clean"): inside / 4 + outside * 3 / 4,
        ("casm", "masked_in"): inside / 4 + GREY * 3 / 4,
        ("casm", "masked_out"): outside * 3 / 4 + GREY / 4,
        ("casm", "inpainted"): outside,
        ("whole_image", "masked_in"): inside / 4 + outside * 3 / 4,
        ("whole_image", "masked_out"): np.full(3, GREY),
        ("whole_image", "inpainted"): np.full(3, 128 / 255),
        ("ground_truth_box", "masked_in"): inside / 4 + GREY * 3 / 4,
        ("ground_truth_box", "masked_out"): outside * 3 / 4 + GREY / 4,
        # [2, 14) a side: three quarters of the side, with all of the box
        ("center_box", "masked_in"): inside / 4 + outside * 20 / 64 + GREY * 28 / 64,
        ("center_box", "masked_out"): outside * 28 / 64 + GREY * 36 / 64,
    }.items():
        assert_answers(answers[picture]["colour"], [4.0 * pooled], [0])


def test_a_sigmoids_classes_are_independent():
    record = paint(EVERYTHING, predicted=51, label=2, boxes=[])
    judge = colour()
    judge = judge._replace(classifier=judge.classifier.replace(output="sigmoid"))
    everything = judged({"colour": judge}, [record])
    answers = everything.answers["image", "clean"]["colour"]
    p = special.expit(4.0 * np.array([1, 0, 0.2]))
    np.testing.assert_allclose(answers.cross_entropy, [-np.log(p[2])], rtol=1e-3)
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum()
    np.testing.assert_allclose(answers.entropy, [entropy], rtol=1e-3)
    assert answers.correct.tolist() == [True]  # though red is likelier
    table = judging.tabulate(everything, 3)["colour"]["image"]["clean"]
    assert table["entropy_interval"] == (0, pytest.approx(3 * np.log(2)))


def test_each_judge_has_its_own_normalisation():
    record = paint(EVERYTHING, predicted=51, label=2, boxes=[])
    mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 0.1)
    judges = {"plain": colour(1.0), "own": colour(1.0, mean, std)}
    clean = judged(judges, [record]).answers[judging.CLEAN]
    assert_answers(clean["plain"], [[1, 0, 0.2]], [2])
    assert_answers(clean["own"], [[1, -1, 2]], [2])


def test_each_judge_is_shown_its_own_size():
    judges = {
        "large": judge_of({}, Side()),
        "small": judge_of({}, Side(), size=8),
        # what a picture is on average hardly depends on its size
        "colour": colour(),
        "small colour": colour(size=8),
    }
    for of_judges in judged(judges).answers.values():
        assert (of_judges["large"].cross_entropy > 19).sum() == 3
        assert (of_judges["small"].cross_entropy > 19).sum() == 3
        np.testing.assert_array_equal(
            of_judges["small"].correct, [False, True, False, True, False]
        )
        np.testing.assert_allclose(
            of_judges["colour"].cross_entropy,
            of_judges["small colour"].cross_entropy,
            rtol=0.03,
        )


@pytest.fixture(scope="module")
def pattern():
    variables = Pattern().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)), False)
    return judge_of(variables, Pattern(), (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))


def test_agrees_with_one_image_at_a_time(pattern):
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 256, (7, SIZE, SIZE, 3), np.uint8)
    batch = {
        "image": noisy,
        "label": rng.integers(0, 3, 7).astype(np.int32),
        "valid": np.ones(7, bool),
        "boxes_pixels": np.tile(np.int32(BOX), (7, 1, 1)),
        "original_size": np.full((7, 2), SIZE, np.int32),
    }
    answers = judging.judge_masks(
        masker(),
        {"pattern": pattern},
        [batch],
        7,
        7,
        variant="author",
        row="casm",
        mean=masker().classifier.mean,
    ).answers
    for index, (image, label) in enumerate(zip(noisy, batch["label"], strict=True)):
        unit = image / 255
        kept = binarise_quantile(np.float32(unit[None, ..., 0]))[0]
        for edit, shown in {
            "masked_in": np.where(kept[..., None], unit, GREY),
            "masked_out": np.where(kept[..., None], GREY, unit),
            "inpainted": inpaint_telea(image, kept, 3 * (GREY,)) / 255,
        }.items():
            logits = pattern.classifier(jnp.asarray(shown[None], jnp.float32))
            one = [values[[index]] for values in answers["casm", edit]["pattern"]]
            assert_answers(judging.judgement.Answers(*one), logits, np.array([label]))


def test_a_full_mask_keeps_and_an_empty_one_removes_nothing(pattern):
    full = paint(EVERYTHING, predicted=7, label=1, boxes=[])
    empty = paint(NOTHING, predicted=7, label=1, boxes=[])
    answers = judged({"pattern": pattern}, [full, empty]).answers

    def entropies(row, edit):
        return answers[row, edit]["pattern"].entropy

    clean, whole = entropies("image", "clean"), entropies("whole_image", "masked_in")
    np.testing.assert_array_equal(whole, clean)
    assert entropies("casm", "masked_in")[0] == clean[0]
    for edit in ("masked_out", "inpainted"):
        assert entropies("casm", edit)[1] == clean[1]
        np.testing.assert_array_equal(entropies("ground_truth_box", edit), clean)
    # nothing shows through: both images are the mean colour, rounded or not
    grey = entropies("whole_image", "masked_out")
    assert grey[0] == grey[1] == entropies("casm", "masked_out")[0]
    assert entropies("casm", "masked_in")[1] == grey[0] != clean[0]
    np.testing.assert_allclose(entropies("whole_image", "inpainted"), grey, rtol=0.02)


def test_answers_do_not_depend_on_the_batch_size(pattern):
    judges = {"pattern": pattern, "colour": colour()}
    expected = judged(judges, batch_size=1)
    for size in (2, 4, 8):
        got = judged(judges, batch_size=size)
        np.testing.assert_array_equal(got.has_box, [True, False, True, True, True])
        assert list(got.answers) == list(expected.answers)
        for picture, of_judges in expected.answers.items():
            for name, answers in of_judges.items():
                for want, have in zip(answers, got.answers[picture][name], strict=True):
                    assert len(have) == len(RECORDS)
                    np.testing.assert_allclose(have, want, rtol=1e-4)


def test_images_without_a_box_are_left_out_of_its_row_alone():
    table = judging.tabulate(judged({"colour": colour()}), 3)["colour"]
    counts = {
        row: figures["images"]
        for row, edits in table.items()
        for figures in edits.values()
    }
    assert counts == {
        "image": 5,
        "casm": 5,
        "whole_image": 5,
        "center_box": 5,
        "ground_truth_box": 4,
    }
    areas = {
        row: edits["masked_in"]["mask_area"]
        for row, edits in table.items()
        if row != "image"
    }
    assert areas == pytest.approx(
        {
            "casm": (3 * 64 + 16 + 13 * 7) / 5 / SIZE**2,
            "whole_image": 1,
            "center_box": 144 / SIZE**2,
            # of the two boxes of the third image the larger one
            "ground_truth_box": (3 * 64 + 256) / 4 / SIZE**2,
        }
    )
    without = judging.tabulate(judged({"colour": colour()}, RECORDS[1:2]), 3)["colour"]
    assert list(without) == ["image", "casm", "whole_image", "center_box"]
    assert list(without["casm"]) == ["masked_in", "masked_out", "inpainted"]


def test_judges_of_one_architecture_compile_once():
    judging.answer.clear_cache()
    judged({"first": colour(1.0), "second": colour(2.0), "third": colour(3.0)})
    assert judging.answer._cache_size() == 1


def test_a_diverged_judge_is_named():
    judges = {"good": colour(), "bad": colour(jnp.nan)}
    with pytest.raises(InputError, match="logits of judge bad are not finite"):
        judged(judges)
