"""Runs on networks of the user's own, from the flag to the maps; the README's example."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import evaluate
import train
from saliency_jax import Classifier, load_masker, saliency_fn
from saliency_jax.errors import InputError
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


def own_casm_config(shapes_dir, init, function, **changed):
    """A CASM run with a flag for the network, in a config that names another."""
    named = {"model__factory": FOLDER + function}
    return casm_config(shapes_dir, init, **named, **changed)


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory):
    """Somewhere else, with the README's model file and nothing besides."""
    folder = tmp_path_factory.mktemp("users")
    (source,) = re.findall(r"```python\n(import flax.*?)```", README, re.DOTALL)
    (folder / "my_model.py").write_text(source)
    return folder


def finished(folder, *arguments):
    """Runs a program of ours in the user's folder."""
    program, *rest = map(str, arguments)
    return subprocess.run(
        [sys.executable, str(ROOT / program), *rest],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def train_arguments(stage, workdir, shapes_dir, *others):
    return (
        "train.py",
        f"--config={ROOT}/configs/{stage}_shapes.py:smoke",
        f"--workdir={workdir}",
        f"--config.data.data_dir={shapes_dir}",
        "--config.data.name=shapes/32x32",
        "--config.total_steps=2",
        "--config.model.factory=my_model:create",
        *others,
    )


@pytest.fixture(scope="module")
def runs(users_folder, shapes_dir):
    """The README's commands on smaller data."""
    for stage, others in (
        ("classifier", ()),
        (
            "casm",
            ("--config.classifier.init=classifier", "--config.masker.taps=(0,1,2)"),
        ),
    ):
        done = finished(
            users_folder, *train_arguments(stage, stage, shapes_dir, *others)
        )
        assert done.returncode == 0, done.stderr
    return users_folder


def test_x(runs):
    pass
