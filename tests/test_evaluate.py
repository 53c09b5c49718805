"""evaluate.py on a few images in memory that tell their own masks and classes."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import evaluate
from configs import casm_shapes
from saliency_jax.errors import InputError
from saliency_jax.models import create
from saliency_jax.training import run_folder
from saliency_jax.training.checkpoints import Checkpoints
from saliency_jax.training.state import NetState, TrainState
from tests.painted import SIZE, paint, painted_masker, source_of

BOX = [2, 4, 10, 12]  # xmin, ymin, xmax, ymax


@pytest.fixture
def masker():
    return painted_masker()


RECORDS = [
    paint(BOX, predicted=3, label=3, boxes=[BOX]),  # found, right
    paint(BOX, predicted=4, label=3, boxes=[BOX]),  # found, wrong
    paint([2, 4, 10, 8], predicted=3, label=3, boxes=[BOX]),  # half of it: a miss
    paint(BOX, predicted=1, label=1, boxes=[[0, 0, 3, 3], BOX]),  # the second
    paint([0, 0, 4, 4], predicted=1, label=1, boxes=[]),  # not scored
]


@pytest.fixture
def painted_run(tmp_path, monkeypatch, masker):
    """A folder that looks like a run on RECORDS."""
    config = {
        "stage": "casm",
        "data": {
            "name": "painted",
            "class_names": [f"class {i}" for i in range(10)],
            "data_dir": "nowhere",
            "image_size": SIZE,
            "batch_size": 2,
            "num_threads": 1,
        },
        "classifier": {"num_classes": 10},
        "casm": {"thinning": "L100", "score": "entropy", "variant": "author"},
    }
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(evaluate, "load", lambda workdir, checkpoint: (masker, 7))
    monkeypatch.setattr(
        evaluate.sources, "open_source", lambda *names: source_of(RECORDS)
    )
    monkeypatch.setattr(
        evaluate.sources, "evaluation_split", lambda *names: "validation"
    )
    return workdir


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_figures_table_and_pictures(painted_run, capsys):
    evaluate.evaluate(painted_run)
    out = painted_run / "evaluation"
    results = results_of(out)
    casm = results["rows"]["casm"]
    # of the four with boxes the third misses, and the second has the wrong class
    assert casm["le"] == pytest.approx(1 / 4)
    assert casm["om"] == pytest.approx(2 / 4)
    # the third has recall 1/2, and the fourth a box without any overlap
    assert casm["f1"] == pytest.approx((3 + 2 / 3) / 4, abs=1e-5)
    assert casm["f1a"] == pytest.approx((2 + 2 / 3 + 1 / 2) / 4, abs=1e-5)
    assert casm["accuracy"] == pytest.approx(4 / 5)
    assert casm["mask_mean"] == pytest.approx((64 + 64 + 32 + 64) / 4 / SIZE**2)
    assert casm["mask_entropy"] == pytest.approx(0, abs=1e-6)
    low, high = casm["le_interval"]
    assert low < 0.25 < high

    truth = results["rows"]["ground_truth_box"]
    assert truth["le"] == 0 and truth["om"] == pytest.approx(1 / 4)
    whole = results["rows"]["whole_image"]
    assert whole["le"] == 1 and whole["mask_mean"] == 1
    # [2, 14) against a box of 64 pixels: 8 * 8 / 144 is a miss
    assert results["rows"]["center_box"]["le"] == 1

    how = results["how"]
    assert (how["images"], how["images_without_box"]) == (5, 1)
    assert (how["checkpoint"], how["data"], how["split"]) == (
        7,
        "painted",
        "validation",
    )
    assert how["casm"]["thinning"] == "L100"
    assert how["pictures"] == ["grid_0.png", "best_0.png", "worst_0.png"]
    assert how["network_seconds"] > 0 and how["metric_seconds"] > 0

    printed = capsys.readouterr().out
    assert "25.0 [" in printed and "1 without a box" in printed
    for path in (out / "results.json", out / "grid_0.png"):
        assert path.is_file() and str(path) in printed
    assert not list(out.glob("*.partial"))


def test_figures_do_not_depend_on_the_batch_size(painted_run, tmp_path):
    rows = []
    for size in (1, 3, 4, 8):
        evaluate.evaluate(painted_run, batch_size=size, out=tmp_path / f"out{size}")
        rows.append(results_of(tmp_path / f"out{size}")["rows"])
    assert rows[0] == rows[1] == rows[2] == rows[3]


def test_the_follow_ups_box_misses_what_the_authors_hits(painted_run, monkeypatch):
    # five of the box's eight rows; less a row and a column, 28 of 64 pixels
    records = [paint([2, 4, 10, 9], predicted=3, label=3, boxes=[BOX])]
    monkeypatch.setattr(
        evaluate.sources, "open_source", lambda *names: source_of(records)
    )
    errors = {}
    for variant in ("author", "follow_up"):
        evaluate.evaluate(painted_run, variant=variant)
        results = results_of(painted_run / "evaluation")
        assert results["how"]["variant"] == variant and results["judges"] == {}
        errors[variant] = results["rows"]["casm"]["le"]
    assert errors == {"author": 0, "follow_up": 1}
    assert "less its last row and column" in results["how"]["rule"]


def test_limit_takes_the_first_images(painted_run):
    evaluate.evaluate(painted_run, limit=2)
    results = results_of(painted_run / "evaluation")
    assert results["how"]["images"] == 2
    assert results["rows"]["casm"]["le"] == 0
    assert results["rows"]["casm"]["accuracy"] == 0.5


def test_data_without_boxes_gives_accuracy_and_masks_only(painted_run, monkeypatch):
    source = source_of(RECORDS[-1:] * 3, max_boxes=0)
    monkeypatch.setattr(evaluate.sources, "open_source", lambda *names: source)
    evaluate.evaluate(painted_run)
    rows = results_of(painted_run / "evaluation")["rows"]
    assert list(rows) == ["casm"]
    assert "le" not in rows["casm"] and rows["casm"]["accuracy"] == 1
    assert rows["casm"]["mask_mean"] == pytest.approx(16 / SIZE**2)


def test_diverged_masks_are_refused(painted_run, monkeypatch, masker):
    diverged = masker.replace(variables=jnp.array(jnp.nan))
    monkeypatch.setattr(evaluate, "load", lambda *names: (diverged, 7))
    with pytest.raises(InputError, match="not finite"):
        evaluate.evaluate(painted_run)


def test_other_classes_are_refused(painted_run, monkeypatch):
    source = source_of(RECORDS, tuple(map(str, range(100))))
    monkeypatch.setattr(evaluate.sources, "open_source", lambda *names: source)
    with pytest.raises(InputError, match="10 classes.* painted has 100"):
        evaluate.evaluate(painted_run)


def test_a_wrong_judge_is_named_before_the_work(painted_run, tmp_path):
    with pytest.raises(InputError, match="judge nowhere does not exist"):
        evaluate.evaluate(painted_run, judges=["nowhere"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_of_the_folder_is_named(painted_run, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken cannot be written .*--out"):
        evaluate.evaluate(painted_run, out=tmp_path / "taken")


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    """A real run's folder at step 0, with random networks, as `best` alone."""
    workdir = tmp_path_factory.mktemp("runs") / "casm"
    config = casm_shapes.get_config("smoke")
    run_folder.resolve(config, 10)
    config.data.class_names = tuple(f"class {i}" for i in range(10))
    run_folder.prepare(workdir, config)
    options = config.to_dict()
    classifier = create.create_classifier(options["classifier"])
    masker = create.create_masker(options["masker"], classifier)
    networks = create.init_networks(
        classifier, masker, jax.random.key(0), config.data.image_size
    )

    def net(name):
        return NetState(networks[name]["params"], networks[name]["batch_stats"], ())

    state = TrainState(jnp.zeros((), jnp.int32), net("classifier"), net("masker"))
    with Checkpoints(workdir, keep_last=1) as checkpoints:
        checkpoints.save_best(state, 0.5)
    return workdir


def test_real_networks_from_a_checkpoint(saved_run, monkeypatch, tmp_path):
    monkeypatch.setattr(
        evaluate.sources, "open_source", lambda *names: source_of(RECORDS)
    )
    evaluate.evaluate(saved_run, checkpoint="best", split="validation", out=tmp_path)
    results = results_of(tmp_path)
    assert results["how"]["checkpoint"] == 0
    assert results["how"]["image_size"] == 32
    assert 0 < results["rows"]["casm"]["mask_mean"] < 1


def test_wrong_checkpoints_and_data_are_named(saved_run, tmp_path):
    for checkpoint, message in (
        ("last", "no 'last' checkpoint"),
        ("12", "checkpoint"),
        ("newest", "--checkpoint=newest: expected last, best or the step"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate.evaluate(saved_run, checkpoint=checkpoint)
    with pytest.raises(InputError, match="unknown data set 'shape'"):
        evaluate.evaluate(saved_run, checkpoint="best", data="shape")
    with pytest.raises(InputError, match="is not a run"):
        evaluate.evaluate(tmp_path)


def test_classifier_run_is_told_to_train_casm(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"stage": "classifier", "data": {}, "classifier": {}})
    )
    with pytest.raises(InputError, match="has no masker: train one"):
        evaluate.evaluate(tmp_path)


def test_stray_arguments_are_refused():
    with pytest.raises(InputError, match="unexpected argument 'runs/casm'"):
        evaluate.main(["evaluate.py", "runs/casm"])


def test_command_prints_one_line_and_exits_with_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "evaluate.py", f"--workdir={tmp_path / 'missing'}"],
        cwd=Path(evaluate.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "missing" in done.stderr
