"""`python -m saliency_jax.attribution` on pictures of the user's own."""

import re

import cv2
import numpy as np
import pytest

from saliency_jax.attribution import __main__ as command
from saliency_jax.attribution.__main__ import explain_files
from saliency_jax.errors import InputError
from saliency_jax.loading import load_classifier
from saliency_jax.models.create import create_backbone
from saliency_jax.report.figures import GAP, HEADER, READABLE_SIDE
from saliency_jax.report.heat import heat_grid
from tests.weights_files import write_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A weights file and two pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("net", "again"):
        write_weights(folder / f"{name}.safetensors", create_backbone("resnet10", 7))
    random = np.random.default_rng(0)
    for name, size in (("one.png", (50, 70)), ("two.jpg", (64, 48))):
        picture = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), picture)
    (folder / "no.jpg").write_bytes(b"no picture")
    return folder


def explain(folder, images="one.png two.jpg", methods="gradient", **options):
    net = f"resnet10={folder}/net.safetensors"
    files = [str(folder / name) for name in images.split()]
    options = {"image_size": 32, "out": folder / "maps"} | options
    return explain_files(net, files, methods.split(), **options)


def test_maps_are_written_and_compared(folder, capsys):
    text = "gradient gradient:reduction=sum_abs"
    explain(folder, methods=text, randomised_layers=2, batch_size=1)
    out = capsys.readouterr().out
    assert "two.jpg: class " in out
    assert "drawing fc, layer4_0/downsample_bn anew:" in out
    assert cv2.imread(str(folder / "maps" / "maps.png")).shape[2] == 3
    maps = np.load(folder / "maps" / "maps.npz")
    assert list(maps) == text.split() and maps["gradient"].shape == (2, 32, 32)
    assert (maps["gradient:reduction=sum_abs"] >= maps["gradient"]).all()


def test_classifiers_stand_beside_each_other(folder, classifier_run, capsys):
    explain(folder, beside=[str(classifier_run)], methods="gradient input_x_gradient")
    out = capsys.readouterr().out
    assert "one.png: net.safetensors: class " in out
    assert f"two.jpg: {classifier_run.name}: " in out
    both = dict(np.load(folder / "maps" / "maps.npz"))
    assert list(both) == [
        f"{classifier}/{method}"
        for classifier in ("net.safetensors", classifier_run.name)
        for method in ("gradient", "input_x_gradient")
    ]
    drawn = cv2.imread(str(folder / "maps" / "maps.png"))
    step = (len(drawn) + GAP) // 4  # both classifiers of a picture, then the next
    rows = [drawn[step * n + HEADER : step * (n + 1) - GAP] for n in range(4)]
    side = READABLE_SIDE
    np.testing.assert_array_equal(rows[0][:, :side], rows[1][:, :side])
    assert (rows[0][:, :side] != rows[2][:, :side]).any()
    assert (rows[0][:, side:] != rows[1][:, side:]).any()
    explain(folder, methods="gradient")
    alone = np.load(folder / "maps" / "maps.npz")
    np.testing.assert_array_equal(alone["gradient"], both["net.safetensors/gradient"])


def test_the_probability_stands_beside_a_name_that_is_cut(folder, monkeypatch, capsys):
    captions = []

    def record(images, maps, of_rows):
        captions.extend(of_rows)
        return heat_grid(images, maps, of_rows)

    monkeypatch.setattr(command, "heat_grid", record)
    explain(folder, "one.png", beside=[f"resnet10={folder}/again.safetensors"])
    out = capsys.readouterr().out
    for caption, net in zip(captions, ("net", "again"), strict=True):
        assert re.fullmatch(rf"{net}.safetensors: class \d", caption.name)
        assert re.fullmatch(r"[01]\.\d\d", caption.number)
        assert f"one.png: {caption.name} {caption.number}\n" in out


def test_a_method_that_fails_is_left_out_of_all(folder, classifier_run, capsys):
    text = "gradient occlusion:patch_size=99 input_x_gradient"
    beside = [str(classifier_run)]
    assert explain(folder, methods=text, beside=beside) == ["occlusion:patch_size=99"]
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("error: occlusion:patch_size=99 is left out: patch_size")
    maps = np.load(folder / "maps" / "maps.npz")
    assert [name.partition("/")[2] for name in maps] == [
        "gradient",
        "input_x_gradient",
    ] * 2


def test_the_whole_picture_or_its_centre(folder):
    found = {}
    for view in ("centre", "whole"):
        explain(folder, "one.png", view=view)
        found[view] = np.load(folder / "maps" / "maps.npz")["gradient"]
    assert np.abs(found["centre"] - found["whole"]).max() > 0


def test_a_class_can_be_asked_for(folder, capsys):
    explain(folder, "one.png", targets=["3"])
    assert "one.png: class 3 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": "none.jpg"}, "cannot read image .*none.jpg: No such file"),
        ({"images": "no.jpg"}, "no.jpg is damaged or no picture that OpenCV reads"),
        ({"methods": "grad"}, "no method 'grad' .*use one of gradient, "),
        ({"methods": "gradient:steps=5"}, "has no option 'steps': use one of layer, "),
        ({"methods": "gradient:reduction=mean"}, "reduction is one of"),
        ({"methods": "rise:masks"}, "rise:masks: write rise:masks=value"),
        ({"methods": "trained_masker"}, "name the run as one of --maskers"),
        ({"methods": ""}, "--methods names none: see --list"),
        (
            {"methods": "occlusion:patch_size=99"},
            "^occlusion:patch_size=99: patch_size",
        ),
        ({"targets": ["7", "0"]}, "--targets=7,0: the classifier knows classes 0 to 6"),
        ({"targets": ["0"]}, "--targets names 1 classes for 2 pictures"),
        ({"beside": ["nowhere"]}, "--beside nowhere does not exist: name the workdir"),
        ({"targets": ["cat", "0"]}, "--targets=cat,0: expected numbers of classes"),
    ],
)
def test_mistakes(folder, arguments, message):
    with pytest.raises(InputError, match=message):
        explain(folder, **arguments)


def test_load_classifier(folder, classifier_run):
    model = load_classifier(f"resnet10={folder}/net.safetensors")
    assert model(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 7)
    trained = load_classifier(classifier_run)
    assert trained.labels[0] == "disc"
    with pytest.raises(InputError, match="classifier nowhere does not exist: name the"):
        load_classifier("nowhere")
