"""The scoring pass with a masker that shows the evidence of a class."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.data import pipeline
from saliency_jax.evaluation.explainers import trained
from saliency_jax.evaluation.judging import judge_masks
from saliency_jax.evaluation.scoring import score_masks
from saliency_jax.evaluation.showing import show
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.selective_masker import SelectiveDecoder, SelectiveMasker
from saliency_jax.saliency import Masker, saliency_fn
from tests.painted import SIZE, PaintedClass, paint, source_of

BOX = [2, 4, 10, 12]
RECORDS = [
    paint(BOX, predicted=0, label=3, boxes=[BOX]),
    paint(BOX, predicted=3, label=3, boxes=[BOX]),
    paint([0, 0, 16, 9], predicted=3, label=7, boxes=[]),
]


class Encoder(nn.Module):
    """Four maps, each half as large as the one before."""

    @nn.compact
    def __call__(self, images, train):
        maps = []
        for features in (4, 4, 4, 8):
            images = nn.relu(nn.Conv(features, (3, 3), 2)(images))
            maps.append(images)
        return images.mean(axis=(1, 2)), tuple(maps)


@pytest.fixture(scope="module")
def masker():
    """A masker of ten classes whose selector tells them apart."""
    module = SelectiveMasker(Encoder(), SelectiveDecoder(10, base=4))
    black_box = Classifier({}, PaintedClass(), 3 * (0.0,), 3 * (1.0,))
    images, labels = jnp.zeros((1, SIZE, SIZE, 3)), jnp.zeros(1, int)
    init = jax.jit(module.init, static_argnums=3)
    variables = init(jax.random.key(1), images, labels, False)
    selector = variables["params"]["decoder"]["selector"]
    selector["embedding"] = 50 * selector["embedding"]
    return Masker(variables, black_box, module)


def batches(size=2):
    return pipeline.eval_batches(source_of(RECORDS), batch_size=size, image_size=SIZE)


@pytest.fixture(scope="module")
def expected(masker):
    """Masks of the true classes, and of the ones that are predicted."""
    (batch,) = batches(len(RECORDS))
    true = saliency_fn(masker, batch["image"], batch["label"])
    predicted = saliency_fn(masker, batch["image"])
    apart = np.abs(true - predicted).max(axis=(1, 2))
    assert apart[0] > 0.01 and apart[1] == 0 and apart[2] > 0.01
    return np.asarray(true)


def test_the_true_class_is_asked_for(masker, expected):
    count, predict = len(RECORDS), trained(masker, SIZE).predict
    outcome = score_masks(
        predict, batches(), count, 2, variant="real_time", row="black_box"
    )
    assert next(iter(outcome.measured)) == "black_box"
    np.testing.assert_allclose(
        outcome.measured["black_box"].statistics.area,
        expected.mean(axis=(1, 2)),
        rtol=1e-4,
    )
    np.testing.assert_array_equal(outcome.labels, [3, 3, 7])
    # of the black box, whatever the masker is asked for
    np.testing.assert_array_equal(outcome.top_hits[:, 0], [False, True, False])


def test_pictures_show_the_true_class(masker, expected):
    shown = show(masker, source_of(RECORDS), {"grid": [2, 0]}, SIZE)["grid"]
    for one, index in zip(shown, (2, 0), strict=True):
        np.testing.assert_allclose(one.mask, expected[index], atol=1e-5)


def test_judges_are_shown_the_true_class(masker, expected):
    judged = judge_masks(
        masker,
        {},
        batches(),
        len(RECORDS),
        2,
        variant="real_time",
        row="black_box",
        mean=masker.classifier.mean,
    )
    np.testing.assert_allclose(
        judged.areas["black_box"], (expected > 0.5).mean(axis=(1, 2)), atol=1e-2
    )
    assert "casm" not in judged.areas
