"""Opening prepared data: which names and splits there are, and holding some out."""

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from saliency_jax.data import pipeline, plan
from saliency_jax.data.prepare import prepare
from saliency_jax.data.sources import (
    Source,
    evaluation_split,
    open_source,
    split_holdout,
)
from saliency_jax.errors import InputError
from tests import painted


class Cifar10(tfds.core.GeneratorBasedBuilder):
    """A stand-in of TFDS's builder: the same features, twelve images."""

    VERSION = tfds.core.Version("3.0.2")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["airplane", "automobile"]),
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        return {"train": self._generate_examples(8), "test": self._generate_examples(4)}

    def _generate_examples(self, count: int) -> Iterator:
        for i in range(count):
            image = np.full((32, 32, 3), 20 * i, np.uint8)
            encoded = cv2.imencode(".png", image)[1].tobytes()
            yield i, {"id": f"train_{i:05d}", "image": encoded, "label": i % 2}


@pytest.fixture
def cifar10_dir(tmp_path: Path) -> Path:
    builder = Cifar10(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare(download_dir=tmp_path / "downloads")
    return tmp_path


def test_data_sets_of_tfds_open_without_boxes(cifar10_dir):
    source = open_source("cifar10", str(cifar10_dir), "train")
    assert source.class_names == ("airplane", "automobile")
    assert not source.has_boxes and not source.has_object_masks
    assert {source[i]["file_name"] for i in range(8)} == {
        f"train_{i:05d}" for i in range(8)
    }
    (batch,) = pipeline.eval_batches(source, batch_size=8, image_size=32)
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0] // 20 % 2, batch["label"])
    assert not batch["boxes_valid"].any()
    assert (batch["original_size"] == 32).all()
    rest, held_out = split_holdout(source, 3, seed=0)
    assert len(rest) == 8 and len(held_out) == 0
    iterator = pipeline.make_train_iterator(source, batch_size=4, image_size=32, seed=0)
    assert next(iterator)["image"].shape == (4, 32, 32, 3)
    iterator.close()
    with pytest.raises(InputError, match="no split 'validation': .* train, test"):
        open_source("cifar10", str(cifar10_dir), "validation")


def test_the_evaluation_split_is_validation_where_there_is_one(cifar10_dir, shapes_dir):
    assert evaluation_split("shapes/32x32", shapes_dir) == "validation"
    assert evaluation_split("cifar10", str(cifar10_dir)) == "test"
    folder = cifar10_dir / "cifar10/3.0.2"
    for records in folder.glob("*.array_record*"):
        records.unlink()  # they are not read
    assert evaluation_split("cifar10", str(cifar10_dir)) == "test"
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"test"', '"extra"'))
    with pytest.raises(InputError, match="no split validation or test .* train, extra"):
        evaluation_split("cifar10", str(cifar10_dir))
    with pytest.raises(InputError, match="tiny_imagenet is not prepared in"):
        evaluation_split("tiny_imagenet", str(cifar10_dir))


def test_tfrecords_are_refused_with_the_command_that_converts(cifar10_dir):
    info = cifar10_dir / "cifar10/3.0.2/dataset_info.json"
    info.write_text(
        json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"})
    )
    with pytest.raises(InputError, match="stored as tfrecord.*tfds convert_format"):
        open_source("cifar10", str(cifar10_dir), "train")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "cut": _cut,
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
}


@pytest.fixture(scope="module")
def two_shards(tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("two_shards")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan, "TASKS_PER_SHARD", 8)
        prepare("shapes", str(data_dir), image_size=16, num_train=16, num_validation=10)
    return data_dir


def _read_all(data_dir: Path) -> list[int]:
    source = open_source("shapes/16x16", str(data_dir), "train")
    return [source[i]["label"] for i in range(len(source))]


@pytest.mark.parametrize("how", DAMAGES)
def test_every_damaged_file_is_one_line(how, two_shards, tmp_path):
    files = sorted(path.name for path in two_shards.rglob("1.0.0/*"))
    assert len(files) == 9
    whole = _read_all(two_shards)
    for name in files:
        data_dir = shutil.copytree(two_shards, tmp_path / name)
        folder = data_dir / "shapes/16x16/1.0.0"
        DAMAGES[how](folder / name)
        if name == "preparation.json" or "validation" in name:
            assert _read_all(data_dir) == whole  # not needed for this
            continue
        message = rf"{folder / name} cannot be read \(.*\): delete {folder} and prepare"
        if (name, how) == ("dataset_info.json", "gone"):
            message = "shapes/16x16 is not prepared in"
        with pytest.raises(InputError, match=message) as caught:
            _read_all(data_dir)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_keeps_training_and_preparing_from_tracebacks(
    how, two_shards, tmp_path
):
    data_dir = shutil.copytree(two_shards, tmp_path / "data")
    folder = data_dir / "shapes/16x16/1.0.0"
    DAMAGES[how](folder / "shapes-train.array_record-00001-of-00002")
    source = open_source("shapes/16x16", str(data_dir), "train")
    with pytest.raises(InputError, match="train.array_record-00001-of-00002 cannot"):
        split_holdout(source, 10, seed=0)
    iterator = pipeline.make_train_iterator(
        source, batch_size=16, image_size=16, seed=0
    )
    with pytest.raises(InputError, match="train.array_record-00001-of-00002 cannot"):
        next(iterator)
    iterator.close()
    DAMAGES[how](folder / "dataset_info.json")
    with pytest.raises(InputError, match=f"dataset_info.json .*: delete {folder} and"):
        prepare("shapes", str(data_dir), image_size=16)


def test_features_of_other_code_are_not_imported(two_shards, tmp_path, monkeypatch):
    data_dir = shutil.copytree(two_shards, tmp_path / "data")
    features = data_dir / "shapes/16x16/1.0.0/features.json"
    (tmp_path / "payload.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    own = "tensorflow_datasets.core.features.image_feature.Image"
    assert own in features.read_text()
    features.write_text(features.read_text().replace(own, "payload.Image"))
    with pytest.raises(InputError, match="payload.Image is none of TFDS's features"):
        _read_all(data_dir)
    assert not (tmp_path / "ran").exists()


def test_damaged_information_of_tfds_is_one_line(cifar10_dir):
    folder = cifar10_dir / "cifar10/3.0.2"
    (folder / "features.json").write_text("{")
    with pytest.raises(InputError, match=f"features.json .*: delete {folder} and pre"):
        open_source("cifar10", str(cifar10_dir), "train")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mnist",
            "unknown data set 'mnist': it must be one of shapes, shapes_pairs, tiny",
        ),
        ("shapes", "run python -m saliency_jax.data prepare shapes --data_dir [^ ]*$"),
        ("shapes/96x96", "prepare shapes --data_dir .* --image_size 96$"),
        ("shapes_pairs/96x96", "prepare shapes_pairs --data_dir .* --image_size 96$"),
        ("tiny_imagenet", "prepare tiny_imagenet --data_dir .* --source FOLDER"),
        ("imagenet2012", "run tfds build imagenet2012 .*--file_format=array_record"),
    ],
)
def test_what_is_not_there_is_named_with_the_command_that_makes_it(
    name, message, tmp_path
):
    with pytest.raises(InputError, match=message):
        open_source(name, str(tmp_path), "train")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shapes/../shapes/32x32", "after the slash one name was expected"),
        ("shapes/../32x32", "after the slash one name was expected"),
        ("../{parent}/shapes/32x32", "unknown data set"),
    ],
)
def test_a_name_does_not_leave_the_data_folder(name, message, shapes_dir):
    name = name.format(parent=Path(shapes_dir).name)
    with pytest.raises(InputError, match=message):
        open_source(name, shapes_dir, "train")


def test_unknown_split_lists_the_splits(shapes_dir):
    with pytest.raises(InputError, match="no split 'test': .* train, validation"):
        open_source("shapes/32x32", shapes_dir, "test")


def test_a_source_survives_pickling(shapes_dir):
    source = open_source("shapes/32x32", shapes_dir, "train")
    copy = pickle.loads(pickle.dumps(source))
    assert copy[5]["image"] == source[5]["image"]
    assert copy.num_classes == 10 and len(copy) == 60


def _made_up(boxes_per_image: list[int]) -> Source:
    records = [
        {"image": b"never decoded", "label": 0, "boxes": np.zeros((count, 4))}
        for count in boxes_per_image
    ]
    boxed = sum(count > 0 for count in boxes_per_image)
    return Source("made_up", "train", ("a",), 2, boxed, False, records)


def test_only_images_with_boxes_are_held_out():
    source = _made_up([0, 1, 2, 0, 1, 0, 1, 1])
    rest, held_out = split_holdout(source, 3, seed=5)
    assert len(held_out) == 3
    assert all(len(held_out[i]["boxes"]) for i in range(3))
    assert sorted([*rest.indices, *held_out.indices]) == list(range(8))
    again = split_holdout(source, 3, seed=5)[1]
    np.testing.assert_array_equal(held_out.indices, again.indices)
    choices = {tuple(split_holdout(source, 3, seed=s)[1].indices) for s in range(20)}
    assert len(choices) > 1
    # A division of a division still names the records of the whole.
    _, second = split_holdout(rest, 1, seed=0)
    assert second.indices[0] in rest.indices
    assert len(second[0]["boxes"])


def test_holding_out_too_many_is_refused():
    with pytest.raises(
        InputError, match="cannot hold out 4 images .* 3 with boxes; .*N$"
    ):
        split_holdout(_made_up([0, 1, 2, 1]), 4, seed=0)
    with pytest.raises(InputError, match="hold out fewer by --config.data.holdout=N"):
        split_holdout(_made_up([1, 1]), 2, seed=0)
    for source in (_made_up([1, 1]), _made_up([0, 0])):
        with pytest.raises(InputError, match="config.data.holdout must be at least 0"):
            split_holdout(source, -1, seed=0)


def test_a_subset_of_a_subset_counts_its_own_positions():
    source = painted.source_of(
        [painted.paint([0, 0, 4, 4], 1, label, []) for label in range(5)]
    )
    subset = source.subset([4, 2, 0]).subset([2, 0])
    assert [subset[position]["label"] for position in range(2)] == [0, 4]
    assert len(source.subset([])) == 0 and len(source) == 5
