"""What the classifier answers, where several classes are in an image."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from saliency_jax.evaluation.comparison import localisation_pass, passes
from saliency_jax.evaluation.comparison.contestants import Contestant
from saliency_jax.evaluation.comparison.localisation_pass import BoxRule
from saliency_jax.evaluation.comparison.passes import Setting
from saliency_jax.models.classifier import Classifier
from saliency_jax.training.evaluators import top_hits
from tests.painted import SIZE, paint, source_of

LOGITS = np.float32([[3, 2, 0, 1, -1, -1, -1, -1, -1, -1]])


def answers_of(others):
    record = paint([0, 0, 4, 4], predicted=0, label=1, boxes=[])
    source = source_of([record])
    if others is not None:
        record["other_labels"] = np.array(others)
        source = dataclasses.replace(source, has_several_labels=True)
    classifier = Classifier.from_function(lambda x: jnp.tile(LOGITS, (len(x), 1)))
    setting = Setting(classifier, SIZE, source, 1, 1, 1, 0, {})
    return passes.classify(setting)


def test_exclusive_edges_are_read_as_inclusive_ones():
    box = [2, 4, 10, 12]
    source = source_of([paint(box, predicted=0, label=1, boxes=[box])])
    for exclusive, expected in ((False, box), (True, [2, 4, 9, 11])):
        filed = dataclasses.replace(source, upright=exclusive)
        (batch,) = Setting(None, SIZE, filed, 1, 1, 1, 0, {}).batches(SIZE, 1)
        assert batch["boxes_pixels"][0, 0].tolist() == box
        assert batch["boxes_inclusive"][0].tolist() == [expected, [-1] * 4]


def test_a_mask_that_is_the_object_hits_wholly_by_either_convention():
    box = [2, 4, 10, 12]
    source = source_of([paint(box, predicted=1, label=1, boxes=[box])])
    source = dataclasses.replace(source, upright=True)
    classifier = Classifier.from_function(lambda x: jnp.zeros((len(x), 10)))
    setting = Setting(classifier, SIZE, source, 1, 1, 1, 0, {})
    red = lambda classifier, batch, *_: np.float32(batch["image"][..., 0] / 255)
    contestant = Contestant("red", "method", red, SIZE, is_mask=True)
    for convention in ("inclusive", "casm"):
        rule = BoxRule("value", convention, False)
        found = localisation_pass.measure(contestant, setting, rule)
        assert found["iou"].max() == 1 and found["energy"].tolist() == [1]


def test_another_class_that_is_there_is_no_rival():
    """As `evaluate.py --workdir` counts it."""
    assert answers_of(None)["rank"].tolist() == [1]
    found = answers_of([0])
    assert found["rank"].tolist() == [0] and found["predicted"].tolist() == [0]
    present = np.isin(np.arange(10), [0, 1])[None]
    assert top_hits(LOGITS, np.array([1]), present)[0, 0]
    assert answers_of([2])["rank"].tolist() == [1]
