"""A user's own pictures, from the folder to a trained classifier."""

import cv2
import numpy as np
import pytest

import train
from saliency_jax.data.prepare import prepare
from tests.runs import classifier_config


@pytest.fixture
def pictures(tmp_path):
    folder, random = tmp_path / "pictures", np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            image = random.integers(0, 256, (40, 50, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{i}.png"), image)
    return folder


@pytest.mark.parametrize("fraction", [None, 0.2])
def test_a_classifier_of_a_folder(fraction, pictures, tmp_path, capsys):
    data_dir, workdir = tmp_path / "data", tmp_path / "run"
    prepare(
        "image_folder",
        str(data_dir),
        str(pictures),
        name="pets",
        validation_fraction=fraction,
    )
    config = classifier_config(data_dir, data__name="pets", data__holdout=0)
    train.train(config, workdir)
    printed = capsys.readouterr().out
    assert f"finished: {workdir}" in printed
    assert (workdir / "validation.json").exists() == bool(fraction)
    if fraction:
        assert "validation (4 images): accuracy" in printed
    else:
        assert "pets has no split validation or test to be scored on" in printed
