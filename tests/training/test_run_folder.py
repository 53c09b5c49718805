"""A run's folder: what must fit, what may differ in a continuation, what is filed."""

import json
import os

import jax
import pytest

from configs import black_box_shapes, casm_shapes, classifier_shapes
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import IMAGENET_MEAN
from saliency_jax.run_config import read_run_config
from saliency_jax.training import run_folder
from saliency_jax.training.checkpoints import saved_steps


def config(**changed):
    made = casm_shapes.get_config("smoke")
    run_folder.resolve(made, 10)
    made.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in changed.items()}
    )
    return made


def pretend_checkpoint(workdir):
    """What orbax leaves of a committed checkpoint, as far as a name goes."""
    folder = workdir / "checkpoints" / "last" / "3"
    folder.mkdir(parents=True)
    (folder / "_CHECKPOINT_METADATA").write_text("{}")
    (folder / "commit_success.txt").write_text("")


def test_resolve_takes_the_number_of_classes_from_the_data():
    made = classifier_shapes.get_config("smoke")
    assert made.classifier.num_classes == 0
    run_folder.resolve(made, 10)
    assert made.classifier.num_classes == 10
    run_folder.resolve(made, 10)
    with pytest.raises(InputError, match="num_classes = 10, but shapes has 100"):
        run_folder.resolve(made, 100)


@pytest.mark.parametrize(
    "name",
    [
        "total_steps",
        "data.batch_size",
        "checkpoint.every",
        "checkpoint.keep_last",
        "log.every",
        "log.evaluate_every",
        "log.picture_every",
        "casm.pool_slots",
    ],
)
def test_counts_are_at_least_one(name):
    made = casm_shapes.get_config("smoke")
    made.update_from_flattened_dict({name: 0})
    with pytest.raises(InputError, match=rf"config\.{name} = 0: expected at least 1"):
        run_folder.resolve(made, 10)


@pytest.mark.parametrize("name", ["casm.pool_dtype", "casm.pool_memory"])
def test_choices_are_told(name):
    made = casm_shapes.get_config("smoke")
    made.update_from_flattened_dict({name: "float16"})
    expected = rf"config\.{name} = 'float16': expected one of \('"
    with pytest.raises(InputError, match=expected):
        run_folder.resolve(made, 10)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("seed", -1, "0 to 4294967295"),
        ("seed", 2**32, "0 to 4294967295"),
        ("data.image_size", 0, "1 to 16384"),
        ("classifier.width", -4, "at least 0"),
        ("masker.features", 0, "at least 1"),
        ("classifier.optimiser.momentum", -1.0, "0 to 1"),
        ("masker.optimiser.learning_rate", float("nan"), "at least 0"),
        ("masker.optimiser.warmup_steps", -1, "at least 0"),
        ("casm.area_factor", -0.5, "at least 0"),
        ("data.std", (0.5, 0.5, 0.0), "three numbers above 0"),
        ("data.std", (0.5,), "three numbers above 0"),
        ("data.mean", (0.5, 0.5), "three numbers"),
    ],
)
def test_a_value_out_of_its_range(name, value, expected):
    made = casm_shapes.get_config("smoke")
    made.update_from_flattened_dict({name: value})
    with pytest.raises(InputError, match=rf"config\.{name} = .*: expected {expected}"):
        run_folder.resolve(made, 10)


def test_unknown_stage():
    made = classifier_shapes.get_config("smoke")
    made.stage = "gan"
    with pytest.raises(InputError, match="stage = 'gan'.*classifier.*casm.*black_box"):
        run_folder.resolve(made, 10)


def test_config_and_environment_are_filed(tmp_path):
    workdir = tmp_path / "deep" / "run"
    run_folder.prepare(workdir, config())
    filed = json.loads((workdir / "config.json").read_text())
    assert filed == json.loads(json.dumps(config().to_dict()))
    (environment,) = json.loads((workdir / "environment.json").read_text())["runs"]
    assert environment["packages"]["jax"] == jax.__version__
    assert environment["command"] and environment["python"]


def test_a_continuation_may_not_be_another_run(tmp_path):
    run_folder.prepare(tmp_path, config())
    pretend_checkpoint(tmp_path)
    run_folder.prepare(tmp_path, config())
    other = config(seed=5, casm__thinning="L1000", masker__taps=(3, 4))
    with pytest.raises(InputError) as raised:
        run_folder.prepare(tmp_path, other)
    message = str(raised.value)
    for difference in (
        "config.seed was 0, now 5",
        "config.casm.thinning was 'L100', now 'L1000'",
        "config.masker.taps was [0, 1, 2, 3, 4], now [3, 4]",
    ):
        assert difference in message
    assert message.count(" was ") == 3
    # nothing was overwritten
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 0


def test_what_does_not_change_a_run_may_differ(tmp_path):
    run_folder.prepare(tmp_path, config())
    pretend_checkpoint(tmp_path)
    moved = config(
        data__data_dir="elsewhere",
        data__num_threads=16,
        checkpoint__every=7,
        checkpoint__keep_last=3,
        log__every=1,
        classifier__init="weights.pth",
    )
    before = (tmp_path / "config.json").read_bytes()
    run_folder.prepare(tmp_path, moved)
    assert (tmp_path / "config.json").read_bytes() == before


def with_own_network(**changed):
    made = casm_shapes.get_config("smoke")
    made.update_from_flattened_dict(changed)
    run_folder.place_own_network(made)
    run_folder.resolve(made, 10)
    return made


def test_an_own_network_takes_the_place_of_the_experiments():
    made = with_own_network(**{"model.factory": "tests.own_networks:plain"})
    assert made.classifier.network == "tests.own_networks:plain"
    assert made.classifier.width == 0 and made.classifier.stem == ""
    assert made.data.mean == IMAGENET_MEAN  # as for any other network
    before = made.to_dict()
    run_folder.place_own_network(made)
    assert made.to_dict() == before
    assert with_own_network().classifier.network == "resnet10"


def test_a_mistake_in_the_factory_is_reported_first():
    made = casm_shapes.get_config("smoke")
    made.model.factory = "my_model.create"
    with pytest.raises(InputError, match="config.model.factory = 'my_model.create'"):
        run_folder.place_own_network(made)
    assert made.classifier.network == "resnet10"


def test_how_a_network_was_named_does_not_matter(tmp_path):
    """By either field; runs of earlier versions had one only."""
    run_folder.prepare(tmp_path, with_own_network())
    pretend_checkpoint(tmp_path)
    filed = json.loads((tmp_path / "config.json").read_text())
    del filed["model"]
    (tmp_path / "config.json").write_text(json.dumps(filed))
    run_folder.prepare(tmp_path, with_own_network())
    factory = {"model.factory": "tests.own_networks:plain"}
    with pytest.raises(InputError, match="was 'resnet10', now 'tests.own_networks:pl"):
        run_folder.prepare(tmp_path, with_own_network(**factory))


@pytest.mark.parametrize("changed", [{"data__num_workers": 2}, {"data__holdout": 3}])
def test_what_changes_the_batches_may_not_differ(tmp_path, changed):
    """The saved place in the data holds for the same workers and images only."""
    run_folder.prepare(tmp_path, config())
    pretend_checkpoint(tmp_path)
    with pytest.raises(InputError, match="holds a run of another config"):
        run_folder.prepare(tmp_path, config(**changed))


def test_a_config_of_another_version_is_named(tmp_path):
    """A field that the old config lacks, or the new one, is a difference."""
    run_folder.prepare(tmp_path, config())
    pretend_checkpoint(tmp_path)
    filed = json.loads((tmp_path / "config.json").read_text())
    del filed["casm"]["variant"]
    filed["casm"]["gone"] = 1
    (tmp_path / "config.json").write_text(json.dumps(filed))
    with pytest.raises(InputError, match="gone was 1, now None; .*variant was None"):
        run_folder.prepare(tmp_path, config())


def test_a_run_from_before_the_pool_had_a_type_goes_on_in_float32(tmp_path):
    run_folder.prepare(tmp_path, config())
    pretend_checkpoint(tmp_path)
    filed = json.loads((tmp_path / "config.json").read_text())
    for name in ("pool_dtype", "pool_memory", "pool_split"):
        del filed["casm"][name]
    (tmp_path / "config.json").write_text(json.dumps(filed))
    run_folder.prepare(tmp_path, config())
    with pytest.raises(InputError, match="pool_dtype was 'float32', now 'bfloat16'"):
        run_folder.prepare(tmp_path, config(casm__pool_dtype="bfloat16"))


def test_a_run_from_before_labels_could_be_random_goes_on(tmp_path):
    made = classifier_shapes.get_config("smoke")
    run_folder.resolve(made, 10)
    run_folder.prepare(tmp_path, made)
    pretend_checkpoint(tmp_path)
    filed = json.loads((tmp_path / "config.json").read_text())
    assert filed["data"].pop("random_labels") is False
    (tmp_path / "config.json").write_text(json.dumps(filed))
    assert read_run_config(tmp_path)["data"]["random_labels"] is False
    run_folder.prepare(tmp_path, made)
    made.data.random_labels = True
    with pytest.raises(InputError, match="data.random_labels was False, now True"):
        run_folder.prepare(tmp_path, made)


@pytest.mark.parametrize("experiment", [casm_shapes, black_box_shapes])
def test_maskers_are_not_trained_on_random_labels(experiment):
    made = experiment.get_config("smoke")
    made.data.random_labels = True
    with pytest.raises(InputError, match="random_labels is for the stage classifier"):
        run_folder.resolve(made, 10)


def test_a_black_box_run_of_the_first_version_goes_on(tmp_path):
    made = black_box_shapes.get_config("smoke")
    run_folder.resolve(made, 10)
    run_folder.prepare(tmp_path, made)
    pretend_checkpoint(tmp_path)
    filed = json.loads((tmp_path / "config.json").read_text())
    del filed["classifier"]["output"], filed["masker"]["training_confidence"]
    del filed["black_box"]["area_offset"], filed["removal"]["blur_reach"]
    for output in ("softmax", "sigmoid"):
        filed["black_box"]["output"] = output
        (tmp_path / "config.json").write_text(json.dumps(filed))
        assert read_run_config(tmp_path)["classifier"]["output"] == output
        made.classifier.output = output
        run_folder.prepare(tmp_path, made)
    made.black_box.area_offset = 0.001
    with pytest.raises(InputError, match="area_offset was 0.0005, now 0.001"):
        run_folder.prepare(tmp_path, made)


def test_without_a_checkpoint_any_config_starts_anew(tmp_path):
    run_folder.prepare(tmp_path, config())
    run_folder.prepare(tmp_path, config(seed=5))
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 5


def test_a_folder_that_cannot_be_written(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for workdir in (taken, taken / "run"):
        with pytest.raises(InputError, match="cannot be written .*another --workdir"):
            run_folder.prepare(workdir, config())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written .Permission denied"):
        run_folder.prepare(tmp_path / "run", config())


def test_validation_scores(tmp_path):
    run_folder.write_scores(tmp_path, {"accuracy": 0.25})
    assert json.loads((tmp_path / "validation.json").read_text()) == {"accuracy": 0.25}


def test_every_start_is_filed(tmp_path, monkeypatch):
    for command in ("first", "second"):
        monkeypatch.setattr("sys.argv", [command])
        run_folder.prepare(tmp_path, config())
        if command == "first":
            pretend_checkpoint(tmp_path)
    runs = json.loads((tmp_path / "environment.json").read_text())["runs"]
    assert [run["command"] for run in runs] == ["first", "second"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"commit": ""}'])
def test_environments_that_cannot_be_read_are_not_overwritten(tmp_path, content):
    path = tmp_path / "environment.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"environment\.json cannot be read .*move it"):
        run_folder.prepare(tmp_path, config())
    assert path.read_text() == content


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    run_folder.prepare(tmp_path, config())
    before = (tmp_path / "config.json").read_bytes()

    def killed(descriptor):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", killed)
        run_folder.prepare(tmp_path, config(seed=5))
    assert (tmp_path / "config.json").read_bytes() == before
    run_folder.prepare(tmp_path, config(seed=5))
    assert not list(tmp_path.glob("*.partial"))


def pretend_best(workdir, content):
    folder = workdir / "checkpoints" / "best" / "3"
    folder.mkdir(parents=True)
    (folder / "_CHECKPOINT_METADATA").write_text("{}")
    (folder / "commit_success.txt").write_text("")
    (folder / "networks").write_text(content)


def test_the_best_of_an_attempt_without_a_checkpoint_is_kept_aside(tmp_path):
    for number in (1, 2):
        run_folder.prepare(tmp_path, config(seed=number))
        pretend_best(tmp_path, f"networks {number}")
    run_folder.prepare(tmp_path, config(seed=3))
    assert not saved_steps(tmp_path, "best")
    for number in (1, 2):
        aside = tmp_path / f"earlier_run_{number}"
        assert saved_steps(aside, "best") == [3]
        networks = aside / "checkpoints" / "best" / "3" / "networks"
        assert networks.read_text() == f"networks {number}"
        assert json.loads((aside / "config.json").read_text())["seed"] == number
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 3


def test_the_best_of_a_continued_run_stays(tmp_path):
    run_folder.prepare(tmp_path, config())
    pretend_checkpoint(tmp_path)
    pretend_best(tmp_path, "networks")
    run_folder.prepare(tmp_path, config())
    assert saved_steps(tmp_path, "best") == [3]


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/last", "pictures"])
def test_a_file_where_a_folder_belongs(name, tmp_path):
    place = tmp_path / "run" / name
    place.parent.mkdir(parents=True)
    place.write_text("")
    with pytest.raises(InputError, match=f"{place} is a file"):
        run_folder.prepare(tmp_path / "run", config())


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "validation.json"])
def test_a_folder_where_a_file_belongs(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name} is no file"):
        run_folder.prepare(tmp_path, config())


@pytest.mark.parametrize("text", ['{"runs": 5}', "[" * 100_000, "5", "{}", "\0"])
def test_environments_of_another_kind(text, tmp_path):
    (tmp_path / "environment.json").write_text(text)
    with pytest.raises(InputError, match="environment.json cannot be read"):
        run_folder.prepare(tmp_path, config())
