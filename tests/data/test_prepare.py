"""Preparing twice, with mistaken arguments, and from the command line."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from raw_files import write_jpeg

from saliency_jax.data.prepare import prepare
from saliency_jax.data.sources import open_source
from saliency_jax.errors import InputError


def test_preparing_again_changes_nothing(tiny_folder, tmp_path, capsys):
    data_dir = tmp_path / "data"
    folder = prepare("tiny_imagenet", str(data_dir), str(tiny_folder))
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}
    assert "tiny_imagenet is prepared in" in capsys.readouterr().out
    shutil.rmtree(tiny_folder)  # not even needed any more
    prepare("tiny_imagenet", str(data_dir), str(tiny_folder))
    printed = capsys.readouterr().out
    assert printed.startswith("tiny_imagenet is already prepared in")
    assert ": 6 train and 4 validation images of 2 classes; delete " in printed
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}
    assert before == after


def _prepared_before(folder: Path) -> None:
    """Takes out of the metadata what an earlier version did not record."""
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    kept = {key: metadata[key] for key in ("max_boxes", "num_with_boxes")}
    assert kept != metadata
    path.write_text(json.dumps(kept))


def test_preparing_from_another_source_is_refused(tiny_folder, tmp_path, capsys):
    data_dir = str(tmp_path / "data")
    folder = prepare("tiny_imagenet", data_dir, str(tiny_folder))
    other = tiny_folder.with_name("other")
    shutil.copytree(tiny_folder, other)
    refusal = (
        f"{folder} already holds 6 train and 4 validation images of 2 classes, "
        f"prepared with --source={tiny_folder}, not {other}: delete that folder or "
        "choose another --data_dir"
    )
    with pytest.raises(InputError, match=f"^{re.escape(refusal)}$"):
        prepare("tiny_imagenet", data_dir, str(other))
    # The same folder by another path, or none, asks for nothing else.
    roundabout = str(other / ".." / tiny_folder.name)
    for same in (roundabout, None):
        assert prepare("tiny_imagenet", data_dir, same) == folder
        assert "6 train and 4 validation images of 2" in capsys.readouterr().out
    _prepared_before(folder)
    assert prepare("tiny_imagenet", data_dir, str(other)) == folder
    source = open_source("tiny_imagenet", data_dir, "train")
    assert len(source) == 6 and source.max_boxes == 1


def test_preparing_with_boxes_cut_or_not_is_not_the_same(loc_folder, tmp_path):
    data_dir, source = str(tmp_path / "data"), str(loc_folder)
    folder = prepare("imagenet_loc", data_dir, source, clip_boxes=True)
    with pytest.raises(InputError, match="4 train and 2 .* --clip_boxes=True, not F"):
        prepare("imagenet_loc", data_dir, source)
    assert prepare("imagenet_loc", data_dir, source, clip_boxes=True) == folder
    _prepared_before(folder)
    assert prepare("imagenet_loc", data_dir, source) == folder
    assert open_source("imagenet_loc", data_dir, "validation").max_boxes == 2


def test_leaving_an_option_out_is_not_asking_for_the_same(tmp_path):
    for name in ("a", "b"):
        for i in range(4):
            write_jpeg(tmp_path / "raw" / name / f"{i}.jpg", i, 40, 20)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("a/0.jpg,1,1,9,9\n")
    arguments = ("image_folder", str(tmp_path / "data"), str(tmp_path / "raw"))
    options = {"boxes": str(boxes), "validation_fraction": 0.25}
    folder = prepare(*arguments, **options)
    for option, value in options.items():
        others = {key: options[key] for key in options if key != option}
        with pytest.raises(InputError, match=f"with --{option}={value}, not None"):
            prepare(*arguments, **others)
    assert prepare(*arguments[:2], **options) == folder
    _prepared_before(folder)
    assert prepare(*arguments) == folder


def test_shapes_of_other_sizes_live_side_by_side_and_other_counts_are_refused(
    shapes_dir,
):
    prepare("shapes", shapes_dir, image_size=48, num_train=10, num_validation=10)
    assert len(open_source("shapes/48x48", shapes_dir, "train")) == 10
    assert len(open_source("shapes/32x32", shapes_dir, "train")) == 60
    with pytest.raises(InputError, match="already holds 10 train and 10 .*=10, not 20"):
        prepare("shapes", shapes_dir, image_size=48, num_train=20, num_validation=10)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        (
            "mnist",
            None,
            r"unknown data set 'mnist': .*shapes, shapes_pairs, tiny_imagenet",
        ),
        ("cifar10", None, r"cifar10 is TFDS's own: run tfds build cifar10"),
        ("tiny_imagenet", None, r"tiny_imagenet needs --source"),
        ("tiny_imagenet", "/nowhere", r"source folder /nowhere is missing or empty"),
    ],
)
def test_mistake_in_the_arguments(name, source, message, tmp_path):
    with pytest.raises(InputError, match=message):
        prepare(name, str(tmp_path / "data"), source)


OPTIONS = {
    "source": "nowhere",
    "name": "mine",
    "image_size": 32,
    "num_train": 20,
    "num_validation": 20,
    "clip_boxes": False,
    "boxes": "boxes.csv",
    "validation_fraction": 7.0,
    "split_seed": 0,
    "follow_links": True,
}
SIZES = ("image_size", "num_train", "num_validation")
TAKEN = {
    "shapes": SIZES,
    "shapes_pairs": SIZES,
    "tiny_imagenet": ("source", "clip_boxes", "follow_links"),
    "imagenet_loc": ("source", "clip_boxes", "follow_links"),
    "image_folder": tuple(OPTIONS.keys() - set(SIZES)),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("builder", TAKEN)
def test_options_of_other_builders_are_refused(builder, option, tmp_path):
    data_dir = tmp_path / "data"
    if option in TAKEN[builder]:
        if TAKEN[builder] is not SIZES:
            with pytest.raises(InputError, match="source"):
                prepare(builder, str(data_dir), **{option: OPTIONS[option]})
        return
    takers = [other for other in TAKEN if option in TAKEN[other]]
    message = f"--{option} is not for {builder}, only for {', '.join(takers)}: leave it"
    with pytest.raises(InputError, match=f"^{message}"):
        prepare(builder, str(data_dir), **{option: OPTIONS[option]})
    assert not data_dir.exists()


def test_data_dir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"data_dir .*file is not writable \("):
        prepare("shapes", str(tmp_path / "file"))


def test_command_prints_one_line_for_a_mistake_and_one_for_success(tmp_path):
    command = [sys.executable, "-m", "saliency_jax.data", "prepare"]
    where = ["--data_dir", str(tmp_path / "data")]
    repository = Path(__file__).parent.parent.parent

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*command, *arguments, *where],
            cwd=repository,
            capture_output=True,
            text=True,
        )

    failed = run("tiny_imagenet", "--source", str(tmp_path / "nowhere"))
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: source folder") and failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    other = run("shapes", "--split_seed", "0")  # the value that image_folder has anyway
    assert other.returncode == 2
    assert other.stderr.startswith("error: --split_seed is not for shapes, only for i")
    small = ["--num_train", "10", "--num_validation", "10", "--image_size", "16"]
    done = run("shapes", *small)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.startswith("shapes is prepared in") and done.stdout.count("\n") == 1
    )
    assert "shapes: 100%" in done.stderr  # the progress bar
