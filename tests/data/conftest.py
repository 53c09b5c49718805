"""Small raw folders in the real layouts, and a small prepared data set."""

from pathlib import Path

import pytest
from raw_files import write_jpeg, write_xml

from saliency_jax.data import plan
from saliency_jax.data.prepare import prepare

TINY_CLASSES = {"n01443537": "goldfish, Carassius auratus", "n02124075": "Egyptian cat"}
LOC_CLASSES = {
    "n01440764": "tench, Tinca tinca",
    "n02012849": "crane",
    "n03126707": "crane",
}


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """Tiny ImageNet's layout: two classes, three training images each, four in val."""
    root = tmp_path / "tiny-imagenet-200"
    for number, wnid in enumerate(TINY_CLASSES):
        lines = []
        for i in range(3):
            name = f"{wnid}_{i}.JPEG"
            image = root / "train" / wnid / "images" / name
            write_jpeg(image, 10 * number + i, 64, 64, grey=i == 0)
            lines.append(f"{name}\t{10 * i}\t5\t{10 * i + 20}\t63")
        boxes = root / "train" / wnid / f"{wnid}_boxes.txt"
        boxes.write_text("\n".join(lines) + "\n")
    lines = []
    for i in range(4):
        write_jpeg(root / "val" / "images" / f"val_{i}.JPEG", 100 + i, 64, 64)
        wnid = list(TINY_CLASSES)[i % 2]
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t32\t{i}\t44")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    # In the original the ids are not in order; labels are those of the sorted ids.
    (root / "wnids.txt").write_text("\n".join(reversed(TINY_CLASSES)) + "\n")
    words = [f"{wnid}\t{name}" for wnid, name in TINY_CLASSES.items()]
    (root / "words.txt").write_text("\n".join(words) + "\n")
    return root


@pytest.fixture
def loc_folder(tmp_path: Path) -> Path:
    """Kaggle's layout: three classes of which two are present, some without boxes."""
    root = tmp_path / "imagenet"
    mapping = [f"{wnid} {name}" for wnid, name in LOC_CLASSES.items()]
    (root / "ILSVRC").mkdir(parents=True)
    (root / "LOC_synset_mapping.txt").write_text("\n".join(mapping) + "\n")
    data, filed = (root / "ILSVRC" / kind / "CLS-LOC" for kind in _KINDS)
    for number, wnid in enumerate(("n01440764", "n03126707")):
        for i in range(2):
            write_jpeg(data / "train" / wnid / f"{wnid}_{i}.JPEG", i + number, 80, 60)
    xml = filed / "train/n03126707/n03126707_0.xml"
    write_xml(xml, "n03126707", 80, 60, (8, 6, 23, 29))
    rows = ["ImageId,PredictionString"]
    for i, wnid in enumerate(("n02012849", "n01440764")):
        image_id = f"ILSVRC2012_val_{i:08d}"
        write_jpeg(data / "val" / f"{image_id}.JPEG", 50 + i, 80, 60)
        # Filed for twice the stored size; the second box ends one pixel outside.
        boxes = [(0, 0, 79, 59), (100, 40, 160, 120)][: i + 1]
        write_xml(filed / "val" / f"{image_id}.xml", wnid, 160, 120, *boxes)
        rows.append(f"{image_id},{wnid} 0 0 79 59 ")
    (root / "LOC_val_solution.csv").write_text("\n".join(rows) + "\n")
    return root


_KINDS = ("Data", "Annotations")


@pytest.fixture(scope="session")
def pairs_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with `shapes_pairs/32x32`: 20 training and 14 validation scenes."""
    data_dir = str(tmp_path_factory.mktemp("pairs"))
    prepare("shapes_pairs", data_dir, image_size=32, num_train=20, num_validation=14)
    return data_dir


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of at most nine images."""
    monkeypatch.setattr(plan, "TASKS_PER_SHARD", 9)
