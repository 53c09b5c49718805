"""Preparing: any number of processes, what is written, bad images, what failed once."""

import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from raw_files import write_jpeg

from saliency_jax.data import plan, preparation, shards
from saliency_jax.data.builders.shapes import shapes_recipe
from saliency_jax.data.prepare import prepare
from saliency_jax.data.sources import open_source
from saliency_jax.errors import InputError

# With `small_shards` seven shards of training and two of validation.
SMALL = {"image_size": 16, "num_train": 60, "num_validation": 15}


def _records(folder: Path) -> dict[str, list[bytes]]:
    """The raw records of each file, by its name."""
    return {
        path.name: ArrayRecordReader(str(path)).read_all()
        for path in sorted(folder.glob("*.array_record*"))
    }


def _contents(source) -> str:
    """A digest of all but the images, whose encoding depends on the libraries."""
    found = hashlib.sha256()
    for i in range(len(source)):
        example = source[i]
        names = [example[key] for key in ("file_name", "label")]
        arrays = ("boxes", "boxes_pixels", "original_size")
        fields = names + [example[key].tolist() for key in arrays]
        found.update(repr(tuple(fields)).encode())
    return found.hexdigest()


# `_contents` of the tests' folders as prepared at that commit, by TFDS's own means.
WRITTEN_BY_342D74B = {
    ("tiny_imagenet", "train"): (
        "923be81975cc500b43cd5bddaf753952869f8dc51d02d2b5c94b2ae4a01a01c8"
    ),
    ("tiny_imagenet", "validation"): (
        "f730df6607bb66fbaac94da4cc4c26f6bffa430350f8c51cbe8158bb622df7a0"
    ),
    ("imagenet_loc", "train"): (
        "fee16f9c913ee68cf2d9ee7f79dcc0956b6fac5462d4e985d1f25e6165ac00c3"
    ),
    ("imagenet_loc", "validation"): (
        "8ef1dfabdc52ce1143daf95f39869e6cc803efd51bf9edb98ef7252ff99b0e45"
    ),
    ("shapes/32x32", "train"): (
        "05efc1c94cdada1c628f09589dd44283ff3bd81a193f92d6da71d9087f562ecc"
    ),
    ("shapes/32x32", "validation"): (
        "6fad22bb2ba29ac89eed27b8681ac991473d3b42d5b33cf405fe9455ec891ed3"
    ),
}


def test_data_sets_hold_what_they_held_before(
    tiny_folder, loc_folder, shapes_dir, tmp_path
):
    data_dir = str(tmp_path / "data")
    prepare("tiny_imagenet", data_dir, str(tiny_folder))
    prepare("imagenet_loc", data_dir, str(loc_folder))
    for (name, split), digest in WRITTEN_BY_342D74B.items():
        folder = shapes_dir if name == "shapes/32x32" else data_dir
        assert _contents(open_source(name, folder, split)) == digest, (name, split)


class _ByTfds(tfds.core.GeneratorBasedBuilder):
    """Writes the scenes by TFDS's own preparation."""

    name = "shapes"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self):
        recipe = shapes_recipe(16, 60, 15)
        features = preparation.records.features(recipe)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train",)}

    def _generate_examples(self, split):
        recipe = shapes_recipe(16, 60, 15)
        for task in recipe.list_tasks(Counter()):
            if task.split == split:
                yield task.key, recipe.make_example(task)


def test_tfds_writes_the_same_examples_in_the_same_order(tmp_path, small_shards):
    prepare("shapes", str(tmp_path / "data"), **SMALL)
    ours = open_source("shapes/16x16", str(tmp_path / "data"), "train")
    builder = _ByTfds(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare(download_dir=tmp_path / "downloads")
    undecoded = {key: tfds.decode.SkipDecoding() for key in ("image", "object_mask")}
    theirs = builder.as_data_source("train", decoders=undecoded)
    assert len(ours) == len(theirs) == 60
    for i in range(60):
        example, expected = ours[i], theirs[i]
        assert example["file_name"] == expected["file_name"].decode()
        for key in expected.keys() - {"file_name"}:
            np.testing.assert_array_equal(example[key], expected[key])


def test_the_records_do_not_depend_on_the_processes(tmp_path, small_shards, capfd):
    folders = [
        prepare("shapes", str(tmp_path / str(n)), num_workers=n, **SMALL)
        for n in (1, 3)
    ]
    one, three = (_records(folder) for folder in folders)
    assert list(one) == [
        *(f"shapes-train.array_record-{i:05d}-of-00007" for i in range(7)),
        *(f"shapes-validation.array_record-{i:05d}-of-00002" for i in range(2)),
    ]
    assert one == three
    assert "100%" in capfd.readouterr().err
    # Nothing of the preparation itself is left.
    assert not [p for p in folders[1].iterdir() if p.suffix in (".tmp", ".sqlite")]
    assert not (folders[1].parent / "incomplete_1.0.0").exists()


# Whoever starts the tests in the background may have had Ctrl-C ignored.
def _stop_after(monkeypatch, count: int) -> list[plan.Shard]:
    """Makes the writing of shards fail after some, as a full disk does."""
    write, written = shards.write_shard, []

    def write_some(recipe, plan_path, shard, **options):
        if len(written) == count:
            raise OSError("No space left on device")
        written.append(shard)
        return write(recipe, plan_path, shard, **options)

    monkeypatch.setattr("saliency_jax.data.workers.write_shard", write_some)
    return written


def _stopped(monkeypatch, after: int, *arguments, **options) -> None:
    with monkeypatch.context() as patched:
        _stop_after(patched, after)
        with pytest.raises(
            InputError, match="stopped: No space left.* shards are kept"
        ):
            prepare(*arguments, **options)


def test_shards_that_are_written_are_not_written_again(
    tmp_path, small_shards, monkeypatch, capsys
):
    _stopped(monkeypatch, 4, "shapes", str(tmp_path), **SMALL)
    # One is damaged, of one the report is missing, and something half written is left.
    unfinished = tmp_path / "shapes/16x16/incomplete_1.0.0"
    with open(unfinished / "train-00001.array_record", "ab") as file:
        file.write(b"x")
    (unfinished / "train-00002.json").unlink()
    (unfinished / "train-00005.77.tmp").write_bytes(b"half")
    with monkeypatch.context() as patched:
        written = _stop_after(patched, 99)
        folder = prepare("shapes", str(tmp_path), **SMALL)
    assert "2 of 9 shards are written already" in capsys.readouterr().out
    again = {shard.name for shard in written}
    assert len(again) == 7 and {"train-00001", "train-00002"} <= again
    assert _records(folder) == _records(prepare("shapes", str(tmp_path / "b"), **SMALL))
    assert not list(folder.glob("*.tmp"))


def test_the_last_steps_can_be_repeated(tmp_path, small_shards, monkeypatch):
    replace = os.replace

    def replace_some(source, target):
        if "00003-of-" in str(target):
            raise OSError("pulled the plug")
        replace(source, target)

    def rename_nothing(source, target):
        raise OSError("pulled the plug")

    for step, failing in (("replace", replace_some), ("rename", rename_nothing)):
        data_dir = tmp_path / step
        with monkeypatch.context() as patched:
            patched.setattr(os, step, failing)
            with pytest.raises(InputError, match="pulled the plug"):
                prepare("shapes", str(data_dir), **SMALL)
        folder = prepare("shapes", str(data_dir), **SMALL)
        assert len(open_source("shapes/16x16", str(data_dir), "train")) == 60
        assert len(list(folder.glob("*-of-*"))) == 9


def test_a_source_that_changed_meanwhile_is_noticed(
    tiny_folder, tmp_path, small_shards, monkeypatch
):
    monkeypatch.setattr(plan, "TASKS_PER_SHARD", 2)
    arguments = ("tiny_imagenet", str(tmp_path / "data"), str(tiny_folder))
    _stopped(monkeypatch, 2, *arguments)
    unfinished = tmp_path / "data/tiny_imagenet/incomplete_1.0.0"
    image = tiny_folder / "train/n01443537/images/n01443537_1.JPEG"
    before, status = image.read_bytes(), image.stat()
    write_jpeg(image, 77, 64, 64)
    message = f"source {tiny_folder} changed since .* bring back .* delete {unfinished}"
    with pytest.raises(InputError, match=message):
        prepare(*arguments)
    other = shutil.copytree(tiny_folder, tmp_path / "other")
    with pytest.raises(InputError, match="--source=.*tiny-imagenet-200, not .*other"):
        prepare(*arguments[:2], str(other))
    # With what was there brought back, it goes on.
    image.write_bytes(before)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    prepare(*arguments)
    assert len(open_source(*arguments[:2], "train")) == 6


def test_two_preparations_of_one_data_set_do_not_meet(tmp_path):
    unfinished = tmp_path / "shapes/16x16/incomplete_1.0.0"
    unfinished.mkdir(parents=True)
    with preparation._locked(unfinished):
        with pytest.raises(InputError, match="another process is preparing"):
            prepare("shapes", str(tmp_path), **SMALL)
    prepare("shapes", str(tmp_path), **SMALL)


def test_corrupt_images_are_named_counted_and_left_out(
    tiny_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(plan, "TASKS_PER_SHARD", 1)  # some shards have no image at all
    images = tiny_folder / "train/n01443537/images"
    (images / "n01443537_1.JPEG").write_text("hello")
    (tiny_folder / "val/images/val_2.JPEG").write_bytes(b"")
    arguments = ("tiny_imagenet", str(tmp_path / "data"), str(tiny_folder))
    unfinished = tmp_path / "data/tiny_imagenet/incomplete_1.0.0"
    kept = f"kept in {unfinished}: to go on leave out --strict, or mend the image and"
    for _ in range(2):
        with pytest.raises(
            InputError, match=f"n01443537_1.JPEG is not a .*; . shards are {kept}"
        ):
            prepare(*arguments, strict=True)
    capsys.readouterr()
    folder = prepare(*arguments)
    printed = capsys.readouterr()
    assert "of 10 shards are written already" in printed.out
    assert f"skipped: {images / 'n01443537_1.JPEG'} is not a readable" in printed.err
    assert "skipped: " in printed.err and "val_2.JPEG is empty" in printed.err
    summary = "5 train and 3 validation images of 2 classes, 2 unreadable skipped"
    assert summary in printed.out
    assert summary in _printed_again(arguments, capsys)
    with pytest.raises(InputError, match="2 unreadable skipped, prepared without --st"):
        prepare(*arguments, strict=True)
    source = open_source(*arguments[:2], "train")
    names = {source[i]["file_name"] for i in range(len(source))}
    assert len(source) == len(names) == 5 and "n01443537_1.JPEG" not in names
    assert len(list(folder.glob("*train*-of-00005"))) == 5
    skipped = json.loads((folder / "preparation.json").read_text())["skipped"]
    assert [entry["path"] for entry in skipped["train"]] == [
        "train/n01443537/images/n01443537_1.JPEG"
    ]


def _printed_again(arguments: tuple[str, ...], capsys) -> str:
    prepare(*arguments)
    return capsys.readouterr().out


def test_a_class_without_any_readable_image_is_an_error(tiny_folder, tmp_path):
    for image in (tiny_folder / "train/n02124075/images").iterdir():
        image.write_text("hello")
    message = (
        r"none of the 3 train images of class Egyptian cat can be read \(.*JPEG is"
    )
    with pytest.raises(InputError, match=message):
        prepare("tiny_imagenet", str(tmp_path / "data"), str(tiny_folder))
    assert not list((tmp_path / "data").iterdir())


def test_strict_refuses_what_was_skipped_before(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "TASKS_PER_SHARD", 3)
    for name in ("n01443537_1", "n01443537_2"):
        image = tiny_folder / f"train/n01443537/images/{name}.JPEG"
        image.write_text("hello")
    arguments = ("tiny_imagenet", str(tmp_path / "data"), str(tiny_folder))
    _stopped(monkeypatch, 2, *arguments)
    with pytest.raises(InputError, match="skipped without --strict: to go on leave"):
        prepare(*arguments, strict=True)
    prepare(*arguments)


def test_what_is_written_is_read_back(tmp_path, small_shards, monkeypatch):
    class Loses(shards.ArrayRecordWriter):
        def write(self, record):
            if not getattr(self, "lost", False):
                self.lost = True
                return
            super().write(record)

    with monkeypatch.context() as patched:
        patched.setattr(shards, "ArrayRecordWriter", Loses)
        with pytest.raises(InputError, match="8 of 9 records|7 of 8 records"):
            prepare("shapes", str(tmp_path), **SMALL)
    assert len(_records(prepare("shapes", str(tmp_path), **SMALL))) == 9
