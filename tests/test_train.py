"""The training loop: what a run leaves, resuming, and what it says to mistakes."""

import json
import math
import os
import shutil
import signal

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

import train
from saliency_jax import load_masker, saliency_fn
from saliency_jax.data import pipeline
from saliency_jax.data.sources import open_source
from saliency_jax.errors import InputError
from saliency_jax.evaluation import one_run
from saliency_jax.loading import load_classifier
from saliency_jax.training.checkpoints import checkpoint_folder, saved_steps
from tests.runs import (
    assert_same_bits,
    casm_config,
    classifier_config,
    figures_of,
    lines_of,
)


def test_a_classifier_run_leaves_its_figures(classifier_run):
    lines = lines_of(classifier_run)
    assert [line["step"] for line in lines] == [2, 3, 3, 4, 6, 6]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert {"loss", "accuracy", "learning_rate", "images_per_second"} <= lines[0].keys()
    assert {"held_out/accuracy", "held_out/top5_accuracy"} < lines[2].keys()
    scores = json.loads((classifier_run / "validation.json").read_text())
    assert 0 <= scores["accuracy"] <= scores["top5_accuracy"] <= 1
    assert saved_steps(classifier_run, "last") == [6]
    assert saved_steps(classifier_run, "best")
    assert not checkpoint_folder(classifier_run, "pool").exists()
    assert not (classifier_run / "pictures").exists()


def test_a_casm_run_leaves_its_figures(casm_run):
    lines = lines_of(casm_run)
    assert [line["step"] for line in lines] == [2, 3, 3, 4, 6, 6]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    trained = {"clean_loss", "masked_loss", "masker_loss", "mask_mean", "historic"}
    assert trained <= lines[0].keys()
    held_out = {"held_out/le", "held_out/om", "held_out/f1", "held_out/accuracy"}
    assert held_out < lines[2].keys()
    # both critics had their turn, or the run would show less than it should
    assert 0 < sum(line["historic"] for line in lines if "historic" in line) < 3
    assert saved_steps(casm_run, "last") == [6]
    pool = checkpoint_folder(casm_run, "pool")
    assert {path.name for path in pool.iterdir()} == {
        "2.safetensors",
        "4.safetensors",
        "6.safetensors",
    }


def test_a_run_leaves_its_config_and_environment(casm_run, classifier_run, shapes_dir):
    config = json.loads((casm_run / "config.json").read_text())
    assert config["stage"] == "casm"
    assert config["classifier"]["num_classes"] == 10  # resolved from the data
    assert config["classifier"]["init"] == str(classifier_run)
    assert config["data"]["name"] == "shapes/32x32"
    (environment,) = json.loads((casm_run / "environment.json").read_text())["runs"]
    assert environment["packages"]["jax"] == jax.__version__
    assert len(environment["devices"]) == 4
    commit = environment["commit"].removesuffix("-dirty")
    assert len(commit) == 40 or commit == ""


def test_pictures_and_tensorboard(casm_run):
    names = sorted(path.name for path in (casm_run / "pictures").iterdir())
    assert names == ["strip_0000003.png", "strip_0000006.png"]
    strip = cv2.imread(str(casm_run / "pictures" / names[0]))
    # eight rows of image, mask, masked-in, masked-out, enlarged to a readable size
    assert strip.shape[0] > 8 * 144 and strip.shape[1] > 4 * 144
    assert strip.std() > 10
    (events,) = (casm_run / "tensorboard").iterdir()
    content = events.read_bytes()
    for name in (b"masker_loss", b"held_out/le", b"strip"):
        assert name in content


@pytest.mark.parametrize(
    "pool_memory", ["device", pytest.param("pinned_host", marks=pytest.mark.slow)]
)
def test_an_interrupted_run_becomes_the_same_run(
    casm_run, classifier_run, shapes_dir, tmp_path, monkeypatch, capsys, pool_memory
):
    """Bit for bit: networks, optimisers, pool, the place in the data, and figures."""
    flip = train.casm_stage.casm_step.critic_is_historic

    def interrupted(options, slots, step):
        if step == 5:
            raise KeyboardInterrupt
        return flip(options, slots, step)

    config = casm_config(shapes_dir, classifier_run)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.casm_stage.casm_step, "critic_is_historic", interrupted)
        train.train(config, tmp_path)
    assert saved_steps(tmp_path, "last") == [3]
    capsys.readouterr()
    config = casm_config(shapes_dir, classifier_run, casm__pool_memory=pool_memory)
    save, kinds = train.Checkpoints.save, set()

    def spy(checkpoints, state, *others):
        stacks = jax.tree.leaves(state.pool.params)
        kinds.update(leaf.sharding.memory_kind for leaf in stacks)
        return save(checkpoints, state, *others)

    with monkeypatch.context() as patch:
        patch.setattr(train.Checkpoints, "save", spy)
        train.train(config, tmp_path)
    assert kinds == {pool_memory}
    assert f"resumed {tmp_path} at step 3" in capsys.readouterr().out
    assert_same_bits(tmp_path, casm_run)
    for kind in ("last", "best"):
        assert saved_steps(tmp_path, kind) == saved_steps(casm_run, kind)
    assert figures_of(tmp_path) == figures_of(casm_run)


@pytest.mark.slow
def test_a_run_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before(
    classifier_run, shapes_dir, tmp_path, capsys
):
    workdir, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    config = casm_config(shapes_dir, classifier_run, checkpoint__keep_last=2)
    train.train(config, workdir)
    assert saved_steps(workdir, "last") == [3, 6]
    shutil.copytree(workdir, undisturbed)
    path = workdir / "checkpoints" / "last" / "6" / "meta" / "metadata"
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    capsys.readouterr()
    train.train(config, workdir)
    out = capsys.readouterr().out
    assert "warning: checkpoint last/6 is damaged" in out and "step 3 is used" in out
    assert f"resumed {workdir} at step 3" in out
    assert_same_bits(workdir, undisturbed)
    assert figures_of(workdir) == figures_of(undisturbed)


def test_a_run_that_is_asked_to_stop_saves_first(
    casm_run, classifier_run, shapes_dir, tmp_path, monkeypatch, capsys
):
    """Within a save interval, and goes on to the same networks."""
    flip = train.casm_stage.casm_step.critic_is_historic

    def terminated(options, slots, step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return flip(options, slots, step)

    config = casm_config(shapes_dir, classifier_run)
    with monkeypatch.context() as patch:
        patch.setattr(train.casm_stage.casm_step, "critic_is_historic", terminated)
        assert train.train(config, tmp_path) is signal.SIGTERM
    assert saved_steps(tmp_path, "last")[-1] == 5
    assert "stopped by SIGTERM: the same command goes on" in capsys.readouterr().out
    assert lines_of(tmp_path)[-1]["step"] == 5
    assert train.train(casm_config(shapes_dir, classifier_run), tmp_path) is None
    assert f"resumed {tmp_path} at step 5" in capsys.readouterr().out
    assert_same_bits(tmp_path, casm_run)


def test_a_run_stores_its_pool_in_the_type_that_the_config_says(
    classifier_run, shapes_dir, tmp_path
):
    config = casm_config(
        shapes_dir, classifier_run, casm__pool_dtype="bfloat16", total_steps=3
    )
    train.train(config, tmp_path)
    entries = [*checkpoint_folder(tmp_path, "pool").iterdir()]
    assert entries
    for entry in map(safetensors.numpy.load_file, entries):
        types = {name: str(value.dtype) for name, value in entry.items()}
        assert {types[n] for n in types if n.startswith("params")} == {"bfloat16"}
        assert {types[n] for n in types if n.startswith("batch")} == {"float32"}
    with pytest.raises(InputError, match="pool_dtype was 'bfloat16', now 'float32'"):
        train.train(casm_config(shapes_dir, classifier_run, total_steps=3), tmp_path)


def test_best_is_judged_on_training_images_that_are_held_out(
    classifier_run, shapes_dir, tmp_path, monkeypatch
):
    trained, evaluated = [], []
    make, batches = train.pipeline.make_train_iterator, train.pipeline.eval_batches

    def spy_train(source, **options):
        trained.append(source)
        return make(source, **options)

    def spy_eval(source, **options):
        evaluated.append(source)
        return batches(source, **options)

    monkeypatch.setattr(train.pipeline, "make_train_iterator", spy_train)
    monkeypatch.setattr(train.pipeline, "eval_batches", spy_eval)
    train.train(casm_config(shapes_dir, classifier_run, total_steps=3), tmp_path)
    (source,) = trained
    assert evaluated and {other.split for other in [source, *evaluated]} == {"train"}
    whole = train.sources.open_source("shapes/32x32", str(shapes_dir), "train")
    for other in evaluated:
        assert not {*source.indices} & {*other.indices}
        assert sorted([*source.indices, *other.indices]) == [*range(len(whole))]


def test_only_training_images_have_random_labels(shapes_dir, tmp_path, monkeypatch):
    """Those held out and those of the validation set keep their own."""
    trained, evaluated = [], []
    make, batches = train.pipeline.make_train_iterator, train.pipeline.eval_batches

    def spy_train(source, **options):
        trained.append(options["random_labels"])
        return make(source, **options)

    def spy_eval(source, **options):
        evaluated.append(source.split)
        labels = [source[i]["label"] for i in range(len(source))]
        for batch in batches(source, **options):
            shown = batch["label"][batch["valid"]].tolist()
            assert shown == [labels.pop(0) for _ in shown]
            yield batch

    monkeypatch.setattr(train.pipeline, "make_train_iterator", spy_train)
    monkeypatch.setattr(train.pipeline, "eval_batches", spy_eval)
    config = classifier_config(shapes_dir, data__random_labels=True)
    train.train(config, tmp_path)
    assert trained == [True] and {*evaluated} == {"train", "validation"}
    filed = json.loads((tmp_path / "config.json").read_text())
    assert filed["data"]["random_labels"] is True


def test_a_run_of_other_images_is_another_run(casm_run, classifier_run, shapes_dir):
    """A folder of the same name may hold more of them elsewhere."""
    filed = json.loads((casm_run / "config.json").read_text())
    whole = train.sources.open_source("shapes/32x32", str(shapes_dir), "train")
    assert filed["data"]["num_train"] == len(whole)
    other = json.loads(json.dumps(filed))
    other["data"]["num_train"] += 1
    (difference,) = train.run_folder.differing(filed, other)
    assert difference.startswith("config.data.num_train was")


def test_casm_starts_from_the_classifier_that_it_is_given(
    classifier_run, shapes_dir, tmp_path
):
    """F never moves it, and a masker's own encoder starts as a copy of it."""
    frozen = {"masker__encoder": "own", "masker__optimiser__learning_rate": 0.0}
    config = casm_config(
        shapes_dir, classifier_run, "F", **frozen, total_steps=1, log__evaluate_every=9
    )
    train.train(config, tmp_path)
    (name,) = (checkpoint_folder(classifier_run, "last")).iterdir()
    with ocp.StandardCheckpointer() as checkpointer:
        given = checkpointer.restore(name / "networks")["classifier"]
    masker = load_masker(tmp_path)
    for part in ("params", "batch_stats"):
        start = jax.tree.leaves(given[part])
        classifier = jax.tree.leaves(masker.classifier.variables[part])
        for one, other in zip(classifier, start, strict=True):
            np.testing.assert_array_equal(one, other)
    encoder = jax.tree.leaves(masker.variables["params"]["encoder"])
    for one, other in zip(encoder, jax.tree.leaves(given["params"]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_run_of_another_config_is_not_continued(casm_run, classifier_run, shapes_dir):
    before = (casm_run / "config.json").read_text()
    config = casm_config(
        shapes_dir, classifier_run, seed=1, casm__score="classification"
    )
    with pytest.raises(InputError) as raised:
        train.train(config, casm_run)
    message = str(raised.value)
    assert "config.seed was 0, now 1" in message
    assert "config.casm.score was 'entropy', now 'classification'" in message
    assert "--workdir" in message
    assert (casm_run / "config.json").read_text() == before


def test_a_loss_that_is_not_finite_stops_the_run(shapes_dir, tmp_path):
    config = classifier_config(
        shapes_dir, classifier__optimiser__learning_rate=1e38, data__holdout=0
    )
    with pytest.raises(InputError, match="loss is not finite at step 1, .* in .*npz:"):
        train.train(config, tmp_path)
    assert saved_steps(tmp_path, "last") == []
    data = pipeline.make_train_iterator(
        open_source("shapes/32x32", shapes_dir, "train"),
        batch_size=config.data.batch_size,
        image_size=32,
        seed=config.seed,
        min_area=config.data.min_area,
        flip=config.data.flip,
        erasing_probability=config.data.erasing_probability,
    )
    next(data)
    kept = dict(np.load(tmp_path / "not_finite_at_step_1.npz"))
    jax.tree.map(np.testing.assert_array_equal, kept, dict(next(data)))
    data.close()


def test_a_step_that_is_not_finite_can_be_left_out(shapes_dir, tmp_path, monkeypatch):
    create_stage = train.STAGES["classifier"]

    def spoiled(config):
        stage = create_stage(config)

        def step(state, batch):
            after, metrics = stage.step(state, batch)
            spoil = lambda x: jnp.where(state.step == 2, jnp.nan, x)
            params = jax.tree.map(spoil, after.classifier.params)
            classifier = after.classifier.replace(params=params)
            return after.replace(classifier=classifier), metrics

        return stage._replace(step=step)

    monkeypatch.setitem(train.STAGES, "classifier", spoiled)
    message = "an updated weight of the classifier is not finite at step 2, "
    with pytest.raises(InputError, match=message):
        train.train(classifier_config(shapes_dir), tmp_path / "stopped")
    config = classifier_config(shapes_dir, not_finite="skip")
    train.train(config, tmp_path / "skipped")
    monkeypatch.setattr(train.finite, "PATIENCE", 1)
    with pytest.raises(
        InputError, match="classifier is not finite at step 2, .* workdir$"
    ):
        train.train(config, tmp_path / "impatient")
    lines = lines_of(tmp_path / "skipped")
    shares = {line["step"]: line["finite"] for line in lines if "finite" in line}
    assert shares == {2: 1, 3: 0, 4: 1, 6: 1}
    assert saved_steps(tmp_path / "skipped", "last") == [6]
    weights = load_classifier(tmp_path / "skipped").variables
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data__data_dir": "nowhere"}, "not prepared in nowhere.*data prepare shapes"),
        ({"data__name": "shape"}, "unknown data set 'shape'"),
        ({"data__batch_size": 6}, "batch_size = 6 does not divide over 4 devices"),
        ({"data__holdout": 60}, "cannot hold out 60"),
        ({"classifier__num_classes": 7}, "has 10 classes: leave it at 0"),
        ({"classifier__network": "resnet11"}, "no network 'resnet11'.*resnet10"),
        ({"classifier__dtype": "float16"}, "dtype = 'float16'.*bfloat16"),
        ({"classifier__stem": "tiny"}, "stem 'tiny' is unknown"),
        ({"classifier__optimiser__name": "lamb"}, "optimiser 'lamb'"),
        ({"stage": "masker"}, "stage = 'masker'.*casm"),
        ({"total_steps": 0}, "total_steps = 0: expected at least 1"),
    ],
)
def test_a_mistake_in_the_config_is_named(shapes_dir, tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        train.train(classifier_config(shapes_dir, **changed), tmp_path)


def test_casm_without_a_classifier_names_the_command_that_makes_one(
    shapes_dir, tmp_path
):
    with pytest.raises(InputError) as raised:
        train.train(casm_config(shapes_dir, ""), tmp_path)
    message = str(raised.value)
    assert "--config.classifier.init" in message
    assert "python train.py --config configs/classifier_shapes.py:smoke " in message
    assert not list(tmp_path.iterdir())


def test_a_command_without_its_flags_says_which():
    with pytest.raises(InputError, match="--config FILE and --workdir FOLDER"):
        train.main(["train.py"])


def test_evaluation_and_saliency_maps_of_a_run(casm_run, tmp_path):
    one_run.evaluate(casm_run, limit=10, out=tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rows"]["casm"].keys() >= {"le", "om", "f1", "f1a", "accuracy"}
    assert results["how"]["checkpoint"] == 6
    masks = saliency_fn(load_masker(casm_run), np.zeros((2, 32, 32, 3), np.uint8))
    assert masks.shape == (2, 32, 32) and np.isfinite(masks).all()
