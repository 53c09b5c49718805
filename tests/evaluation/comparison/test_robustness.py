"""Maps under attack: what the pass itself must not add."""

import jax
import numpy as np
import pytest

from saliency_jax.evaluation.comparison import passes, robustness_pass
from saliency_jax.evaluation.comparison.contestants import Contestant
from saliency_jax.evaluation.comparison.faithfulness_pass import (
    images_of,
    maps_of_predicted,
)
from saliency_jax.evaluation.comparison.passes import Setting
from saliency_jax.models.classifier import Classifier
from tests.painted import SIZE, paint, source_of

COUNT = 5


def setting_of(batch_size):
    random = np.random.default_rng(0)
    corners = random.integers(0, 8, (COUNT, 2))
    records = [
        paint([x, y, x + 5, y + 7], predicted=n, label=n, boxes=[])
        for n, (x, y) in enumerate(corners.tolist())
    ]
    weights = jax.random.normal(jax.random.key(0), (SIZE * SIZE * 3, 10))
    classifier = Classifier.from_function(lambda x: x.reshape(len(x), -1) @ weights)
    setting = Setting(classifier, SIZE, source_of(records), COUNT, batch_size, 1, 0, {})
    return setting._replace(answers=passes.classify(setting))


def red(classifier, batch, targets, key):
    return np.asarray(batch["image"], np.float32)[..., 0]


@pytest.mark.parametrize("size", [8, SIZE, 24])
def test_images_that_nobody_attacked_have_the_same_maps(size):
    """Also those of a masker that is shown images of a size of its own."""
    setting, contestant = setting_of(2), Contestant("red", "masker", red, size)
    maps = maps_of_predicted(contestant, setting, COUNT)["maps"]
    images = images_of(setting, COUNT).astype(np.float32) / 255
    found = robustness_pass.measure(contestant, setting, maps, images)
    for name in ("attacked_rank", "attacked_ssim"):
        np.testing.assert_allclose(found[name], np.ones(COUNT), atol=1e-5)


def test_the_attack_does_not_depend_on_the_batch_size():
    one, other = (robustness_pass.attack(setting_of(n), COUNT) for n in (2, 4))
    np.testing.assert_allclose(one["images"], other["images"], atol=1e-6)
