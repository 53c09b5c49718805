"""Files of a prepared data set with a value that none has: one line names the file."""

import json
import shutil
from pathlib import Path

import pytest

from saliency_jax.data import prepared_files
from saliency_jax.data.prepare import prepare
from saliency_jax.data.sources import find_evaluation_split, open_source
from saliency_jax.errors import InputError

INFO, METADATA, FEATURES = "dataset_info.json", "metadata.json", "features.json"
JSON_FILES = (INFO, METADATA, FEATURES)
NAME = "shapes/16x16"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("whole")
    prepare("shapes", str(data_dir), image_size=16, num_train=4, num_validation=3)
    return data_dir


@pytest.fixture
def data_dir(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "data")


def folder_in(data_dir: Path) -> Path:
    return data_dir / NAME / "1.0.0"


def change(data_dir: Path, file: str, field: str, value) -> None:
    """Sets a field of one of the JSON files, such as "splits.0.name"."""
    path = folder_in(data_dir) / file
    filed = fields = json.loads(path.read_text())
    *above, last = (int(part) if part.isdigit() else part for part in field.split("."))
    for part in above:
        fields = fields[part]
    fields[last] = value
    path.write_text(json.dumps(filed))


def check_refused(data_dir: Path, file: str, expected: str) -> None:
    folder = folder_in(data_dir)
    message = rf"{folder / file} cannot be read \(.*{expected}.*\): delete {folder} and"
    with pytest.raises(InputError, match=message) as caught:
        open_source(NAME, str(data_dir), "train")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900


@pytest.mark.parametrize("file", JSON_FILES)
@pytest.mark.parametrize("content", ["[]", "5", "[1]", '"text"', "null", "true"])
def test_no_object(data_dir, file, content):
    (folder_in(data_dir) / file).write_text(content)
    check_refused(data_dir, file, "expected an object with fields")
    if file == INFO:
        with pytest.raises(InputError, match=f"{INFO} cannot be read"):
            find_evaluation_split(NAME, str(data_dir))
        with pytest.raises(InputError, match=f"{INFO} cannot be read"):
            prepare("shapes", str(data_dir), image_size=16)


@pytest.mark.parametrize("file", JSON_FILES)
@pytest.mark.parametrize("content", ["[" * 100_000, '{"data":' * 100_000])
def test_of_endless_depth(data_dir, file, content):
    (folder_in(data_dir) / file).write_text(content)
    check_refused(data_dir, file, "recursion")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("moduleName", 5, "moduleName field: expected string"),
        ("moduleName", [1], "moduleName field: expected string"),
        ("name", {}, "name field: expected string"),
        ("unheard_of", 1, 'no field named "unheard_of"'),
        ("splits", 5, "splits"),
        ("splits", "x" * 10_000, "splits"),
        ("splits", [5], "splits"),
        ("splits.0", [1], "splits"),
        ("splits.0.name", 5, "name field: expected string"),
        ("splits.0.shardLengths", 5, "shardLengths"),
        ("splits.0.shardLengths", ["many"], "shardLengths"),
        ("splits.0.shardLengths", [1.5], "shardLengths"),
        ("splits.0.shardLengths", [None], "shardLengths"),
        ("splits.0.shardLengths", [10**30], "shardLengths"),
        ("splits.0.shardLengths", ["-3"], "-3 among its shardLengths: expected counts"),
        ("splits.0.shardLengths", ["99999999999"], "99999999999 examples in .* bytes"),
        ("splits.0.shardLengths", ["1"] * 50_000, "50000 shardLengths: .* most 8192"),
    ],
)
def test_information_that_no_set_has(data_dir, field, value, expected):
    change(data_dir, INFO, field, value)
    check_refused(data_dir, INFO, expected)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("max_boxes", 5, "max_boxes = 5: expected a count of at most 1048576 for each"),
        ("max_boxes", [1], "expected a count of at most"),
        ("max_boxes.train", "x", "expected a count of at most"),
        ("max_boxes.train", -1, "expected a count of at most"),
        ("max_boxes.train", 1.5, "expected a count of at most"),
        ("max_boxes.train", True, "expected a count of at most"),
        ("max_boxes.train", 10**12, "expected a count of at most"),
        ("num_with_boxes", None, "num_with_boxes = None: expected a count for each"),
        ("num_with_boxes.train", "many", "expected a count for each split"),
        ("num_with_boxes.train", {}, "expected a count for each split"),
        ("num_with_boxes.validation", -1, "expected a count for each split"),
        ("skipped", 5, "skipped = 5: expected a count for each split"),
        ("skipped", {"train": "x"}, "expected a count for each split"),
        ("upright", 1, "upright = 1: expected true or false"),
        ("upright", "no", "expected true or false"),
    ],
)
def test_metadata_that_no_set_has(data_dir, field, value, expected):
    change(data_dir, METADATA, field, value)
    check_refused(data_dir, METADATA, expected)


@pytest.mark.parametrize("name", ["1..0", "².0.0", "1.0.0.0", "..1", "1.0.x"])
def test_a_folder_that_is_named_as_no_version(data_dir, name):
    odd = folder_in(data_dir).with_name(name)
    shutil.copytree(folder_in(data_dir), odd)
    assert len(open_source(NAME, str(data_dir), "train")) == 4
    shutil.rmtree(folder_in(data_dir))
    with pytest.raises(InputError, match="is not prepared in .*: run python -m sal"):
        open_source(NAME, str(data_dir), "train")


def test_what_is_filed_is_accepted(data_dir):
    metadata = json.loads((folder_in(data_dir) / METADATA).read_text())
    assert prepared_files.COUNTS.keys() - {"skipped"} <= metadata.keys()
    change(data_dir, METADATA, "skipped", {"train": 2, "validation": 0})
    change(data_dir, METADATA, "upright", True)
    source = open_source(NAME, str(data_dir), "train")
    assert source.upright and source.num_with_boxes == 4


def test_damaged_sets_of_pictures_are_told_when_opened(data_dir):
    mine = data_dir / "mine" / "1.0.0"
    shutil.copytree(folder_in(data_dir), mine)
    for content in ("[]", "5", "[" * 100_000):
        (mine / INFO).write_text(content)
        with pytest.raises(InputError, match=f"{mine / INFO} cannot be read"):
            open_source("mine", str(data_dir), "train")
        with pytest.raises(InputError, match="must be one of .*, mine "):
            open_source("other", str(data_dir), "train")
