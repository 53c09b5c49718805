"""A run's config.json that is no longer what was written: one line names the field."""

import itertools
import json
from pathlib import Path

import pytest

from configs import black_box_shapes, casm_shapes, classifier_shapes, generator_shapes
from saliency_jax import load_masker
from saliency_jax.errors import InputError
from saliency_jax.loading import load_classifier, load_generator
from saliency_jax.run_config import read_run_config
from saliency_jax.training import config_values, run_folder

GONE = object()


def write(workdir: Path, experiment, changed=()):
    """Files a resolved config, but for the fields changed."""
    config = experiment.get_config("smoke")
    run_folder.resolve(config, 10)
    if config.stage == "black_box":
        config.encoder.mean = config.encoder.std = (0.5, 0.5, 0.5)
    config.data.class_names = tuple(f"class {k}" for k in range(10))
    filed = json.loads(json.dumps(config.to_dict()))
    for field, value in changed:
        *sections, name = field.split(".")
        fields = filed
        for section in sections:
            fields = fields[section]
        if value is GONE:
            del fields[name]
        else:
            fields[name] = value
    (workdir / "config.json").write_text(json.dumps(filed))
    return filed


def test_the_ranges_are_of_fields_that_configs_have():
    names = set()
    experiments = (black_box_shapes, casm_shapes, classifier_shapes, generator_shapes)
    for experiment in experiments:
        made = experiment.get_config()
        fields = run_folder.flatten(made.to_dict())
        names |= fields.keys() | {name.rpartition(".")[2] for name in fields}
    tables = config_values.COUNTS, config_values.RANGES, config_values.CHOICES
    lists = config_values.NAMES, config_values.COLOURS, config_values.LISTS
    assert names.issuperset(itertools.chain(*tables, *lists))


@pytest.mark.parametrize(
    "experiment", [classifier_shapes, casm_shapes, black_box_shapes, generator_shapes]
)
def test_what_train_files_is_read(tmp_path, experiment):
    filed = write(tmp_path, experiment)
    assert read_run_config(tmp_path, any_stage=True) == filed


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("data.image_size", "x", "1 to 16384, a whole number"),
        ("data.image_size", -1, "1 to 16384, a whole number"),
        ("data.image_size", 10**9, "1 to 16384, a whole number"),
        ("data.image_size", 32.5, "1 to 16384, a whole number"),
        ("data.image_size", True, "1 to 16384, a whole number"),
        ("data.image_size", {"a": 1}, "1 to 16384, a whole number"),
        ("data.image_size", {}, "1 to 16384, a whole number"),
        ("data.mean", [0.5], "three numbers, of red"),
        ("data.mean", "abc", "three numbers, of red"),
        ("data.mean", ["a", "b", "c"], "three numbers, of red"),
        ("data.std", [0.5, 0, 0.5], "three numbers above 0, of red"),
        ("data.class_names", 3, "a list of names"),
        ("data.class_names", [1], "a list of names"),
        ("classifier.network", [1], "text"),
        ("classifier.num_classes", None, "at least 1, a whole number"),
        ("classifier.width", "x", "at least 0, a whole number"),
        ("classifier.width_multiplier", [], "at least 0"),
        ("classifier.output", [1], "one of \\('softmax'"),
        ("masker.taps", "abc", "a list of whole numbers"),
        ("stage", [1], "one of \\('classifier'"),
        ("stage", "gan", "one of \\('classifier'"),
        ("data", [1], "fields of its own"),
        ("classifier", "x", "fields of its own"),
    ],
)
@pytest.mark.parametrize("load", [load_masker, load_classifier, load_generator])
def test_a_value_that_no_run_has(tmp_path, load, field, value, expected):
    write(tmp_path, casm_shapes, [(field, value)])
    with pytest.raises(
        InputError, match=rf"config\.json is damaged: {field} = .*: expected {expected}"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("data.class_names", "a list of names"),
        ("data.image_size", "1 to 16384, a whole number"),
        ("classifier.network", "text"),
        ("classifier.num_classes", "at least 1, a whole number"),
    ],
)
def test_a_field_that_is_missing(tmp_path, field, expected):
    write(tmp_path, classifier_shapes, [(field, GONE)])
    section, name = field.split(".")
    for config in (read_run_config(tmp_path), read_run_config(tmp_path)):
        # As loading does, for one.
        fields = config[section] | {"dtype": "float32"}
        message = rf"json is damaged: it has no {field}: expected {expected}; put a"
        with pytest.raises(InputError, match=message):
            fields[name]
    if name != "class_names":  # which is looked up after the checkpoint was read
        with pytest.raises(InputError, match=message):
            load_classifier(tmp_path)


def test_of_endless_depth(tmp_path):
    for content in ("[" * 100_000, '{"data":' * 100_000):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match="config.json is damaged: .*recursion"):
            read_run_config(tmp_path)
