"""Smoke runs on other backbones than ResNet, from the flags to `load_masker`."""

import json

import jax
import numpy as np
import pytest

import train
from saliency_jax import load_masker, saliency_fn
from tests.runs import casm_config, classifier_config

EMPTY = {"classifier__width": 0, "classifier__stem": ""}
OPTIONS = {
    # Without BatchNorm there are no batch statistics to save, pool and restore.
    "squeezenet1_1": {},
    "mobilenet_v1": {
        "classifier__width_multiplier": 0.25,
        "classifier__padding": "keras",
    },
    "vgg11": {"classifier__width": 4},
    "small_cnn": {"classifier__width": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("network", OPTIONS)
def test_classifier_then_casm_then_maps(network, shapes_dir, tmp_path):
    changed = {"classifier__network": network, **EMPTY}
    classifier = tmp_path / "classifier"
    train.train(
        classifier_config(shapes_dir, **(changed | OPTIONS[network])), classifier
    )

    # The options and the normalisation come from the run.
    changed |= {"masker__encoder": "own", "masker__taps": (0, 4)}
    workdir = tmp_path / "casm"
    make = lambda **more: casm_config(shapes_dir, classifier, **changed, **more)
    train.train(make(), workdir)
    filed = json.loads((workdir / "config.json").read_text())
    first = json.loads((classifier / "config.json").read_text())
    for name in ("width_multiplier", "padding", "epsilon"):
        assert filed["classifier"][name] == first["classifier"][name]
    assert filed["data"]["mean"] == first["data"]["mean"]

    masker = load_masker(workdir)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    masks = saliency_fn(masker, images)
    assert masks.shape == (2, 32, 32) and np.isfinite(masks).all()

    # Resumed where it ended: the same networks.
    train.train(make(), workdir)
    again = load_masker(workdir)
    for before, after in zip(*map(jax.tree.leaves, (masker, again)), strict=True):
        np.testing.assert_array_equal(before, after)
