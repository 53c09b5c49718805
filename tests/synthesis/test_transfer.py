"""Whether what was made against one classifier fools another."""

import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.intervals import wilson_interval
from saliency_jax.models.classifier import Classifier
from saliency_jax.synthesis import attack_command
from saliency_jax.synthesis.adversarial import fgsm
from saliency_jax.synthesis.transfer import rates, try_on_all


def of_channel(channel):
    """Class 1 where a channel is brighter than the middle."""

    def logits(images):
        brightness = images[..., channel].mean((1, 2)) - 0.5
        return jnp.stack([-brightness, brightness], axis=1)

    return Classifier.from_function(logits)


def test_what_is_made_against_one_fools_those_that_look_at_the_same():
    red, again, blue = of_channel(0), of_channel(0), of_channel(2)
    images = np.full((3, 4, 4, 3), 120, np.uint8)
    images[1] = 135
    images[2] = 250
    labels = np.array([0, 1, 0])  # the third one is wrong for all
    found = try_on_all([red, again, blue], images, labels, _by(0.05))
    assert found.right.tolist() == [[True, True, False]] * 3
    # 120 and 135 cross 127.5 within 12.75 steps; blue's own channel does not move.
    assert found.fooled[0].tolist() == [[True, True, True]] * 2 + [[False, False, True]]
    assert found.fooled[2].tolist() == [[False, False, True]] * 2 + [[True, True, True]]
    assert found.attacked.shape == (3, 3, 4, 4, 3)
    weak = try_on_all([red], images, labels, _by(0.01))
    assert weak.fooled[0, 0].tolist() == [False, False, True]


def _by(epsilon, **options):
    return lambda *asked: fgsm(*asked, epsilon=epsilon, **options)


def _brightest(images):
    return images.mean((1, 2)) * 10


def test_targets_are_the_wrong_classes_that_are_least_likely():
    """Class by the brightest channel: the darkest, though the middle is nearer."""
    model = Classifier.from_function(_brightest)
    colours = np.array([[140, 130, 100], [100, 140, 130]], np.uint8)
    images = np.broadcast_to(colours[:, None, None], (2, 4, 4, 3))
    labels = np.array([0, 0])  # of the second one the darkest is the true one
    attack = _by(0.1, targeted=True)
    found = try_on_all([model], images, labels, attack, targeted=True)
    moves = found.attacked[0, :, 0, 0] - colours / 255
    assert (np.argmax(moves, axis=1) == [2, 2]).all()
    assert found.right.tolist() == [[True, False]]
    assert found.hit.tolist() == found.fooled.tolist() == [[[True, True]]]
    away = try_on_all([model], images, labels, _by(0.03))
    assert away.hit is None
    assert away.fooled.tolist() == [[[True, True]]]


def test_rates_are_of_right_answers():
    right = np.array([[True, True, False, True], [False] * 4])
    fooled = np.array([[[True, False, True, True], [True] * 4]] * 2)
    table = rates(["a", "b"], right, fooled)
    assert table["a"]["a"] == {
        "share": 2 / 3,
        "interval": list(wilson_interval(2, 3)),
        "images": 3,
    }
    assert table["b"]["b"] == {"share": None, "interval": None, "images": 0}
    hit = np.zeros_like(fooled)
    hit[0, 0, [0, 2]] = True
    of = rates(["a", "b"], right, fooled, hit)
    assert of["a"]["a"]["target_share"] == 1 / 3
    assert of["a"]["a"]["target_interval"] == list(wilson_interval(1, 3))
    assert of["b"]["b"]["target_share"] is None
    lines = attack_command.describe({"1": of}, "fgsm", targeted=True)
    assert "66.7 [20.8, 93.9]; 33.3 [6.1, 79.2]" in lines


def test_the_command_on_two_runs(classifier_run, deep_classifier_run, data, tmp_path):
    results = attack_command.attack_data(
        [str(classifier_run), str(deep_classifier_run)],
        **data,
        epsilons=["0.5", "16"],
        limit=5,
        batch_size=4,
        out=tmp_path,
    )
    assert set(results["fooled"]) == {"0.5", "16"}
    for table in results["fooled"].values():
        assert list(table) == ["classifier", "deep_classifier"]
        for of_made in table.values():
            for name, of in of_made.items():
                count = round(5 * results["accuracy"][name])
                assert of["images"] == count
    assert (tmp_path / "attacks.json").is_file() and (
        tmp_path / "attacks.png"
    ).is_file()


def test_radii_of_a_norm_are_of_its_size(classifier_run, data, tmp_path):
    """A step of 1/255 is nothing in the L2 norm of an image."""
    options = {"attack": "pgd_l2", "limit": 2, "out": tmp_path}
    results = attack_command.attack_data([str(classifier_run)], **data, **options)
    assert list(results["fooled"]) == ["64", "255"]


def test_options_reach_the_attack(classifier_run, data, tmp_path, capsys):
    results = attack_command.attack_data(
        [str(classifier_run)],
        **data,
        attack="pgd",
        epsilons=["16"],
        steps=2,
        step_size=4.0,
        targeted=True,
        limit=5,
        out=tmp_path,
    )
    options = {"targeted": True, "steps": 2, "step_size": 4 / 255}
    assert results["how"]["options"] == options
    attack = attack_command.attacking("pgd", 0.1, {}, options)
    assert attack.keywords.items() >= options.items()
    assert "after the semicolon that it takes for the target" in capsys.readouterr().out
    assert "target_share" in results["fooled"]["16"]["classifier"]["classifier"]


@pytest.fixture
def data(shapes_dir):
    return {"data": "shapes/32x32", "data_dir": shapes_dir}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilons": ["much"]}, "--epsilons: 'much' is no radius"),
        ({"epsilons": ["0"]}, "--epsilons: '0' is no radius"),
        ({"epsilons": ["1", "1.0"]}, "--epsilons=1,1.0: a radius is named twice"),
        ({"epsilons": ["1", "1"]}, "--epsilons=1,1: a radius is named twice"),
        ({"steps": 3}, "--steps is of pgd and pgd_l2: fgsm is one step"),
        ({"step_size": 1.0}, "--step_size is of pgd and pgd_l2"),
        ({"attack": "pgd", "step_size": 0.0}, "--step_size=0.0: expected a number"),
        ({"classifiers": ["nowhere"]}, "--classifiers nowhere does not exist"),
        ({"split": "nosplit"}, "nosplit"),
        ({"classifiers": "twice"}, "/classifier is named twice: name each run"),
    ],
)
def test_mistakes(wrong, message, classifier_run, data, tmp_path):
    given = {"classifiers": [str(classifier_run)], "out": tmp_path} | data | wrong
    if wrong.get("classifiers") == "twice":
        given["classifiers"] = [str(classifier_run)] * 2
    with pytest.raises(InputError, match=message):
        attack_command.attack_data(**given)
