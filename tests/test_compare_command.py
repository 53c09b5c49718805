"""evaluate.py as a comparison: methods, both maskers and baselines on real runs."""

import csv
import json
import shutil
import subprocess
import sys
import textwrap
import types

import pytest

import evaluate
from saliency_jax.errors import InputError
from saliency_jax.evaluation.comparison import request

DEFAULTS = {
    "workdir": None,
    "beside": [],
    "classifier": None,
    "maskers": [],
    "methods": [],
    "metrics": [],
    "data": None,
    "data_dir": None,
    "split": None,
    "limit": None,
    "out": None,
    "batch_size": None,
    "image_size": None,
    "box": "value",
    "convention": "inclusive",
    "asked": 100,
    "judges": [],
    "crop_classifier": None,
    "memoriser": None,
    "supervised": False,
    "sort": None,
    "seed": 0,
}


def asked(**given):
    """What evaluate.py makes of flags; absl has one set of them in a process."""
    return evaluate.comparison_request(types.SimpleNamespace(**DEFAULTS | given))


def test_the_flags_are_those_of_the_command(tmp_path):
    program = (
        "import json, evaluate; from absl import flags; evaluate.define_flags(); "
        "flags.FLAGS(['evaluate.py']); "
        "print(json.dumps({n: flags.FLAGS[n].value for n in flags.FLAGS}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    values = json.loads(done.stdout)
    assert {name: values[name] for name in DEFAULTS} == DEFAULTS


@pytest.fixture
def data(shapes_dir):
    return {"data": "shapes/32x32", "data_dir": shapes_dir}


def test_one_command(casm_run, black_box_run, data, tmp_path, capsys):
    question = asked(
        **data,
        classifier=str(casm_run),
        maskers=[str(casm_run), str(black_box_run)],
        methods=["gradient", "grad_cam", "rise:masks=8:cells=4"],
        metrics=[
            "localisation",
            "maps",
            "insertion",
            "deletion",
            "agreement",
            "consistency",
        ],
        limit=6,
        batch_size=4,
        asked=4,
        judges=[str(casm_run)],
        supervised=True,
        out=tmp_path,
    )
    paths = request.answer(question)
    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "comparison.json").read_text())
    assert list(told["rows"]) == [
        "gradient",
        "grad_cam",
        "rise:masks=8:cells=4",
        "casm",
        "black_box",
        "whole_image",
        "center_box",
        "ground_truth_box",
        "centre_gaussian",
        "edges",
        "random",
        "box_regressor",
    ]
    rows = told["rows"]
    for name, row in rows.items():
        assert not row["error"], name
        assert {"gt_known", "pxap", "saliency_metric"} <= row["figures"].keys()
    assert rows["casm"]["figures"].keys() >= {"om", "images_per_second", "insertion"}
    assert "consistency" in rows["rise:masks=8:cells=4"]["figures"]
    assert "consistency" not in rows["gradient"]["figures"]
    assert told["how"]["classifier"] == str(casm_run) and told["how"]["images"] == 6
    assert told["published"]["casm"]["gt_known"][0] == 0.361
    # A map that is the mask has a PxAP of 1; a constant one has the objects' share.
    assert 0.01 < rows["whole_image"]["figures"]["pxap"]["value"] < 0.5
    for row in ("gradient", "casm", "black_box", "centre Gaussian"):
        assert row in printed
    with (tmp_path / "comparison.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    assert {path.name for path in paths} == {
        "comparison.json",
        "comparison.csv",
        "comparison.md",
        "comparison.tex",
        "report.html",
    }
    assert "rise:masks=8:cells=4" in (tmp_path / "report.html").read_text()

    # The same command again measures nothing, and says the same.
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    request.answer(question)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == times
    again = json.loads((tmp_path / "comparison.json").read_text())
    assert again["rows"] == rows


def test_a_function_of_the_users_own(data, tmp_path, monkeypatch):
    (tmp_path / "my_classifier.py").write_text(
        textwrap.dedent("""
            import jax.numpy as jnp

            def logits(images):
                means = images.mean((1, 2))
                return jnp.concatenate([means] * 4, axis=-1)[:, :10]

            def four(images):
                return logits(images)[:, :4]
        """)
    )
    monkeypatch.chdir(tmp_path)
    common = data | {
        "limit": 4,
        "batch_size": 4,
        "image_size": 32,
        "out": "out",
        "methods": ["gradient", "cam"],
        "metrics": ["gt_known"],
    }
    request.answer(asked(classifier="my_classifier:logits", **common))
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert "gt_known" in rows["gradient"]["figures"]
    assert "no convolution in the classifier" in rows["cam"]["error"]
    for wrong, message in (
        ({"classifier": "my_classifier:four"}, "tells 4 classes apart, shapes/32x32"),
        (
            {"judges": ["my_classifier:four"]},
            "my_classifier:four tells 4 classes",
        ),
    ):
        given = {"classifier": "my_classifier:logits"} | wrong
        with pytest.raises(InputError, match=message):
            request.answer(asked(**given, **common))
    # Sorted by what was asked for, and judged by a function too.
    request.answer(
        asked(
            classifier="my_classifier:logits",
            judges=["my_classifier:logits"],
            **common | {"metrics": ["insertion"], "methods": ["gradient"], "asked": 2},
        )
    )
    told = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert "my_classifier:logits masked_in" in told["metrics"]


def test_a_run_is_the_short_form(casm_run, tmp_path):
    short = asked(workdir=str(casm_run), methods=["grad_cam"], out=tmp_path)
    assert short.classifier == str(casm_run) and short.maskers == [str(casm_run)]
    assert short.data == "shapes/32x32" and short.batch_size == 8
    with pytest.raises(InputError, match="a comparison needs --classifier, or a run"):
        asked(methods=["grad_cam"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"methods": ["gradcam"]}, r"did you mean grad_cam"),
        ({"metrics": ["pointin"]}, r"did you mean pointing"),
        ({"sort": "pxa"}, r"--sort=pxa: no column 'pxa' \(did you mean pxap\?\)"),
        ({"metrics": ["random_labels"]}, "random_labels needs --memoriser"),
        ({"methods": ["rise:masks=abc"]}, "masks is a whole number"),
        ({"maskers": ["nowhere"]}, "nowhere"),
        ({"judges": ["nowhere"]}, "--judges nowhere does not exist"),
        ({"memoriser": "nowhere"}, "--memoriser nowhere does not exist"),
        ({"split": "nosplit"}, "nosplit"),
    ],
)
def test_mistakes(wrong, message, classifier_run, data, tmp_path):
    given = data | {"classifier": str(classifier_run), "out": tmp_path / "out"}
    with pytest.raises(InputError, match=message):
        request.answer(asked(**given | wrong))
    assert not (tmp_path / "out").exists()


def test_a_run_named_like_a_baseline_has_a_row_of_its_own(casm_run, data, tmp_path):
    shutil.copytree(casm_run, tmp_path / "random")
    asked_for = asked(
        **data,
        classifier=str(casm_run),
        maskers=[str(tmp_path / "random")],
        metrics=["gt_known"],
        limit=4,
        batch_size=4,
        out=tmp_path / "out",
    )
    request.answer(asked_for)
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    kinds = {name: row["kind"] for name, row in rows.items()}
    assert kinds[str(tmp_path / "random")] == "masker"
    assert kinds["random"] == "baseline"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods=grad_cam", "--checkpoint=best"], "--checkpoint evaluates one run"),
        (["--box=quantile"], "--box is of a comparison: add --metrics localisation"),
    ],
)
def test_flags_without_effect_are_refused(arguments, message, casm_run):
    done = subprocess.run(
        [sys.executable, "evaluate.py", f"--workdir={casm_run}", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1
