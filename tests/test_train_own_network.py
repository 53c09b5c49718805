"""Runs on networks of the user's own, from the flag to the maps, as in the README."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from saliency_jax import load_masker, saliency, saliency_fn
from saliency_jax.errors import InputError
from saliency_jax.evaluation import one_run
from saliency_jax.models.create import create_backbone, create_masker, init_networks
from saliency_jax.training.casm_step import init_pool, make_casm_step
from saliency_jax.training.classifier_step import make_classifier_step
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.state import TrainState, create_net
from tests.runs import casm_config, classifier_config
from tests.training import tiny

ROOT = Path(train.__file__).parent
README = (ROOT / "README.md").read_text()
FOLDER = "tests.own_networks:"


@pytest.mark.parametrize("function", ["plain", "batch_norm", "group_norm"])
@pytest.mark.parametrize("encoder", ["shared", "own"])
def test_it_fits_both_stages(function, encoder):
    """By shapes alone: steps give back what they were given, empty statistics too."""
    classifier = create_backbone(FOLDER + function, tiny.CLASSES, dtype=jnp.float32)
    decoder = {"taps": (0, 1), "features": 4, "final_upsampling": "nearest"}
    masker = create_masker(decoder | {"encoder": encoder}, classifier)
    sgd, options = create_optimiser(tiny.SGD, 10), tiny.options("L2")

    init = lambda key: init_networks(classifier, masker, key, tiny.SIZE)
    classifier_step = make_classifier_step(
        classifier, sgd, mean=options.mean, std=options.std, label_smoothing=0.0
    )
    casm_step = make_casm_step(classifier, masker, sgd, sgd, options)

    def trained(key):
        nets = [create_net(variables, sgd) for variables in init(key).values()]
        start = TrainState(jnp.int32(0), nets[0])
        game = TrainState(jnp.int32(0), *nets, init_pool(nets[0], 2, options))
        first = classifier_step(start, tiny.batch())[0]
        played = [casm_step(game, tiny.batch(), past)[0] for past in (False, True)]
        return first.classifier.variables, [
            {"classifier": s.classifier.variables, "masker": s.masker.variables}
            for s in played
        ]

    before = jax.eval_shape(init, jax.random.key(0))
    assert bool(before["classifier"]["batch_stats"]) == (function == "batch_norm")
    first, played = jax.eval_shape(trained, jax.random.key(0))
    assert first == before["classifier"]
    assert played == [before, before]


def block(beginning):
    """The README's Python that begins so."""
    (source,) = re.findall(rf"```python\n({beginning}.*?)```", README, re.DOTALL)
    return source


def command(folder, workdir, shapes_dir, *others):
    """Runs train.py in the user's folder, on smaller data for two steps."""
    stage = "casm" if workdir == "casm" else "classifier"
    arguments = (
        f"{ROOT}/train.py",
        f"--config={ROOT}/configs/{stage}_shapes.py:smoke",
        f"--workdir={workdir}",
        f"--config.data.data_dir={shapes_dir}",
        "--config.data.name=shapes/32x32",
        "--config.data.holdout=0",
        "--config.total_steps=2",
        *others,
    )
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory, shapes_dir):
    """Somewhere else, with the README's model and its runs in both stages."""
    folder = tmp_path_factory.mktemp("users")
    (folder / "my_model.py").write_text(block("import flax"))
    factory = "--config.model.factory=my_model:create"
    of_casm = ("--config.masker.taps=(0,1,2)", "--config.classifier.init=classifier")
    for workdir, others in (("classifier", ()), ("casm", of_casm)):
        done = command(folder, workdir, shapes_dir, factory, *others)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"finished: {workdir}\n")
    return folder


@pytest.fixture
def elsewhere(users_folder, tmp_path, monkeypatch):
    """Another process of the user's, as it were, in a folder without the model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_model", None)


@pytest.fixture
def at_home(elsewhere, users_folder, monkeypatch):
    monkeypatch.chdir(users_folder)


def test_a_run_files_the_factory(users_folder):
    for workdir in ("classifier", "casm"):
        config = json.loads((users_folder / workdir / "config.json").read_text())
        assert config["model"] == {"factory": "my_model:create"}
        assert config["classifier"]["network"] == "my_model:create"
        # not the options of the network that the experiment has
        assert config["classifier"]["width"] == 0 and config["classifier"]["stem"] == ""


def test_maps_of_a_run(at_home):
    masker = load_masker("casm")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    masks = saliency_fn(masker, images)
    assert masks.shape == (2, 32, 32) and masks.std() > 0
    assert masker.classifier.variables["batch_stats"] == {}
    assert len(masker.classifier.labels) == masker.classifier(images).shape[-1] == 10
    compiled = saliency._jitted._cache_size()
    again = jax.tree.map(lambda leaf: 0.5 * leaf, load_masker("casm"))
    assert np.abs(saliency_fn(again, images) - masks).max() > 0
    assert saliency._jitted._cache_size() == compiled


def test_evaluation_of_a_run(at_home, tmp_path):
    one_run.evaluate("casm", limit=8, out=tmp_path)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert rows["casm"].keys() >= {"le", "accuracy"}


def resumed_config(shapes_dir, **changed):
    values = {
        "model__factory": "my_model:create",
        "masker__taps": (0, 1, 2),
        "data__holdout": 0,
        "total_steps": 2,
    }
    return casm_config(shapes_dir, "classifier", "L100", **values | changed)


def test_a_run_is_resumed(at_home, shapes_dir, capsys):
    train.train(resumed_config(shapes_dir), Path("casm"))
    assert "resumed casm at step 2" in capsys.readouterr().out


def test_without_the_module_it_is_said_what_is_missing(
    elsewhere, users_folder, shapes_dir
):
    workdir = users_folder / "casm"
    for use in (
        lambda: load_masker(workdir),
        lambda: one_run.evaluate(workdir, out=elsewhere),
        lambda: train.train(resumed_config(shapes_dir), workdir),
    ):
        with pytest.raises(InputError, match="no module 'my_model' in .*PYTHONPATH"):
            use()


def test_a_run_without_the_flag_is_another(at_home, shapes_dir):
    config = resumed_config(shapes_dir, model__factory="")
    with pytest.raises(InputError, match="was 'my_model:create', now 'resnet4'"):
        train.train(config, Path("casm"))
    with pytest.raises(InputError, match="'my_model:create', this config has 'resnet4"):
        train.train(config, Path("new"))


def test_a_mistake_is_one_line_and_exit_code_2(users_folder, shapes_dir):
    factory = "--config.model.factory=my_model:make"
    done = command(users_folder, "new", shapes_dir, factory)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(
        "error: config.model.factory = my_model:make is not there: "
    )
    assert done.stderr.endswith("my_model.py has no function 'make'\n")
    assert not (users_folder / "new").exists()


def test_the_readmes_classifiers(at_home, users_folder, monkeypatch):
    monkeypatch.syspath_prepend(users_folder)
    names = {}
    exec(compile(block("import jax\nimport jax.numpy"), "README.md", "exec"), names)
    assert names["logits"].shape == (4, 2)
    red = np.full((1, 8, 8, 3), (51, 0, 255), np.uint8)
    np.testing.assert_allclose(names["redness"](red), [[0.2, 0.0]], atol=1e-6)


def test_logits_alone_make_a_classifier_run_but_no_casm_run(shapes_dir, tmp_path):
    own = {"model__factory": FOLDER + "logits_alone", "total_steps": 1}
    own |= {"data__holdout": 0}
    train.train(classifier_config(shapes_dir, **own), tmp_path / "classifier")
    config = casm_config(shapes_dir, tmp_path / "classifier", **own)
    with pytest.raises(InputError, match="no maps, which a masker reads: let its net"):
        train.train(config, tmp_path / "casm")


@pytest.mark.slow
@pytest.mark.parametrize("function", ["plain", "batch_norm"])
def test_an_encoder_of_its_own(function, shapes_dir, tmp_path):
    own = {"model__factory": FOLDER + function}
    train.train(classifier_config(shapes_dir, **own), tmp_path / "classifier")
    own["masker__encoder"] = "own"
    config = casm_config(shapes_dir, tmp_path / "classifier", **own)
    train.train(config, tmp_path / "casm")
    masker = load_masker(tmp_path / "casm", "best")
    assert masker.variables["params"]["encoder"].keys() >= {"Conv_0", "Dense_0"}
    masks = saliency_fn(masker, np.zeros((2, 32, 32, 3), np.uint8))
    assert np.isfinite(masks).all()
