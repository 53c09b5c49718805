"""`python -m saliency_jax.synthesis class_images` on a run."""

import json

import cv2
import pytest

from saliency_jax.errors import InputError
from saliency_jax.synthesis.class_images_command import class_number, make_class_images
from tests.commands import run_module

QUICK = {"steps": 3, "batch_size": 2}


def test_classes_by_number_and_name(classifier_run, tmp_path):
    first = make_class_images(str(classifier_run), ["3"], out=tmp_path, **QUICK)
    name = first["images"][0]["name"]
    results = make_class_images(
        str(classifier_run), [name, "0", "1"], out=tmp_path, **QUICK
    )
    assert [entry["number"] for entry in results["images"]] == [3, 0, 1]
    assert results["images"][0]["scores"] == pytest.approx(
        first["images"][0]["scores"], abs=1e-4
    )
    assert results == json.loads((tmp_path / "class_images.json").read_text())
    strip = cv2.imread(str(tmp_path / "class_images.png"))
    assert strip.shape[1] > 3 * 144  # large enough for the names
    for entry in results["images"]:
        assert cv2.imread(str(tmp_path / entry["file"])).shape == (32, 32, 3)
        assert 0 <= entry["probability"] <= 1 and len(entry["scores"]) == 3


def test_channels_of_a_layer_and_names_from_a_file(classifier_run, tmp_path):
    results = make_class_images(
        str(classifier_run), ["0", "2"], layer="tap_0", out=tmp_path, **QUICK
    )
    assert [entry["name"] for entry in results["images"]] == [
        "tap_0 channel 0",
        "tap_0 channel 2",
    ]
    assert class_number("b", ("a", "b")) == 1 and class_number("7", ()) == 7
    for text, names, message in (
        ("bb", ("a", "bbb"), r"no class 'bb' \(did you mean bbb\?\)"),
        ("bb", (), "'bb' is no number, and no names are known: see --labels"),
    ):
        with pytest.raises(InputError, match=message):
            class_number(text, names)
    with pytest.raises(InputError, match="1 labels for 10 classes"):
        (tmp_path / "names.txt").write_text("disc\n")
        labels = str(tmp_path / "names.txt")
        make_class_images(str(classifier_run), ["0"], labels=labels, out=tmp_path)
    with pytest.raises(InputError, match="channel 900 of a Unit"):
        make_class_images(str(classifier_run), ["900"], layer="tap_0", out=tmp_path)


@pytest.mark.parametrize(
    ("layer", "message"),
    [(None, "class 1 is named twice"), ("tap_0", "tap_0 channel 1 is named twice")],
)
def test_a_class_named_twice_is_refused(layer, message, classifier_run, tmp_path):
    with pytest.raises(InputError, match=message):
        make_class_images(
            str(classifier_run), ["1", "0", "1"], layer=layer, out=tmp_path, **QUICK
        )


def test_a_class_by_one_of_its_synonyms():
    names = ["goldfish, Carassius auratus", "crane", "maillot", "maillot, tank suit"]
    names += ["tower crane, crane", "crane", *(f"class {n}" for n in range(90))]
    for text, number in (
        ("goldfish", 0),
        (" carassius Auratus", 0),
        ("Goldfish, Carassius auratus", 0),
        ("maillot", 2),  # the whole name comes first
        ("tank suit", 3),
    ):
        assert class_number(text, names) == number
    with pytest.raises(InputError, match="'crane' names the classes 1, 5: name one of"):
        class_number("crane", names)
    with pytest.raises(InputError, match="'crane' names the classes 0, 1:"):
        class_number("crane", ["tower crane, crane", "bird, crane"])
    with pytest.raises(InputError, match="'goldfsh': the closest of .*are goldfish, "):
        class_number("goldfsh", names)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ([], ["class_images --help", "attack --help", "variations --help"]),
        (["class_images"], ["Makes the image that a class", "--layer: ", "--out: "]),
        (["attack"], ["Attacks classifiers", "with 95 % intervals", "--epsilons: "]),
        (["variations"], ["Generates the salient part", "--generator: "]),
    ],
)
def test_help_is_of_the_command(command, told):
    done = run_module("saliency_jax.synthesis", *command, "--help")
    assert done.stderr == ""
    for text in told:
        assert text in done.stdout
