"""The stage `generator` through the training loop, resuming, loading, mistakes."""

import json
import math

import cv2
import jax
import numpy as np
import pytest

import train
from saliency_jax import load_masker
from saliency_jax.errors import InputError
from saliency_jax.loading import load_classifier, load_generator
from saliency_jax.training.checkpoints import saved_steps
from tests.interrupted import interrupt
from tests.runs import (
    arrays_of,
    assert_same_bits,
    classifier_config,
    figures_of,
    generator_config,
    lines_of,
)


def test_a_generator_run_leaves_its_figures_and_samples(generator_run):
    lines = lines_of(generator_run)
    assert [line["step"] for line in lines] == [2, 3, 4, 6]  # and nothing held out
    assert all(math.isfinite(value) for line in lines for value in line.values())
    trained = {"discriminator_loss", "generator_loss", "real_probability"}
    assert trained | {"fake_probability"} <= lines[0].keys()
    assert saved_steps(generator_run, "last") == [6]
    assert not saved_steps(generator_run, "best")
    assert not (generator_run / "validation.json").exists()
    names = sorted(path.name for path in (generator_run / "pictures").iterdir())
    assert names == ["samples_0000003.png", "samples_0000006.png"]
    one, other = (cv2.imread(str(generator_run / "pictures" / name)) for name in names)
    assert one.shape[0] == one.shape[1] >= 8 * 32
    assert (one != other).any()
    config = json.loads((generator_run / "config.json").read_text())
    assert config["stage"] == "generator" and "classifier" not in config


def test_an_interrupted_run_becomes_the_same_run(
    generator_run, shapes_dir, tmp_path, monkeypatch, capsys
):
    """Bit for bit: both networks, both optimisers and the place in the data."""
    interrupt(generator_config(shapes_dir), tmp_path, monkeypatch)
    assert saved_steps(tmp_path, "last") == [3]
    capsys.readouterr()
    train.train(generator_config(shapes_dir), tmp_path)
    assert f"resumed {tmp_path} at step 3" in capsys.readouterr().out
    assert_same_bits(tmp_path, generator_run)
    parts = {"generator", "discriminator"}
    assert {name.split("'")[1] for name in arrays_of(tmp_path)[1]} == parts
    assert figures_of(tmp_path) == figures_of(generator_run)


def test_a_finished_run_is_loaded(generator_run):
    generator = load_generator(generator_run)
    images = jax.jit(lambda g, key: g.samples(key, 3))(generator, jax.random.key(0))
    assert images.shape == (3, 32, 32, 3) and np.isfinite(images).all()
    _, arrays, _ = arrays_of(generator_run)
    for name, variables in (
        ("generator", generator.variables),
        ("discriminator", generator.discriminator_variables),
    ):
        leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
        for path, leaf in leaves:
            saved = arrays[f"[0]['{name}']['params']{jax.tree_util.keystr(path)}"]
            np.testing.assert_array_equal(leaf, saved)
    with pytest.raises(InputError, match=r"no checkpoint of step 5: it has \[6\]"):
        load_generator(generator_run, 5)


def test_runs_of_the_wrong_stage_are_named(generator_run, classifier_run, tmp_path):
    with pytest.raises(InputError, match="stage 'classifier' and has no generator"):
        load_generator(classifier_run)
    neither = "stage 'generator', which has neither a classifier nor a masker"
    for load in (load_classifier, load_masker):
        with pytest.raises(InputError, match=neither):
            load(generator_run)
    with pytest.raises(InputError, match="is not a run"):
        load_generator(tmp_path)


def test_a_generator_is_no_classifier_to_start_from(
    generator_run, shapes_dir, tmp_path
):
    config = classifier_config(shapes_dir, classifier__init=str(generator_run))
    with pytest.raises(InputError, match="neither a classifier nor a masker"):
        train.train(config, tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data__holdout": 5}, "holdout = 5, but a generator has no score"),
        ({"data__random_labels": True}, "random_labels = True.* reads no labels"),
        ({"data__image_size": 40}, "a multiple of 16, and config.data.image_size is"),
        ({"generator__width": 0}, "generator.width = 0: expected at least 1"),
        ({"generator__optimiser__beta1": 2.0}, "beta1 = 2.0: expected 0 to 1"),
        ({"discriminator__real_label": -1.0}, "real_label = -1.0: expected 0 to 1"),
    ],
)
def test_a_mistake_in_the_config_is_named(shapes_dir, tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        train.train(generator_config(shapes_dir, **changed), tmp_path)
