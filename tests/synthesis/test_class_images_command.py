"""`python -m saliency_jax.synthesis class_images` on a run."""

import json

import cv2
import pytest

from saliency_jax.errors import InputError
from saliency_jax.synthesis.class_images_command import class_number, make_class_images

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
    with pytest.raises(InputError, match="channel 900 of a Unit"):
        make_class_images(str(classifier_run), ["900"], layer="tap_0", out=tmp_path)
