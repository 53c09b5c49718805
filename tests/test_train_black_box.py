"""Runs of the stage black_box: two phases, one frozen classifier, any function."""

import json
import math
import shutil

import cv2
import jax
import numpy as np
import pytest

import train
from saliency_jax import Classifier, load_masker, saliency_fn
from saliency_jax.data import pipeline
from saliency_jax.data.prepare import prepare
from saliency_jax.data.sources import open_source
from saliency_jax.errors import InputError
from saliency_jax.evaluation import one_run
from saliency_jax.models import create
from saliency_jax.training.checkpoints import restore_networks, saved_steps
from tests import own_networks
from tests.runs import (
    assert_same_bits,
    black_box_config,
    casm_config,
    classifier_config,
    figures_of,
    lines_of,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def classifier_of(workdir):
    config = json.loads((workdir / "config.json").read_text())
    module = create.create_classifier(config["classifier"])
    like = jax.eval_shape(
        lambda key: create.init_networks(module, None, key, 32), jax.random.key(0)
    )
    return restore_networks(workdir, "last", like)[0]["classifier"]


def test_a_run_leaves_the_figures_of_both_phases(black_box_run):
    lines = lines_of(black_box_run)
    assert [line["step"] for line in lines] == [2, 3, 3, 4, 6, 6]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert "presence_accuracy" in lines[0] and "mask_mean" not in lines[0]
    drawn = {"area", "smoothness", "preserver", "destroyer", "mask_mean"}
    assert drawn <= lines[1].keys() and "presence_accuracy" not in lines[1]
    assert {"held_out/le", "held_out/f1"} < lines[2].keys()
    assert saved_steps(black_box_run, "last") == [6]
    names = sorted(path.name for path in (black_box_run / "pictures").iterdir())
    assert names == ["strip_0000003.png", "strip_0000006.png"]
    config = json.loads((black_box_run / "config.json").read_text())
    assert config["total_steps"] == 6
    assert config["encoder"]["network"] == "resnet10"  # a copy of the black box


def test_the_black_box_does_not_move(black_box_run, deep_classifier_run):
    """Neither parameters nor batch statistics, nor those of the encoder."""
    before = classifier_of(deep_classifier_run)
    after = classifier_of(black_box_run)
    assert jax.tree.leaves(before["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, before, after)
    variables = load_masker(black_box_run).variables
    for collection in ("params", "batch_stats"):
        jax.tree.map(
            np.testing.assert_array_equal,
            before[collection],
            variables[collection]["encoder"],
        )


@pytest.mark.parametrize(
    "last", [2, *(pytest.param(last, marks=pytest.mark.slow) for last in (3, 4))]
)
def test_a_run_interrupted_around_the_phase_boundary_is_the_same_run(
    black_box_run, deep_classifier_run, shapes_dir, tmp_path, monkeypatch, capsys, last
):
    """Bit for bit, and later figures: after a phase's last step, within the next."""
    create_stage = train.STAGES["black_box"]

    def interrupted(config):
        stage = create_stage(config)

        def form(step):
            if step == last:
                raise KeyboardInterrupt
            return stage.form(step)

        return stage._replace(form=form)

    config = black_box_config(shapes_dir, deep_classifier_run, checkpoint__every=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(train.STAGES, "black_box", interrupted)
        train.train(config, tmp_path)
    assert saved_steps(tmp_path, "last") == [last]
    capsys.readouterr()
    train.train(black_box_config(shapes_dir, deep_classifier_run), tmp_path)
    assert f"resumed {tmp_path} at step {last}" in capsys.readouterr().out
    assert_same_bits(tmp_path, black_box_run)
    # Before, each checkpoint began a line of its own.
    after, expected = (
        [line for line in figures_of(run) if line["step"] > last]
        for run in (tmp_path, black_box_run)
    )
    assert after == expected


def test_masks_of_a_run(black_box_run):
    masker = load_masker(black_box_run)
    masks = saliency_fn(masker, IMAGES, np.array([0, 4, 9]))
    assert masks.shape == (3, 32, 32)
    for label, image, mask in zip((0, 4, 9), IMAGES, masks, strict=True):
        np.testing.assert_allclose(saliency_fn(masker, image, label), mask, atol=1e-5)
    assert np.abs(saliency_fn(masker, IMAGES, 1) - masks).max() > 1e-4


def test_without_labels_the_predicted_class_is_explained(black_box_run):
    masker = load_masker(black_box_run)
    predicted = np.argmax(masker.classifier(IMAGES), axis=-1)
    np.testing.assert_allclose(
        saliency_fn(masker, IMAGES), saliency_fn(masker, IMAGES, predicted), atol=1e-5
    )
    with pytest.raises(InputError, match="pass labels, the classes to explain"):
        saliency_fn(masker.replace(classifier=None), IMAGES)
    alone = saliency_fn(masker.replace(classifier=None), IMAGES, predicted)
    np.testing.assert_allclose(alone, saliency_fn(masker, IMAGES), atol=1e-5)


@pytest.mark.parametrize("labels", [10, -1, np.array([0, 1, 10])])
def test_an_unknown_class_is_refused(black_box_run, labels):
    with pytest.raises(InputError, match="the masker knows classes 0 to 9"):
        saliency_fn(load_masker(black_box_run), IMAGES, labels)


def test_labels_of_another_shape_are_refused(black_box_run):
    with pytest.raises(InputError, match="expected one class for each image"):
        saliency_fn(load_masker(black_box_run), IMAGES, np.array([0, 1]))


def test_other_weights_do_not_recompile(black_box_run):
    masker = load_masker(black_box_run)
    traces = []

    @jax.jit
    def masks(masker, images, labels):
        traces.append(0)
        return saliency_fn(masker, images, labels)

    other = masker.replace(variables=jax.tree.map(lambda x: x + 0.1, masker.variables))
    labels = np.array([1, 2, 3])
    assert np.abs(masks(masker, IMAGES, labels) - masks(other, IMAGES, labels)).any()
    assert len(traces) == 1


@pytest.mark.slow
def test_a_function_of_the_users_own_is_a_black_box(
    deep_classifier_run, shapes_dir, tmp_path, monkeypatch
):
    """Trained, resumed, loaded; and its masker outlives it, for given labels."""
    changed = {
        "classifier__function": "tests.own_networks:darkness",
        "classifier__network": "",
        "classifier__init": "",
        "encoder__network": "resnet10",
        "encoder__width": 8,
        "encoder__stem": "small_stride2",
        "encoder__init": str(deep_classifier_run),
        "data__batch_size": 8,
    }
    config = black_box_config(shapes_dir, "", **changed)
    train.train(config, tmp_path)
    masker = load_masker(tmp_path)
    answers = own_networks.darkness(IMAGES / np.float32(255))
    np.testing.assert_allclose(masker.classifier(IMAGES), answers, rtol=1e-5)
    masks = saliency_fn(masker, IMAGES)
    config = black_box_config(shapes_dir, "", **changed)
    train.train(config, tmp_path)  # there is nothing left to do
    one_run.evaluate(tmp_path, judges=[str(tmp_path)])
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert results["judges"][tmp_path.name]["shares_origin"]

    predicted = np.argmax(masker.classifier(IMAGES), axis=-1)
    path = tmp_path / "config.json"
    filed = json.loads(path.read_text())
    filed["classifier"]["function"] = "no_such_module:logits"
    path.write_text(json.dumps(filed))
    masker = load_masker(tmp_path)
    assert masker.classifier is None
    with pytest.raises(InputError, match="bring no_such_module:logits back"):
        one_run.evaluate(tmp_path)
    np.testing.assert_allclose(saliency_fn(masker, IMAGES, predicted), masks, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classifier__init": ""}, "the stage black_box starts from a trained"),
        (
            {"encoder__network": "resnet50"},
            "config.encoder.init is empty: name pretrained weights of resnet50",
        ),
        (
            {"encoder__network": "resnet50", "encoder__init": "nowhere.pth"},
            "config.encoder.init nowhere.pth does not exist",
        ),
        (
            {"classifier__function": "tests.own_networks:darkness"},
            "leave one of the two empty",
        ),
        (
            {
                "classifier__function": "tests.own_networks:darkness",
                "classifier__init": "",
            },
            "config.encoder.network is empty, and a function has no maps",
        ),
        (
            {"classifier__function": "nowhere:logits", "classifier__init": ""},
            "no module 'nowhere'",
        ),
        (
            {
                "classifier__function": "tests.own_networks:brightness_alone",
                "classifier__init": "",
                "encoder__network": "resnet10",
            },
            "gives 2 logits, shapes/32x32 has 10 classes",
        ),
        ({"encoder__width": 7}, "encoder.width = 7, but without a network"),
        ({"encoder__width": -3}, "config.encoder.width = -3: expected at least 0"),
        ({"encoder__mean": (0.5, 0.5)}, "config.encoder.mean = .*three numbers"),
        ({"total_steps": 100}, "the phases have 2 and 4 steps"),
        ({"selector__steps": 0}, "leaves a random selector as it is"),
        (
            {"classifier__function": "logits", "classifier__init": ""},
            "config.classifier.function = 'logits'",
        ),
        ({"black_box__variant": "mine"}, "unknown variant 'mine'"),
        ({"classifier__output": "mine"}, "config.classifier.output = 'mine'"),
        (
            {"classifier__output": "sigmoid"},
            "has classifier.output = 'softmax', this config has 'sigmoid'",
        ),
        (
            {
                "classifier__function": "tests.own_networks:DARKNESS",
                "classifier__output": "sigmoid",
                "classifier__init": "",
                "encoder__network": "resnet10",
            },
            "DARKNESS is a Classifier of output 'softmax': make them agree",
        ),
        ({"removal__removal": "mine"}, "unknown removal 'mine'"),
        ({"masker__upsampling": "mine"}, "masker.upsampling = 'mine'"),
        ({"decoder__fake_probability": 1.5}, "fake_probability = 1.5"),
        ({"decoder__batch_size": 6}, "config.decoder.batch_size = 6 does not divide"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(
    deep_classifier_run, shapes_dir, tmp_path, changed, message
):
    config = black_box_config(shapes_dir, deep_classifier_run)
    config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in changed.items()}
    )
    with pytest.raises(InputError, match=message):
        train.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_images_with_several_labels(deep_classifier_run, tmp_path, monkeypatch):
    """A classifier of independent classes, its masker, and its saliency metric."""
    data, seen = str(tmp_path), []
    for name, create_stage in train.STAGES.items():

        def spied(config, create_stage=create_stage):
            stage = create_stage(config)

            def step(state, batch, *form):
                jax.debug.callback(lambda x: seen.append(x), batch["present"])
                return stage.step(state, batch, *form)

            return stage._replace(step=step)

        monkeypatch.setitem(train.STAGES, name, spied)
    prepare("shapes_pairs", data, image_size=32, num_train=40, num_validation=10)
    changed = {"data__name": "shapes_pairs/32x32", "classifier__output": "sigmoid"}
    classifier, masker = tmp_path / "classifier", tmp_path / "masker"
    train.train(
        classifier_config(
            data,
            classifier__network="resnet10",
            # A classifier may learn to tell more than one of its labels.
            classifier__init=str(deep_classifier_run),
            **changed,
        ),
        classifier,
    )
    assert {"accuracy", "loss"} <= lines_of(classifier)[0].keys()
    train.train(black_box_config(data, classifier, **changed), masker)
    jax.effects_barrier()
    assert len(seen) == 6 + 6 and all((np.sum(x, axis=1) == 2).all() for x in seen)
    loaded = load_masker(masker)
    assert loaded.classifier.output == "sigmoid"
    one_run.evaluate(masker, judges=[str(classifier)])
    rows = json.loads((masker / "evaluation" / "results.json").read_text())["rows"]
    source = open_source("shapes_pairs/32x32", data, "validation")
    (batch,) = pipeline.eval_batches(source, batch_size=10, image_size=32)
    logits = np.asarray(loaded.classifier(batch["image"]))
    scores = np.log1p(np.exp(-logits[np.arange(10), batch["label"]]))
    assert rows["whole_image"]["sm"] == pytest.approx(scores.mean(), rel=1e-3)
    with pytest.raises(InputError, match="CASM plays against a softmax"):
        train.train(casm_config(data, classifier, **changed), tmp_path / "casm")


@pytest.mark.slow
def test_an_encoder_of_its_own_may_have_other_classes(
    deep_classifier_run, shapes_dir, tmp_path
):
    other = tmp_path / "other"
    config = classifier_config(shapes_dir, classifier__network="resnet10")
    train.train(config, other)
    path = other / "config.json"
    filed = json.loads(path.read_text())
    filed["data"]["class_names"] = [f"other {k}" for k in range(10)]
    path.write_text(json.dumps(filed))
    encoder = {"encoder__network": "resnet10", "encoder__init": str(other)}
    config = black_box_config(shapes_dir, deep_classifier_run, **encoder)
    train.train(config, tmp_path / "run")
    filed = json.loads((tmp_path / "run" / "config.json").read_text())
    assert filed["encoder"]["stem"] == "small_stride2"  # as its run says
    assert saliency_fn(load_masker(tmp_path / "run"), IMAGES, 3).shape == (3, 32, 32)
    encoder["encoder__network"] = "resnet18"
    config = black_box_config(shapes_dir, deep_classifier_run, **encoder)
    with pytest.raises(InputError, match="'resnet10', this config has 'resnet18'"):
        train.train(config, tmp_path / "another")


def test_a_classifier_in_the_users_file_is_a_black_box():
    from saliency_jax.models.black_box import own_black_box

    assert isinstance(own_black_box("tests.own_networks:darkness"), Classifier)
    given = own_networks.DARKNESS
    assert own_black_box("tests.own_networks:DARKNESS") is given


def test_a_workdir_of_another_stage(
    deep_classifier_run, casm_run, shapes_dir, tmp_path
):
    other = tmp_path / "casm"
    shutil.copytree(casm_run, other)
    for network in ("", "resnet10"):
        config = black_box_config(
            shapes_dir,
            deep_classifier_run,
            encoder__network=network,
            encoder__init=str(deep_classifier_run) if network else "",
        )
        with pytest.raises(InputError, match="holds a run of another config"):
            train.train(config, other)


def test_evaluation_beside_casm(black_box_run, casm_run, tmp_path, capsys):
    run, other = str(black_box_run), str(casm_run)
    one_run.evaluate(run, beside=[other], judges=[run], out=tmp_path)
    output = capsys.readouterr().out
    assert "black-box masker" in output and "saliency metric" in output
    results = json.loads((tmp_path / "results.json").read_text())
    names = ["black_box", other, "whole_image", "center_box", "ground_truth_box"]
    assert list(results["rows"]) == names
    for row in results["rows"].values():
        assert 0 <= row["le"] <= 1 and math.isfinite(row["sm"])
    assert results["how"]["black_box"]["variant"] == "author"
    assert results["selectivity"] == {}
    picture = cv2.imread(str(tmp_path / "classes.png"))
    assert picture.shape[1] > 6 * 144 and picture.shape[0] > 8 * 144


def test_evaluation_on_pairs(black_box_run, tmp_path, capsys):
    prepare(
        "shapes_pairs", str(tmp_path), image_size=32, num_train=10, num_validation=11
    )
    one_run.evaluate(
        black_box_run,
        data="shapes_pairs/32x32",
        data_dir=str(tmp_path),
        out=tmp_path / "out",
    )
    assert "asked for one of two objects" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    row = results["selectivity"]["black_box"]
    assert row["images"] == 11 and row["prefers_interval"][1] > 0
