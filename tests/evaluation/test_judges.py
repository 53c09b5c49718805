"""Where judges come from, and what the user is told when they do not fit."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import evaluate
from saliency_jax.data.shapes import CLASSES
from saliency_jax.errors import InputError
from saliency_jax.evaluation.judges import load_judge, load_judges, origins
from saliency_jax.models.classifier import IMAGENET_MEAN
from saliency_jax.models.create import create_backbone
from saliency_jax.saliency import load_masker
from tests.painted import source_of
from tests.weights_files import write_weights

# evaluate.py, where the tests' own tiny network is known.
COMMAND = (
    sys.executable,
    "-c",
    "import tests.runs, evaluate; evaluate.define_flags(); "
    "evaluate.run_command(evaluate.main)",
)


@pytest.fixture(scope="module")
def source():
    return source_of([], CLASSES)


def assert_equal(got, want):
    jax.tree.map(np.testing.assert_array_equal, got.variables, want.variables)
    assert (got.module, got.mean, got.std) == (want.module, want.mean, want.std)


def test_runs_of_both_stages(classifier_run, casm_run, source):
    judges = load_judges([str(casm_run), str(classifier_run)], source, 64)
    assert list(judges) == ["casm", "classifier"]
    assert_equal(judges["casm"].classifier, load_masker(casm_run).classifier)
    assert judges["classifier"].classifier.module == judges["casm"].classifier.module
    assert judges["classifier"].image_size == 32  # its own
    with pytest.raises(AssertionError):
        assert_equal(judges["classifier"].classifier, judges["casm"].classifier)


def test_runs_of_one_name_go_by_their_paths(classifier_run, source, tmp_path):
    other = tmp_path / "classifier"
    other.symlink_to(classifier_run)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    named = [str(other), str(link / "classifier")]
    assert list(load_judges(named, source, 64)) == named
    with pytest.raises(InputError, match="classifier is named twice"):
        load_judges([named[0], f"{named[0]}/"], source, 64)


def test_a_weights_files_metadata_are_heeded(tmp_path, source):
    path = tmp_path / "small.safetensors"
    module = create_backbone(
        "mobilenet_v2", 10, width_multiplier=0.25, padding="tensorflow", epsilon=1e-3
    )
    told = {
        "input": "RGB 96x96, uint8/127.5-1",
        "padding": "TensorFlow SAME",
        "architecture": "mobilenet_v2 width 0.25, eps 1e-3",
    }
    arrays = write_weights(path, module, told)
    judge = load_judges([f"mobilenet_v2={path}"], source, 48)["small.safetensors"]
    assert judge.classifier.module == module
    assert judge.classifier.mean == judge.classifier.std == pytest.approx((0.5,) * 3)
    assert judge.image_size == 48
    np.testing.assert_array_equal(
        judge.classifier.variables["params"]["classifier"]["bias"],
        arrays["classifier.1.bias"],
    )


def test_without_metadata_the_networks_own_values_hold(tmp_path, source):
    path = tmp_path / "resnet.safetensors"
    write_weights(path, create_backbone("resnet10", 10))
    judge = load_judge(f"resnet10={path}", source, 32)
    assert judge.classifier.mean == IMAGENET_MEAN
    assert judge.classifier.module == create_backbone("resnet10", 10)


def test_weights_that_do_not_fit_are_refused(tmp_path, source):
    path = tmp_path / "weights.safetensors"
    squeezenet = create_backbone("squeezenet1_1", 7)

    def message(network):
        with pytest.raises(InputError) as caught:
            load_judge(f"{network}={path}", source, 32)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)

    assert "does not exist" in message("resnet10")
    write_weights(path, squeezenet)
    assert "tells 7 classes apart, painted has 10: name one that" in message(
        "squeezenet1_1"
    )
    assert "does not fit the network" in message("resnet10")
    write_weights(path, squeezenet, {"padding": "TensorFlow SAME"})
    assert "does not have: name the network that it is of" in message("squeezenet1_1")
    write_weights(path, squeezenet, {"input": "BGR"})
    assert "no known form: start a run" in message("squeezenet1_1")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("runs/nowhere", "runs/nowhere does not exist: name the workdir of a run, NET"),
        ("resnet9=weights.pth", "no network 'resnet9'.*: use one of"),
        (__file__, r"is a file, which does not .* name it as NETWORK=.*\.py"),
        (str(Path(__file__).parent), "is not a run"),
    ],
)
def test_what_is_no_judge_is_named(named, message, source):
    with pytest.raises(InputError, match=message):
        load_judge(named, source, 32)


def test_other_classes_are_refused(classifier_run):
    fewer = source_of([], CLASSES[:3])
    with pytest.raises(InputError, match="with 10 classes, painted has 3, and"):
        load_judge(str(classifier_run), fewer, 32)
    swapped = source_of([], (*CLASSES[:3], CLASSES[4], CLASSES[3], *CLASSES[5:]))
    difference = f"class 3 is {CLASSES[3]!r} there and {CLASSES[4]!r} here"
    with pytest.raises(InputError, match=difference):
        load_judge(str(classifier_run), swapped, 32)


def test_origins_go_back_to_the_first_weights(tmp_path):
    weights = tmp_path / "weights.pth"
    for name, init in (("first", weights), ("second", "first"), ("lone", "")):
        workdir = tmp_path / name
        workdir.mkdir()
        init = str(tmp_path / init) if init else ""
        config = {"stage": "classifier", "data": {}, "classifier": {"init": init}}
        (workdir / "config.json").write_text(json.dumps(config))
    first, second = tmp_path / "first", tmp_path / "second"
    assert origins(second) == {second, first, weights}
    assert origins(weights) == {weights}
    assert origins(tmp_path / "lone") == {tmp_path / "lone"}


def test_the_command(casm_run, classifier_run, tmp_path):
    done = subprocess.run(
        [
            *COMMAND,
            f"--workdir={casm_run}",
            f"--judges={classifier_run},{casm_run}",
            "--variant=follow_up",
            f"--out={tmp_path}",
        ],
        cwd=Path(evaluate.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["judges"]) == ["classifier", "casm"]
    own = results["judges"]["casm"]
    assert own["path"] == str(casm_run) and own["shares_origin"]
    assert (own["image_size"], own["step"]) == (32, 6)
    # the run's own classifier on the clean images: the accuracy of the first table
    clean = own["pictures"]["image"]["clean"]
    assert clean["accuracy"] == results["rows"]["casm"]["accuracy"]
    assert clean["images"] == results["how"]["images"] == 25
    whole = own["pictures"]["whole_image"]["masked_in"]
    assert whole == {**clean, "mask_area": 1}
    assert results["how"]["variant"] == "follow_up"
    assert "binarised at its mean" in results["how"]["rule"]
    assert results["how"]["inpainting_seconds"] > 0
    for words in ("accuracy %", "cross-entropy, nats", "classifier*", "casm*"):
        assert words in done.stdout
