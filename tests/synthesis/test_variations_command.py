"""`python -m saliency_jax.synthesis variations` on smoke runs."""

import json
import shutil

import cv2
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.metrics.intervals import mean_interval
from saliency_jax.models.classifier import Classifier
from saliency_jax.synthesis import __main__ as command
from saliency_jax.synthesis import variations_command
from saliency_jax.synthesis.variations_command import keeps, moved, vary


def run(classifier_run, generator_run, shapes_dir, out, **changed):
    options = {
        "classifier": str(classifier_run),
        "generator": str(generator_run),
        "data": "shapes/32x32",
        "data_dir": shapes_dir,
        "method": "gradient",
        "limit": 3,
        "restarts": 4,
        "steps": 2,
        "out": out,
    }
    return vary(**options | changed)


def test_pictures_and_figures_are_written(
    classifier_run, generator_run, shapes_dir, tmp_path, capsys, monkeypatch
):
    runs = classifier_run, generator_run, shapes_dir
    results = run(*runs, tmp_path, limit=5, batch_size=3)
    assert results == json.loads((tmp_path / "variations.json").read_text())
    shares = [image["share"] for image in results["of_each_image"]]
    assert results["images"] == len(shares) == 5 - results["without_region"] > 0
    assert results["variations"] == 4 * len(shares)
    assert results["share"] == pytest.approx(np.mean(shares))
    assert results["interval"] == pytest.approx(mean_interval(np.array(shares)))
    for beside in ("unsearched", "filled"):
        of_each = np.array([float(one[beside]) for one in results["of_each_image"]])
        assert results[beside]["share"] == pytest.approx(of_each.mean())
        assert results[beside]["interval"] == pytest.approx(mean_interval(of_each))
    assert all(0 < image["region"] < 1 for image in results["of_each_image"])
    how = results["how"]
    assert how["search"] == {
        "steps": 2,
        "realism_weight": 0.1,
        "window": None,
        "step_size": 0.01,
        "momentum": 0.9,
    }
    assert how["packages"]["jax"] and how["seed"] == 0 and how["maps"] == "gradient"
    assert f"{results['variations']} variations of" in capsys.readouterr().out
    drawn = cv2.imread(str(tmp_path / "variations.png"))
    # a row for each image: itself, its region, four variations
    assert drawn.shape[0] > len(shares) * 144 and drawn.shape[1] > 6 * 144
    # another part of the same question
    few = run(
        *runs, tmp_path / "few", limit=2, batch_size=64, restarts=2, step_size=1.0
    )
    assert few["how"]["search"] == how["search"] | {"step_size": 1.0}
    pairs = zip(few["of_each_image"], results["of_each_image"], strict=False)
    assert all(one["region"] == other["region"] for one, other in pairs)
    # without steps there is nothing to find
    regions = []
    monkeypatch.setattr(
        variations_command,
        "moved",
        lambda region, random: regions.append(region) or moved(region, random),
    )
    still = run(*runs, tmp_path / "still", limit=2, steps=0, place="random")
    assert len(regions) == 2
    assert still["share"] == still["unsearched"]["share"]
    assert still["how"]["place"] == "random"
    pairs = zip(still["of_each_image"], results["of_each_image"], strict=False)
    assert all(one["region"] == other["region"] for one, other in pairs)


def test_a_box_at_random_keeps_its_sides():
    region = np.zeros((8, 8), bool)
    region[5:8, 0:2] = True
    random = np.random.default_rng(0)
    boxes = [moved(region, random) for _ in range(200)]
    edges = [np.argwhere(box) for box in boxes]
    spans = [(found.max(axis=0) - found.min(axis=0) + 1).tolist() for found in edges]
    assert spans == [[3, 2]] * 200 and all(box.sum() == 6 for box in boxes)
    corners = {tuple(found.min(axis=0).tolist()) for found in edges}
    assert len(corners) > 35 and np.max(list(corners), axis=0).tolist() == [5, 6]
    assert not moved(np.zeros((8, 8), bool), random).any()


def test_keeps_asks_for_the_class_of_the_image():
    classifier = Classifier.from_function(lambda x: x.mean(axis=(1, 2)))
    images = np.zeros((2, 4, 4, 3), np.float32)
    images[0, ..., 1] = 1
    images[1, ..., 2] = 1
    assert keeps(classifier, images, np.array([1, 1])).tolist() == [True, False]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"generator": "classifier"}, "stage 'classifier' and has no generator"),
        ({"classifier": "generator"}, "stage 'generator', which has neither a class"),
        ({"generator": "nowhere"}, "nowhere is not a run"),
        # said before anything is loaded
        ({"method": "grad", "data": "nowhere"}, "no method 'grad'"),
        ({"box": "value", "alpha": 1.0}, "none of 3 maps of gradient has a box"),
        ({"classifier": "five"}, "five.*5 classes"),
    ],
)
def test_mistakes(
    classifier_run, generator_run, shapes_dir, tmp_path, changed, message
):
    runs = {"classifier": str(classifier_run), "generator": str(generator_run)}
    if changed.get("classifier") == "five":
        runs["five"] = str(tmp_path / "five")
        shutil.copytree(classifier_run, runs["five"])
        path = tmp_path / "five" / "config.json"
        config = json.loads(path.read_text())
        config["data"]["class_names"] = config["data"]["class_names"][:5]
        path.write_text(json.dumps(config))
    changed = {
        name: runs.get(value, value) if name in ("classifier", "generator") else value
        for name, value in changed.items()
    }
    with pytest.raises(InputError, match=message):
        run(classifier_run, generator_run, shapes_dir, tmp_path / "out", **changed)


@pytest.mark.parametrize("argv", [["synthesis"], ["synthesis", "variation"]])
def test_the_command_names_what_there_is(argv):
    with pytest.raises(InputError, match="is one of .*variations"):
        command.main(argv)
