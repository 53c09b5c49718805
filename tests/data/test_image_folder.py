"""`image_folder`: layouts, splits, boxes, and one line for each mistake."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from raw_files import fan_out, write_jpeg

from saliency_jax.data import pipeline
from saliency_jax.data.prepare import prepare
from saliency_jax.data.sources import evaluation_split, open_source, split_holdout
from saliency_jax.errors import InputError

CLASSES = ("cat", "dog", "train")  # a class may be called as a split is


def _write_classes(root: Path, counts: dict[str, int], first: int = 0) -> None:
    for number, (name, count) in enumerate(counts.items()):
        for i in range(count):
            write_jpeg(root / name / f"{i:02d}.jpg", first + 50 * number + i, 40, 20)


@pytest.fixture
def flat_folder(tmp_path: Path) -> Path:
    """Three classes of ten images; one of each lies a folder deeper."""
    root = tmp_path / "pictures"
    _write_classes(root, dict.fromkeys(CLASSES, 10))
    for name in CLASSES:
        (root / name / "more").mkdir()
        (root / name / "09.jpg").rename(root / name / "more" / "09.JPEG")
    return root


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    _write_classes(root / "train", {"cat": 4, "dog": 3})
    _write_classes(root / "val", {"dog": 2}, first=500)
    _write_classes(root / "test", {"cat": 1, "dog": 1}, first=700)
    return root


def _examples(name: str, data_dir: Path, split: str) -> dict[str, dict]:
    source = open_source(name, str(data_dir), split)
    examples = [source[i] for i in range(len(source))]
    return {example["file_name"]: example for example in examples}


def test_a_folder_of_classes_becomes_one_split(flat_folder, tmp_path, capsys):
    (flat_folder / "cat" / "notes.txt").write_text("hello")
    (flat_folder / "dog" / "live.HEIC").write_text("hello")
    (flat_folder / ".cache").mkdir()
    data_dir = tmp_path / "data"
    folder = prepare("image_folder", str(data_dir), str(flat_folder), name="pets")
    assert folder == data_dir / "pets" / "1.0.0"
    out = capsys.readouterr().out
    assert f"pets is prepared in {folder}: 30 train images of 3 classes\n" in out
    assert "left out, no images by their suffix: 1 .heic, 1 .txt" in out
    source = open_source("pets", str(data_dir), "train")
    assert source.class_names == CLASSES and not source.has_boxes
    examples = _examples("pets", data_dir, "train")
    assert sorted(examples) == sorted(
        str(path.relative_to(flat_folder)) for path in flat_folder.glob("**/*.[jJ]*")
    )
    example = examples["train/more/09.JPEG"]
    assert example["label"] == 2 and example["original_size"].tolist() == [40, 20]
    assert example["image"] == (flat_folder / "train/more/09.JPEG").read_bytes()
    with pytest.raises(InputError, match="pets has no split validation or test"):
        evaluation_split("pets", str(data_dir))


def test_folders_make_the_splits(split_folder, tmp_path):
    prepare("image_folder", str(tmp_path), str(split_folder))
    name, counts = "image_folder", {"train": 7, "validation": 2, "test": 2}
    for split, count in counts.items():
        assert len(open_source(name, str(tmp_path), split)) == count
    # Labels are those of train/, though val/ lacks a class.
    examples = _examples(name, tmp_path, "validation")
    assert {e["label"] for e in examples.values()} == {1}
    assert set(examples) == {"val/dog/00.jpg", "val/dog/01.jpg"}
    assert evaluation_split(name, str(tmp_path)) == "validation"


def test_a_fraction_of_each_class_is_for_validation(flat_folder, tmp_path):
    def held_out(seed: int, folder: str = "") -> set[str]:
        options = {"validation_fraction": 0.25, "split_seed": seed}
        data_dir = tmp_path / f"data_{seed}{folder}"
        prepare("image_folder", str(data_dir), str(flat_folder), **options)
        train = _examples("image_folder", data_dir, "train")
        validation = _examples("image_folder", data_dir, "validation")
        assert len(train) + len(validation) == 30 and not set(train) & set(validation)
        labels = [example["label"] for example in validation.values()]
        assert sorted(labels) == [0, 0, 1, 1, 2, 2]  # 2.5 of ten, to the even
        return set(validation)

    first = held_out(0)
    assert first == held_out(0, "again") and first != held_out(1)
    with pytest.raises(InputError, match="with --validation_fraction=0.25, not 0.5"):
        prepare(
            "image_folder",
            str(tmp_path / "data_0"),
            str(flat_folder),
            validation_fraction=0.5,
        )


def test_boxes_come_from_a_csv_file_with_exclusive_edges(flat_folder, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(
        "path,xmin,ymin,xmax,ymax\n"
        "cat/03.jpg,4,5,20,15\n"
        "dog/more/09.JPEG, 0,0,40,20\n"
        "\n"
        '"./cat/03.jpg",39,19,40,20\n'
    )
    options = {"boxes": str(boxes), "name": "pets"}
    prepare("image_folder", str(tmp_path / "data"), str(flat_folder), **options)
    source = open_source("pets", str(tmp_path / "data"), "train")
    assert (source.max_boxes, source.num_with_boxes) == (2, 2)
    examples = _examples("pets", tmp_path / "data", "train")
    two = examples["cat/03.jpg"]
    assert two["boxes_pixels"].tolist() == [[4, 5, 20, 15], [39, 19, 40, 20]]
    expected = [[0.25, 0.1, 0.75, 0.5], [0.95, 0.975, 1, 1]]
    np.testing.assert_allclose(two["boxes"], expected, atol=1e-6)
    whole = examples["dog/more/09.JPEG"]
    assert whole["boxes"].tolist() == [[0, 0, 1, 1]]
    assert examples["cat/04.jpg"]["boxes"].shape == (0, 4)
    _, held_out = split_holdout(source, 2, seed=0)
    (batch,) = pipeline.eval_batches(held_out, batch_size=2, image_size=16)
    assert (batch["boxes_pixels"] >= 0).all(-1).sum() == 3


def test_a_box_that_sticks_out_is_refused_or_cut(flat_folder, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("cat/00.jpg,30,10,41,20\n")
    arguments = ("image_folder", str(tmp_path / "data"), str(flat_folder))
    message = r"boxes.csv:1: box .*\(30, 10, 41, 20\) lies outside.* 40x20 .*clip_boxes"
    with pytest.raises(InputError, match=message):
        prepare(*arguments, boxes=str(boxes))
    prepare(*arguments, boxes=str(boxes), clip_boxes=True)
    example = _examples("image_folder", tmp_path / "data", "train")["cat/00.jpg"]
    assert example["boxes"].tolist() == [[0.5, 0.75, 1, 1]]
    assert example["boxes_pixels"].tolist() == [[30, 10, 41, 20]]


def test_a_column_of_classes_gives_images_several_labels(flat_folder, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(
        "\npath,xmin,ymin,xmax,ymax,class\n"
        "cat/03.jpg,4,5,20,15,\n"
        "cat/03.jpg,1,2,3,4,dog\n"  # known to be there, and no box of the cat
        "cat/03.jpg,2,2,3,4,dog\n"
        "cat/03.jpg,,,,,train\n"
        "dog/more/09.JPEG,0,0,40,20,dog\n"
    )
    prepare("image_folder", str(tmp_path / "data"), str(flat_folder), boxes=str(boxes))
    source = open_source("image_folder", str(tmp_path / "data"), "train")
    assert source.has_several_labels
    assert (source.max_boxes, source.num_with_boxes) == (1, 2)
    cat, dog, train = range(3)
    (batch,) = pipeline.eval_batches(source, batch_size=len(source), image_size=16)
    examples = [source[i] for i in range(len(source))]
    expected = {"cat/03.jpg": [cat, dog, train], "dog/more/09.JPEG": [dog]}
    for example, present in zip(examples, batch["present"], strict=True):
        labels = expected.get(example["file_name"], [example["label"]])
        assert np.flatnonzero(present).tolist() == labels
        assert example["other_labels"].dtype == np.int64


def _boxes(text: str) -> Callable[[Path], dict]:
    def write(root: Path) -> dict:
        path = root.parent / "boxes.csv"
        path.write_text(text)
        return {"boxes": str(path)}

    return write


def _link_to_itself(root: Path) -> None:
    (root / "cat" / "more" / "round").symlink_to(root / "cat")


def _link_out(root: Path, name: str) -> None:
    """Moves a file or folder of the source beside it, and leaves a link."""
    (root / name).rename(root.parent / "elsewhere")
    (root / name).symlink_to(root.parent / "elsewhere")


MISTAKES: dict[str, tuple[Callable[[Path], dict | None], str]] = {
    "unknown image": (
        _boxes("cat/00.jpg,1,1,2,2\ncat/77.jpg,1,1,2,2\n"),
        r"boxes.csv:2: cat/77.jpg is no image of the source: paths are relative",
    ),
    "empty box": (
        _boxes("cat/00.jpg,5,5,5,9\n"),
        r"boxes.csv:1: box .*\(5, 5, 5, 9\) is empty; xmax > xmin",
    ),
    "not whole pixels": (
        _boxes("cat/00.jpg,5,5,7.5,9\n"),
        r"boxes.csv:1: path,xmin,ymin,xmax,ymax was expected, .* whole pixels",
    ),
    "missing column": (
        _boxes("cat/00.jpg,5,5,7\n"),
        r"boxes.csv:1: path,xmin,ymin,xmax,ymax was expected",
    ),
    "missing class": (
        _boxes("cat/00.jpg,1,1,2,2,dog\ncat/01.jpg,1,1,2,2\n"),
        r"boxes.csv:2: path,xmin,ymin,xmax,ymax,class was expected",
    ),
    "another class's box outside": (
        _boxes("cat/00.jpg,30,10,41,20,dog\n"),
        r"boxes.csv:1: box .*\(30, 10, 41, 20\) lies outside",
    ),
    "unknown class in a box": (
        _boxes("cat/00.jpg,1,1,2,2,dog\ncat/01.jpg,1,1,2,2,yak\n"),
        r"boxes.csv:2: unknown class yak, no folder of the source",
    ),
    "neither box nor class": (
        _boxes("cat/00.jpg,1,1,2,2,dog\ncat/01.jpg,,,,,\n"),
        r"boxes.csv:2: path,xmin,ymin,xmax,ymax,class was expected",
    ),
    "no such CSV file": (
        lambda root: {"boxes": str(root / "none.csv")},
        r"boxes .*none.csv cannot be read \(.*--boxes must name a CSV file",
    ),
    "empty class": (
        lambda root: (root / "emu").mkdir(),
        r"emu holds no image \(.avif, .bmp",
    ),
    "one class": (
        lambda root: [shutil.rmtree(root / name) for name in CLASSES[1:]] and None,
        r"pictures holds 1 folders, at least two classes were expected",
    ),
    "a link to itself": (
        _link_to_itself,
        r"more/round is a link to a folder that it lies in: remove it",
    ),
    "a link to nothing": (
        lambda root: (root / "cat" / "gone.png").symlink_to("nowhere"),
        r"gone.png cannot be read \(No such file or directory\)",
    ),
    "an image that is a link to outside": (
        lambda root: _link_out(root, "cat/03.jpg"),
        r"cat/03.jpg is reached by a symbolic link that leaves .*/pictures, to /.*"
        r"/elsewhere: put .* or give --follow_links",
    ),
    "a class that is a link to outside": (
        lambda root: _link_out(root, "dog"),
        r"dog is reached by a symbolic link that leaves .*/pictures, to /.*/elsewhere:",
    ),
    "a folder in a class that is a link to outside": (
        lambda root: _link_out(root, "cat/more"),
        r"cat/more is reached by a symbolic link that leaves .*/pictures, to /.*/else",
    ),
    "links that would make millions of paths": (
        lambda root: fan_out(root / "cat"),
        r"cat/.* leads to .*, which is among the images already: remove the link",
    ),
    "a pipe": (
        lambda root: os.mkfifo(root / "cat" / "pipe.jpg"),
        r"cat/pipe.jpg is no file: remove it from the source",
    ),
    "fraction out of range": (
        lambda root: {"validation_fraction": 1.0},
        r"--validation_fraction must be in \(0, 1\), not 1.0",
    ),
    "name of another": (
        lambda root: {"name": "tiny_imagenet"},
        r"--name 'tiny_imagenet' is another data set's: choose another",
    ),
    "name that cannot be": (
        lambda root: {"name": "../pets"},
        r"--name '../pets' must match \[A-Za-z\]",
    ),
    "file name that is not UTF-8": (
        lambda root: (
            shutil.copy(root / "cat/00.jpg", os.fsencode(root) + b"/cat/\xff.jpg")
            and None
        ),
        r"the file name '/.*/pictures/cat/.udcff.jpg' is not UTF-8: rename the file",
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistake_in_a_folder(what, flat_folder, tmp_path):
    mistake, message = MISTAKES[what]
    options = mistake(flat_folder) or {}
    data_dir = tmp_path / "data"
    with pytest.raises(InputError, match=message) as caught:
        prepare("image_folder", str(data_dir), str(flat_folder), **options)
    assert "\n" not in str(caught.value)
    assert not list(data_dir.glob("*"))


def test_links_within_a_folder_and_others_that_are_trusted(flat_folder, tmp_path):
    inside = flat_folder / "cat" / "more" / "again.jpg"
    inside.symlink_to(flat_folder / "dog" / "00.jpg")
    (tmp_path / "link").symlink_to(flat_folder)
    folder = prepare("image_folder", str(tmp_path / "a"), str(tmp_path / "link"))
    assert len(_examples("image_folder", tmp_path / "a", "train")) == 31
    _link_out(flat_folder, "dog")
    prepare("image_folder", str(tmp_path / "b"), str(flat_folder), follow_links=True)
    same = _examples("image_folder", tmp_path / "b", "train")
    assert len(same) == 31 and folder.is_dir()
    assert same["cat/more/again.jpg"]["image"] == same["dog/00.jpg"]["image"]


def _keep_one_of_each(root: Path) -> dict:
    for name in CLASSES:
        for path in sorted((root / name).glob("*.jpg"))[1:]:
            path.unlink()
        shutil.rmtree(root / name / "more")
    return {"validation_fraction": 0.2}


MISTAKES["classes of one image"] = (
    _keep_one_of_each,
    r"the split validation would be empty: each class of /.*/pictures has one image "
    r"only, which stays for training; add images or leave out --validation_fraction$",
)

SPLIT_MISTAKES: dict[str, tuple[Callable[[Path], dict | None], str]] = {
    "empty validation folder": (
        lambda root: shutil.rmtree(root / "val/dog"),
        r"the split validation would be empty: /.*/pictures/val holds no image; fill",
    ),
    "empty test folder": (
        lambda root: (
            [shutil.rmtree(path) for path in (root / "test").iterdir()] and None
        ),
        r"the split test would be empty: /.*/pictures/test holds no image; fill that "
        r"folder or move it away$",
    ),
    "class that train lacks": (
        lambda root: (root / "val/emu").mkdir(),
        r"val/emu: unknown class, no folder of .*/train: rename it",
    ),
    "folder beside the splits": (
        lambda root: (root / "docs").mkdir(),
        r"docs stands beside .*/train, where only one folder of each split",
    ),
    "one split twice": (
        lambda root: (root / "valid").mkdir(),
        r"valid stands beside",
    ),
    "fraction beside a folder": (
        lambda root: {"validation_fraction": 0.1},
        r"/val already holds the validation images: leave out --validation_fraction",
    ),
}


@pytest.mark.parametrize("what", SPLIT_MISTAKES)
def test_mistake_in_a_folder_of_splits(what, split_folder, tmp_path):
    mistake, message = SPLIT_MISTAKES[what]
    options = mistake(split_folder) or {}
    data_dir = tmp_path / "data"
    with pytest.raises(InputError, match=message):
        prepare("image_folder", str(data_dir), str(split_folder), **options)
    assert not list(data_dir.iterdir())


def test_after_a_mistake_is_mended_the_same_call_succeeds(split_folder, tmp_path):
    arguments = ("image_folder", str(tmp_path / "data"), str(split_folder))
    (split_folder / "val/dog").rename(tmp_path / "dog")
    with pytest.raises(InputError, match="would be empty"):
        prepare(*arguments)
    (tmp_path / "dog").rename(split_folder / "val/dog")
    prepare(*arguments)
    assert len(open_source(*arguments[:2], "validation")) == 2


def test_names_that_are_not_there_are_told_with_those_that_are(flat_folder, tmp_path):
    prepare("image_folder", str(tmp_path), str(flat_folder), name="pets")
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text(json.dumps({}))
    for name in ("mnist", "petz", "../pets"):
        with pytest.raises(InputError, match=f"{name}'.* cifar10, pets .or be prepare"):
            open_source(name, str(tmp_path), "train")
    (tmp_path / "pets/1.0.0/dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="pets/1.0.0/dataset_info.json cannot be read"):
        open_source("pets", str(tmp_path), "train")


def test_a_folder_trains(flat_folder, tmp_path):
    prepare("image_folder", str(tmp_path), str(flat_folder), name="pets")
    source = open_source("pets", str(tmp_path), "train")
    iterator = pipeline.make_train_iterator(source, batch_size=6, image_size=16, seed=0)
    batch = next(iterator)
    iterator.close()
    assert batch["image"].shape == (6, 16, 16, 3)
    assert "upright" not in batch
