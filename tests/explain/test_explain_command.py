"""`python -m saliency_jax.explain` on pictures, from the flags to the files."""

import json
import re

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.explain.explanations import (
    Explainer,
    Plan,
    explain_pictures,
    folder_names,
    slug,
)
from saliency_jax.explain.labels import read_labels
from saliency_jax.explain.pictures import find_pictures
from saliency_jax.explain.regions import rule_of
from saliency_jax.models.classifier import Classifier
from tests.commands import run_module, start
from tests.data.unusual_pictures import picture, unusual_pictures

LABELS = ("red", "green", "blue")


def colours(images):
    """A class for each colour, which its own pixels speak for."""
    return 4 * jnp.mean(images, axis=(1, 2))


def colour_maps(classifier, images, classes, key, batch_size):
    """The class's own colour, less the others'."""
    images = images.astype(np.float32) / 255
    own = np.stack([x[..., c] for x, c in zip(images, classes, strict=True)])
    return 2 * own - images.sum(axis=-1)


def plan(tmp_path, **changed):
    values = {
        "classifier": Classifier.from_function(colours),
        "labels": LABELS,
        "explainers": {"colour": Explainer(colour_maps)},
        "classes": 2,
        "image_size": 32,
        "view": "whole",
        "rule": rule_of("value:0.5"),
        "batch_size": 3,
        "key": jax.random.key(0),
        "out": tmp_path / "out",
    }
    return Plan(**{**values, **changed})


def redder(path, scale=3):
    pixels = np.kron(picture(), np.ones((scale, scale, 1), np.uint8))
    pixels[..., 0] = np.maximum(pixels[..., 0], 60)
    cv2.imwrite(str(path), pixels[..., ::-1])
    return pixels


def test_files_boxes_and_names_of_a_picture(tmp_path):
    pixels = redder(tmp_path / "quarters.png")
    report = explain_pictures(plan(tmp_path, classes=3), [tmp_path / "quarters.png"])
    out = tmp_path / "out"
    assert json.loads((out / "explanations.json").read_text()) == report
    (entry,) = report["pictures"]
    assert entry["size"] == [144, 96] and entry["notes"] == []
    red = entry["classes"][0]
    (green,) = (one for one in entry["classes"] if one["name"] == "green")
    assert (red["class"], red["name"]) == (0, "red") and green["class"] == 1
    logits = np.asarray(colours(pixels[None] / 255.0))[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    assert red["probability"] == pytest.approx(expected[0], abs=1e-3)
    of_red = red["methods"]["colour"]
    assert np.abs(np.subtract(of_red["box"], [0, 0, 48, 72])).max() <= 5
    assert of_red["area"] == pytest.approx(0.25, abs=0.03)
    of_green = green["methods"]["colour"]
    assert np.abs(np.subtract(of_green["box"], [0, 72, 48, 144])).max() <= 5

    read = lambda kind: cv2.imread(str(out / of_red["files"][kind]))[..., ::-1]
    for kind in ("overlay", "masked_in", "masked_out"):
        assert read(kind).shape == pixels.shape
    inside, outside = (slice(8, 40), slice(8, 60)), (slice(60, 90), slice(80, 140))
    np.testing.assert_array_equal(read("masked_in")[inside], pixels[inside])
    np.testing.assert_array_equal(read("masked_out")[outside], pixels[outside])
    assert np.abs(read("masked_in")[outside].astype(int) - 128).max() <= 1
    assert np.abs(read("masked_out")[inside].astype(int) - 128).max() <= 1
    assert cv2.imread(str(out / entry["sheet"])) is not None


def test_outside_of_the_centre_nothing_is_explained(tmp_path):
    pixels = redder(tmp_path / "quarters.png")
    report = explain_pictures(
        plan(tmp_path, view="centre", classes=1), [tmp_path / "quarters.png"]
    )
    (entry,) = report["pictures"]
    window = entry["window"]
    assert window["height"] == window["width"] < 96
    files = entry["classes"][0]["methods"]["colour"]["files"]
    overlay = cv2.imread(str(tmp_path / "out" / files["overlay"]))[..., ::-1]
    left = window["left"]
    np.testing.assert_array_equal(overlay[:, :left], pixels[:, :left] // 3)
    kept = cv2.imread(str(tmp_path / "out" / files["masked_in"]))[..., ::-1]
    assert np.all(kept[:, :left] == 128)


def test_unreadable_pictures_are_left_out_and_the_rest_is_explained(tmp_path, capsys):
    paths = []
    for name, content, _ in unusual_pictures().values():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(content)
    paths.insert(1, tmp_path / "words.jpg")
    paths[1].write_text("hello")
    report = explain_pictures(plan(tmp_path, classes=1), paths)
    assert [entry["file"] for entry in report["pictures"]] == [
        str(path) for path in paths if path.name != "words.jpg"
    ]
    (skipped,) = report["skipped"]
    assert skipped["file"].endswith("words.jpg") and "no picture" in skipped["why"]
    assert "left out: " in capsys.readouterr().err
    sizes = {entry["file"][-10:]: entry["size"] for entry in report["pictures"]}
    assert sizes["turned.jpg"] == [32, 48]
    with pytest.raises(InputError, match="none of the 1 files is a picture"):
        explain_pictures(plan(tmp_path), [paths[1]])
    assert capsys.readouterr().err == ""  # the error says it
    explain_pictures(plan(tmp_path, classes=1, batch_size=1), [paths[1], *paths])
    assert capsys.readouterr().err.count("left out: ") == 2


def test_a_link_to_nothing_in_a_folder_is_named(tmp_path):
    (tmp_path / "pictures").mkdir()
    redder(tmp_path / "pictures" / "one.png")
    (tmp_path / "pictures" / "gone.png").symlink_to("nowhere")
    (tmp_path / "pictures" / "folder.png").mkdir()
    paths = find_pictures([tmp_path / "pictures"], tmp_path / "out")
    assert [path.name for path in paths] == ["gone.png", "one.png"]
    (skipped,) = explain_pictures(plan(tmp_path), paths)["skipped"]
    assert "gone.png: No such file" in skipped["why"]


def test_a_method_that_fails_is_named(tmp_path):
    def refuse(*_, **__):
        raise InputError("patch_size is 99")

    redder(tmp_path / "one.png")
    explainers = {"occlusion:patch_size=99": Explainer(refuse)}
    with pytest.raises(InputError, match="^occlusion:patch_size=99: patch_size is 99"):
        explain_pictures(plan(tmp_path, explainers=explainers), [tmp_path / "one.png"])


def test_what_asks_for_no_class_is_asked_once(tmp_path):
    asked = []

    def record(classifier, images, classes, key, batch_size):
        asked.append(np.asarray(classes).tolist())
        return images[..., 0] / np.float32(255)

    redder(tmp_path / "one.png")
    redder(tmp_path / "two.png", 2)
    explainers = {
        "each": Explainer(record),
        "any": Explainer(record, of_class=False, is_mask=True),
    }
    files = [tmp_path / "one.png", tmp_path / "two.png"]
    explain_pictures(plan(tmp_path, explainers=explainers), files)
    assert asked == [[0, 0], [1, 1], [0, 0]]


def test_names_of_folders_and_files_are_safe_and_differ(tmp_path):
    paths = [tmp_path / name for name in ("a/dog.jpg", "b/dog.png", "dög 1!.jpg")]
    assert list(folder_names(paths).values()) == ["dog", "dog_2", "dög_1"]
    assert slug("../../etc/passwd") == "etc_passwd"
    assert slug("tench, Tinca tinca") == "tench" and slug("...") == "picture"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": 4}, "--classes=4: the classifier tells 3 classes apart"),
        ({"labels": ("red",)}, "1 labels for 3 classes"),
    ],
)
def test_what_does_not_fit_the_classifier_is_refused(changed, message, tmp_path):
    """Before any picture is so much as read."""
    with pytest.raises(InputError, match=message):
        explain_pictures(plan(tmp_path, **changed), [tmp_path / "none.png"])
    assert not (tmp_path / "out").exists()


def test_labels_from_a_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("n01440764 tench, Tinca tinca\nnice dog\nn12 cat\n")
    assert read_labels(path) == ("tench, Tinca tinca", "nice dog", "n12 cat")
    with pytest.raises(InputError, match="--labels=.* cannot be read"):
        read_labels(tmp_path / "none.txt")
    path.write_text("")
    with pytest.raises(InputError, match="--labels=.* is empty"):
        read_labels(path)


def test_the_command_with_a_run_a_masker_and_a_bad_picture(black_box_run, tmp_path):
    redder(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_text("hello")
    done = run_module(
        "saliency_jax.explain",
        str(tmp_path),
        f"--classifier={black_box_run}",
        "--methods=gradient,grad_cam",
        f"--maskers={black_box_run}",
        "--classes=2",
        f"--out={tmp_path / 'explained'}",
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(r"left out: .*bad.jpg is damaged", done.stderr)
    assert re.search(r"good.png: \w+ 0\.\d\d, \w+ 0\.\d\d", done.stdout)
    report = json.loads((tmp_path / "explained" / "explanations.json").read_text())
    columns = ["gradient", "grad_cam", "black_box"]
    for entry in report["pictures"][0]["classes"]:
        assert list(entry["methods"]) == columns
    assert report["how"]["box"] == {"name": "quantile", "alpha": 1.0}
    for files in entry["methods"]["black_box"]["files"].values():
        assert (tmp_path / "explained" / files).is_file()


MISTAKES = [
    ((), "needs pictures or folders, and --classifier"),
    (("none.jpg", "--classifier=x"), "none.jpg does not exist"),
    (("README.md", "--classifier=x", "--box=circle"), "no box rule 'circle'"),
    (
        ("README.md", "--classifier=x", "--methods=gradcam"),
        r"no method 'gradcam' \(did you mean grad_cam\?\)",
    ),
    (("README.md", "--classifier=x"), "--classifier x does not exist"),
]
# To import all that the command needs takes longer than any of its mistakes.
EACH_IN_A_FORK = """
import json, os, sys
from saliency_jax.explain import __main__ as command
command.define_flags()
for flags in json.loads(sys.argv[1]):
    if not os.fork():
        sys.argv = ["explain", *flags]
        command.run_command(command.main)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_mistakes_are_one_line():
    lines = json.dumps([flags for flags, _ in MISTAKES])
    started = start("-W", "ignore", "-c", EACH_IN_A_FORK, lines)
    codes, errors = started.communicate(timeout=300)
    assert codes.split() == ["2"] * len(MISTAKES), errors
    for line, (_, message) in zip(errors.splitlines(), MISTAKES, strict=True):
        assert re.fullmatch(f"error: .*{message}.*", line)
