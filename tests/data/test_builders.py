"""Builders: what is filed comes out again, and each mistake gets one clear line."""

import csv
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from raw_files import write_jpeg, write_xml

from saliency_jax.data import pipeline, shapes
from saliency_jax.data.prepare import prepare
from saliency_jax.data.sources import open_source
from saliency_jax.data.transforms import decode
from saliency_jax.errors import InputError


def _by_name(name: str, data_dir: Path, split: str) -> dict[str, dict]:
    source = open_source(name, str(data_dir), split)
    examples = [source[i] for i in range(len(source))]
    return {example["file_name"]: example for example in examples}


def test_shapes_come_out_as_rendered(shapes_dir):
    for split, seed, index in (("train", 0, 41), ("validation", 1, 7)):
        scene = shapes.render(seed, index, 32)
        examples = _by_name("shapes/32x32", Path(shapes_dir), split)
        example = decode(examples[f"{split}_{index:06d}"])
        np.testing.assert_array_equal(example["image"], scene.image)
        np.testing.assert_array_equal(example["object_mask"], scene.object_mask)
        assert example["label"] == scene.label
        assert tuple(example["boxes_pixels"][0]) == scene.box
        xmin, ymin, xmax, ymax = scene.box
        np.testing.assert_allclose(
            example["boxes"][0] * 32, [ymin, xmin, ymax, xmax], atol=1e-5
        )
        assert example["original_size"].tolist() == [32, 32]


def test_pairs_come_out_as_rendered(pairs_dir):
    for split, seed, index in (("train", 0, 11), ("validation", 1, 7)):
        scene = shapes.render_pair(seed, index, 32)
        examples = _by_name("shapes_pairs/32x32", Path(pairs_dir), split)
        example = decode(examples[f"{split}_{index:06d}"])
        for key in ("image", "label", "object_mask", "other_mask"):
            np.testing.assert_array_equal(example[key], getattr(scene, key))
        assert example["other_labels"].tolist() == [scene.other_label]
        assert example["boxes_pixels"].tolist() == [list(scene.box)]
        box = np.array(scene.box)[[1, 0, 3, 2]]
        np.testing.assert_allclose(example["boxes"] * 32, [box], atol=1e-5)
    source = open_source("shapes_pairs/32x32", pairs_dir, "train")
    assert source.class_names == shapes.CLASSES and source.has_object_masks
    assert source.max_boxes == 1 and source.num_with_boxes == len(source) == 20


def test_tiny_imagenet_comes_out_as_filed(tiny_folder, tmp_path):
    prepare("tiny_imagenet", str(tmp_path / "data"), str(tiny_folder))
    train = _by_name("tiny_imagenet", tmp_path / "data", "train")
    assert len(train) == 6
    example = train["n02124075_2.JPEG"]
    raw = tiny_folder / "train/n02124075/images/n02124075_2.JPEG"
    assert example["image"] == raw.read_bytes()
    assert example["label"] == 1  # by sorted WordNet id, whatever wnids.txt's order
    assert example["boxes_pixels"].tolist() == [[20, 5, 40, 63]]
    # Inclusive pixels 20..40 and 5..63 of 64.
    expected = [[5 / 64, 20 / 64, 1.0, 41 / 64]]
    np.testing.assert_allclose(example["boxes"], expected, atol=1e-6)
    val = _by_name("tiny_imagenet", tmp_path / "data", "validation")
    assert sorted(val) == [f"val_{i}.JPEG" for i in range(4)]
    assert [val[f"val_{i}.JPEG"]["label"] for i in range(4)] == [0, 1, 0, 1]
    one_pixel_wide = val["val_0.JPEG"]["boxes"]
    np.testing.assert_allclose(one_pixel_wide, [[0.5, 0, 45 / 64, 1 / 64]], atol=1e-6)
    source = open_source("tiny_imagenet", str(tmp_path / "data"), "validation")
    assert source.class_names == ("goldfish", "Egyptian cat")
    assert source.has_boxes and not source.has_object_masks
    (batch,) = pipeline.eval_batches(source, batch_size=4, image_size=64)
    assert batch["image"].shape == (4, 64, 64, 3)


def test_imagenet_loc_comes_out_as_filed(loc_folder, tmp_path):
    prepare("imagenet_loc", str(tmp_path / "data"), str(loc_folder))
    train = _by_name("imagenet_loc", tmp_path / "data", "train")
    assert len(train) == 4
    boxed, bare = train["n03126707_0.JPEG"], train["n03126707_1.JPEG"]
    assert boxed["label"] == bare["label"] == 2  # the mapping's line, a class is absent
    raw = loc_folder / "ILSVRC/Data/CLS-LOC/train/n03126707/n03126707_0.JPEG"
    assert boxed["image"] == raw.read_bytes()
    assert boxed["boxes_pixels"].tolist() == [[8, 6, 23, 29]]
    np.testing.assert_allclose(boxed["boxes"], [[0.1, 0.1, 0.5, 0.3]], atol=1e-6)
    assert bare["boxes"].shape == (0, 4)
    assert bare["original_size"].tolist() == [80, 60]

    val = _by_name("imagenet_loc", tmp_path / "data", "validation")
    two = val["ILSVRC2012_val_00000001.JPEG"]
    assert two["label"] == 0
    # The annotation's own size counts, and an edge one pixel outside is cut.
    assert two["original_size"].tolist() == [160, 120]
    assert two["boxes_pixels"].tolist() == [[0, 0, 79, 59], [100, 40, 160, 120]]
    expected = [[0, 0, 0.5, 0.5], [1 / 3, 100 / 160, 1.0, 1.0]]
    np.testing.assert_allclose(two["boxes"], expected, atol=1e-6)

    source = open_source("imagenet_loc", str(tmp_path / "data"), "train")
    assert source.class_names == ("tench", "crane (n02012849)", "crane (n03126707)")
    assert (source.max_boxes, source.num_with_boxes) == (1, 1)
    assert (
        open_source("imagenet_loc", str(tmp_path / "data"), "validation").max_boxes == 2
    )


def test_boxes_that_stick_out_are_refused_or_cut(loc_folder, tmp_path):
    xml = loc_folder / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000000.xml"
    write_xml(xml, "n02012849", 160, 120, (-8, 30, 200, 59))
    with pytest.raises(InputError, match=r"\(-8, 30, 200, 59\).*pass --clip_boxes"):
        prepare("imagenet_loc", str(tmp_path / "data"), str(loc_folder))
    prepare("imagenet_loc", str(tmp_path / "data"), str(loc_folder), clip_boxes=True)
    val = _by_name("imagenet_loc", tmp_path / "data", "validation")
    example = val["ILSVRC2012_val_00000000.JPEG"]
    np.testing.assert_allclose(example["boxes"], [[0.25, 0, 0.5, 1]], atol=1e-6)
    assert example["boxes_pixels"].tolist() == [[-8, 30, 200, 59]]


def test_reversed_edges_are_refused_or_exchanged(loc_folder, tmp_path):
    """ImageNet's training annotations hold a few."""
    xml = loc_folder / "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000000.xml"
    write_xml(xml, "n02012849", 160, 120, (79, 59, 40, 30))
    with pytest.raises(InputError, match="is empty.*--clip_boxes to exchange"):
        prepare("imagenet_loc", str(tmp_path / "data"), str(loc_folder))
    prepare("imagenet_loc", str(tmp_path / "data"), str(loc_folder), clip_boxes=True)
    val = _by_name("imagenet_loc", tmp_path / "data", "validation")
    example = val["ILSVRC2012_val_00000000.JPEG"]
    np.testing.assert_allclose(example["boxes"], [[0.25, 0.25, 0.5, 0.5]], atol=1e-6)
    assert example["boxes_pixels"].tolist() == [[79, 59, 40, 30]]


def test_tiny_imagenets_boxes_that_stick_out_are_cut_on_request(tiny_folder, tmp_path):
    boxes = tiny_folder / "train/n02124075/n02124075_boxes.txt"
    _edit(boxes, "40\t63", "40\t80")
    with pytest.raises(InputError, match="pass --clip_boxes to cut it"):
        prepare("tiny_imagenet", str(tmp_path), str(tiny_folder))
    prepare("tiny_imagenet", str(tmp_path), str(tiny_folder), clip_boxes=True)
    train = _by_name("tiny_imagenet", tmp_path, "train")
    (cut,) = [e for e in train.values() if e["boxes_pixels"][0, 3] == 80]
    assert cut["boxes"][0, 2] == 1.0


def test_a_training_object_may_have_its_class_in_words(loc_folder, tmp_path):
    _edit(loc_folder / _TRAIN_XML, "n03126707", "harbour_crane")
    prepare("imagenet_loc", str(tmp_path / "data"), str(loc_folder))
    train = _by_name("imagenet_loc", tmp_path / "data", "train")
    assert train["n03126707_0.JPEG"]["boxes_pixels"].tolist() == [[8, 6, 23, 29]]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


Mistake = Callable[[Path], object]

_TINY_IMAGE = "train/n02124075/images/n02124075_2.JPEG"

TINY_MISTAKES: dict[str, tuple[Mistake, str]] = {
    "missing folder": (
        lambda root: shutil.rmtree(root / "val" / "images"),
        r"folder .*val/images is missing: --source must name",
    ),
    "empty validation folder": (
        lambda root: [path.unlink() for path in (root / "val/images").iterdir()],
        r"val/images holds no image \(\*.JPEG\): unpack it again",
    ),
    "missing list": (
        lambda root: (root / "wnids.txt").unlink(),
        r"wnids.txt is missing: --source must name",
    ),
    "missing class": (
        lambda root: shutil.rmtree(root / "train/n02124075"),
        r"n02124075_boxes.txt is missing",
    ),
    "empty class": (
        lambda root: [p.unlink() for p in (root / "train/n02124075/images").iterdir()],
        r"n02124075/images holds no image.*remove n02124075 from wnids.txt",
    ),
    "corrupt JPEG": (
        lambda root: _truncate(root / _TINY_IMAGE),
        r"n02124075_2.JPEG is not a readable image",
    ),
    "not an image": (
        lambda root: (root / _TINY_IMAGE).write_text("hello"),
        r"n02124075_2.JPEG is not a readable image",
    ),
    "empty file": (
        lambda root: (root / _TINY_IMAGE).write_text(""),
        r"n02124075_2.JPEG is empty",
    ),
    "image without a box": (
        lambda root: write_jpeg(root / "val/images/val_9.JPEG", 0, 64, 64),
        r"val_9.JPEG has no box.*val_annotations.txt",
    ),
    "box outside": (
        lambda root: _edit(
            root / "train/n02124075/n02124075_boxes.txt", "40\t63", "40\t65"
        ),
        r"n02124075_boxes.txt: n02124075_2.JPEG: box .*\(20, 5, 40, 65\) lies outside "
        r"its image of 64x64 pixels",
    ),
    "box turned round": (
        lambda root: _edit(
            root / "train/n02124075/n02124075_boxes.txt", "20\t5\t40", "40\t5\t20"
        ),
        r"\(40, 5, 20, 63\) is empty",
    ),
    "box not a number": (
        lambda root: _edit(
            root / "train/n02124075/n02124075_boxes.txt", "20\t5\t40", "a\t5\t40"
        ),
        r"is not four integers",
    ),
    "missing column": (
        lambda root: _edit(root / "val/val_annotations.txt", "\t44", ""),
        r"val_annotations.txt:1: 6 tab-separated columns were expected, found 5",
    ),
    "unknown class": (
        lambda root: _edit(root / "val/val_annotations.txt", "n02124075", "n00000009"),
        r"val_1.JPEG is of unknown class 'n00000009', not in wnids.txt",
    ),
    "class listed twice": (
        lambda root: _edit(root / "wnids.txt", "n02124075", "n02124075\nn02124075"),
        r"wnids.txt: class n02124075 is listed 2 times: remove all lines of it but one",
    ),
    "unlisted class": (
        lambda root: _edit(root / "wnids.txt", "n02124075", ""),
        r"train/n02124075: unknown class, not in wnids.txt",
    ),
}

_TRAIN, _VAL = "ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val"
_TRAIN_XML = "ILSVRC/Annotations/CLS-LOC/train/n03126707/n03126707_0.xml"
_XML = "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000000.xml"

LOC_MISTAKES: dict[str, tuple[Mistake, str]] = {
    "missing folder": (
        lambda root: shutil.rmtree(root / _TRAIN),
        r"folder .*CLS-LOC/train is missing",
    ),
    "missing annotations": (
        lambda root: shutil.rmtree(root / "ILSVRC/Annotations"),
        r"folder .*Annotations/CLS-LOC/val is missing",
    ),
    "empty class": (
        lambda root: (root / _TRAIN / "n02012849").mkdir(),
        r"train/n02012849 holds no image",
    ),
    "corrupt JPEG": (
        lambda root: _truncate(root / _TRAIN / "n01440764/n01440764_1.JPEG"),
        r"n01440764_1.JPEG is not a readable image",
    ),
    "XML without a box": (
        lambda root: write_xml(root / _XML, "n02012849", 160, 120),
        r"val_00000000.xml holds no box",
    ),
    "XML cut off": (
        lambda root: (root / _XML).write_text("<annotation><size>"),
        r"val_00000000.xml is not a PASCAL VOC annotation",
    ),
    "XML of an unknown encoding": (
        lambda root: (root / _XML).write_text(
            '<?xml version="1.0" encoding="klingon"?><annotation/>'
        ),
        r"val_00000000.xml is not a PASCAL VOC annotation \(unknown encoding: klingon",
    ),
    "class listed twice": (
        lambda root: _edit(
            root / "LOC_synset_mapping.txt", "n02012849 crane", "n01440764 crane"
        ),
        r"LOC_synset_mapping.txt: class n01440764 is listed 2 times",
    ),
    "XML without a size": (
        lambda root: _edit(root / _XML, "width", "wide"),
        r"val_00000000.xml is not a PASCAL VOC annotation",
    ),
    "object of another class": (
        lambda root: _edit(root / _XML, "n02012849", "n03126707"),
        r"val_00000000.xml: an object is called 'n03126707', but its image is of class "
        r"n02012849: mend the annotation",
    ),
    "validation object in words": (
        lambda root: _edit(root / _XML, "n02012849", "crane"),
        r"val_00000000.xml: an object is called 'crane'",
    ),
    "training object of another class": (
        lambda root: _edit(root / _TRAIN_XML, "n03126707", "n02012849"),
        r"n03126707_0.xml: an object is called 'n02012849', but .* class n03126707",
    ),
    "no XML": (
        lambda root: (root / _XML).unlink(),
        r"val_00000000.JPEG has no box: .*val_00000000.xml was expected",
    ),
    "box outside": (
        lambda root: write_xml(root / _XML, "n02012849", 160, 120, (160, 3, 190, 9)),
        r"val_00000000.xml: box .*\(160, 3, 190, 9\) lies outside its image of "
        r"160x120 pixels: mend the annotation$",
    ),
    "unknown class": (
        lambda root: (root / _TRAIN / "n09999999").mkdir(),
        r"train/n09999999: unknown class, not in LOC_synset_mapping.txt",
    ),
    "unknown class in the solution": (
        lambda root: _edit(root / "LOC_val_solution.csv", "n02012849", "n09999999"),
        r"val_00000000 is of unknown class 'n09999999'",
    ),
    "image without a class": (
        lambda root: write_jpeg(root / _VAL / "extra.JPEG", 0, 9, 9),
        r"val/extra.JPEG has no class: .*LOC_val_solution.csv",
    ),
}


def _check_refused(name: str, folder: Path, mistake: Mistake, message: str) -> None:
    mistake(folder)
    data_dir = folder.parent / "data"
    with pytest.raises(InputError, match=message) as caught:
        prepare(name, str(data_dir), str(folder), strict=True)
    assert "\n" not in str(caught.value)
    assert not list(data_dir.iterdir())
    with pytest.raises(InputError, match=f"{name} is not prepared in"):
        open_source(name, str(data_dir), "train")


@pytest.mark.parametrize("what", TINY_MISTAKES)
def test_mistake_in_tiny_imagenet(what, tiny_folder):
    _check_refused("tiny_imagenet", tiny_folder, *TINY_MISTAKES[what])


@pytest.mark.parametrize("what", LOC_MISTAKES)
def test_mistake_in_imagenet_loc(what, loc_folder):
    _check_refused("imagenet_loc", loc_folder, *LOC_MISTAKES[what])


def _trivial_errors(name: str, data_dir: Path, corner: tuple[int, int]):
    """Localisation errors of the whole image and of the centre box, by CASM's rule."""
    source = open_source(name, str(data_dir), "validation")
    low, high = corner
    misses = []
    for i in range(len(source)):
        example = source[i]
        width, height = example["original_size"]
        boxes = example["boxes_pixels"].astype(float)
        row = []
        for box in ((0, 0, width, height), (low, low, high, high)):
            overlap = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(
                boxes[:, :2], box[:2]
            )
            common = np.maximum(overlap, 0).prod(1)
            area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
            box_area = (box[2] - box[0]) * (box[3] - box[1])
            row.append((common / (area + box_area - common)).max() <= 0.5)
        misses.append(row)
    return np.mean(misses, axis=0)


@pytest.mark.slow
def test_tiny_imagenet_gives_the_known_trivial_errors(shared_data, tmp_path):
    with tarfile.open(shared_data / "tiny-imagenet-100.tar.gz") as archive:
        archive.extractall(tmp_path / "raw", filter="data")
    (folder,) = (tmp_path / "raw").iterdir()
    prepare("tiny_imagenet", str(tmp_path), str(folder))
    errors = _trivial_errors("tiny_imagenet", tmp_path, (9, 55))
    np.testing.assert_allclose(errors, [0.506, 0.450], atol=6e-4)
    train = open_source("tiny_imagenet", str(tmp_path), "train")
    assert len(train) == 30_000 and train.num_classes == 100


@pytest.mark.slow
def test_imagenet_mini_comes_out_as_filed(shared_data, tmp_path):
    with tarfile.open(shared_data / "imagenet-mini.tar.gz") as archive:
        archive.extractall(tmp_path / "raw", filter="data")
    (folder,) = (tmp_path / "raw").iterdir()
    prepare("imagenet_loc", str(tmp_path), str(folder))
    train = open_source("imagenet_loc", str(tmp_path), "train")
    assert len(train) == 2000 and train.num_classes == 1000 and not train.has_boxes
    val = _by_name("imagenet_loc", tmp_path, "validation")
    with open(folder / "LOC_val_solution.csv") as file:
        rows = {row["ImageId"]: row["PredictionString"] for row in csv.DictReader(file)}
    assert len(val) == len(rows) == 638
    for image_id, prediction in rows.items():
        words = prediction.split()
        edges = [words[i + 1 : i + 5] for i in range(0, len(words), 5)]
        filed = val[f"{image_id}.JPEG"]["boxes_pixels"].tolist()
        assert sorted(filed) == sorted([int(edge) for edge in row] for row in edges)
        encoded = np.frombuffer(val[f"{image_id}.JPEG"]["image"], np.uint8)
        assert cv2.imdecode(encoded, cv2.IMREAD_COLOR).shape == (227, 227, 3)
