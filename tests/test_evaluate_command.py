"""evaluate.py on a run's folder, and what it says to wrong flags."""

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
from saliency_jax.evaluation import one_run
from saliency_jax.models import create
from saliency_jax.training import run_folder
from saliency_jax.training.checkpoints import Checkpoints
from saliency_jax.training.state import NetState, TrainState
from tests.painted import paint, source_of

BOX = [2, 4, 10, 12]
RECORDS = [paint(BOX, predicted=3, label=3, boxes=[BOX]) for _ in range(3)]


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
        one_run.sources, "open_source", lambda *names: source_of(RECORDS)
    )
    one_run.evaluate(
        saved_run, checkpoint="best", split="validation", out=tmp_path, iterations=1
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["how"]["checkpoint"] == 0
    assert results["how"]["image_size"] == 32
    for row in ("casm", "iterative"):
        assert 0 < results["rows"][row]["mask_mean"] < 1


def test_a_trial_does_not_cost_the_results_of_more_images(
    saved_run, monkeypatch, tmp_path
):
    monkeypatch.setattr(
        one_run.sources, "open_source", lambda *names: source_of(RECORDS)
    )
    asked = {"checkpoint": "best", "split": "validation"}
    one_run.evaluate(saved_run, **asked)
    filed = (saved_run / "evaluation" / "results.json").read_bytes()
    with pytest.raises(InputError, match="has the results of 3 images: give --out for"):
        one_run.evaluate(saved_run, limit=2, **asked)
    assert (saved_run / "evaluation" / "results.json").read_bytes() == filed
    one_run.evaluate(saved_run, limit=2, out=tmp_path, **asked)
    assert json.loads((tmp_path / "results.json").read_text())["how"]["images"] == 2
    one_run.evaluate(saved_run, limit=3, **asked)


def test_wrong_checkpoints_and_data_are_named(saved_run, tmp_path):
    for checkpoint, message in (
        ("last", "no 'last' checkpoint"),
        ("12", "checkpoint"),
        ("newest", "--checkpoint=newest: expected last, best or the step"),
    ):
        with pytest.raises(InputError, match=message):
            one_run.evaluate(saved_run, checkpoint=checkpoint)
    with pytest.raises(InputError, match="unknown data set 'shape'"):
        one_run.evaluate(saved_run, checkpoint="best", data="shape")
    with pytest.raises(InputError, match="is not a run"):
        one_run.evaluate(tmp_path)


def test_classifier_run_is_told_to_train_casm(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"stage": "classifier", "data": {}, "classifier": {}})
    )
    with pytest.raises(InputError, match="has no masker: train one"):
        one_run.evaluate(tmp_path)


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
