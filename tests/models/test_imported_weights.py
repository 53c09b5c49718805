"""Real weights: the logits and the accuracy that their originals have."""

import io
import tarfile
from typing import NamedTuple

import jax
import numpy as np
import pytest

from configs import classifier_imagenet
from saliency_jax.models import create
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.weights import load_weights
from saliency_jax.training import run_folder, start

VAL = "ILSVRC/Data/CLS-LOC/val/"


class Case(NamedTuple):
    """A file of real weights, its network, the image size, per cent top-1 and top-5."""

    file: str
    network: str
    size: int
    top1: float
    top5: float


CASES = [
    Case("mobilenet_v2_tf", "mobilenet_v2", 224, 77.4, 94.0),
    Case("mobilenet_v1_075_keras", "mobilenet_v1", 224, 75.5, 93.6),
    Case("squeezenet1_1", "squeezenet1_1", 227, 73.4, 90.8),
]
IDS = [case.network for case in CASES]


def classifier_of(case, shared_data, tmp_path):
    """The classifier of a user who names the network and the file, nothing else."""
    config = classifier_imagenet.get_config()
    config.classifier.network = case.network
    path = shared_data / "weights" / f"{case.file}.safetensors"
    config.classifier.init = str(path)
    config.classifier.dtype = "float32"
    run_folder.resolve(config, 1000, start.known_network(config, tmp_path / "workdir"))
    module = create.create_classifier(config.classifier)
    variables = load_weights(path, module)
    return Classifier(variables, module, config.data.mean, config.data.std)


def read_validation(shared_data, names=None):
    """Names and JPEGs of imagenet-mini's validation images, in order."""
    images = {}
    with tarfile.open(shared_data / "imagenet-mini.tar.gz") as archive:
        for member in archive:
            if VAL in member.name and member.name.endswith(".JPEG"):
                name = member.name.rpartition("/")[2].removesuffix(".JPEG")
                if names is None or name in names:
                    images[name] = archive.extractfile(member).read()
    return {name: images[name] for name in sorted(images)}


def decode(jpeg, size):
    """RGB, resized by PIL's bilinear filter, as the logits' originals were fed."""
    image = pytest.importorskip("PIL.Image")
    with image.open(io.BytesIO(jpeg)) as opened:
        resized = opened.convert("RGB").resize((size, size), image.Resampling.BILINEAR)
    return np.asarray(resized)


@pytest.fixture(scope="module")
def golden(shared_data):
    path = shared_data.parent / "golden" / "classifier_logits.npz"
    if not path.is_file():
        pytest.skip(f"no logits of the originals: {path} is missing")
    with np.load(path) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def golden_jpegs(shared_data, golden):
    jpegs = read_validation(shared_data, set(golden["image_ids"].tolist()))
    return [jpegs[name] for name in golden["image_ids"].tolist()]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_logits_of_eight_images(case, shared_data, golden, golden_jpegs, tmp_path):
    classifier = classifier_of(case, shared_data, tmp_path)
    images = np.stack([decode(jpeg, case.size) for jpeg in golden_jpegs])
    logits = jax.jit(lambda classifier, images: classifier(images))(classifier, images)
    expected = golden[f"{case.file}_logits"]
    difference = np.abs(np.asarray(logits) - expected).max()
    print(f"{case.file}: max abs difference {difference:.1e}")
    assert difference < 1e-3 and expected.std() > 1


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_accuracy_on_imagenet_mini(case, shared_data, tmp_path):
    classifier = classifier_of(case, shared_data, tmp_path)
    jpegs = read_validation(shared_data)
    labels = read_labels(shared_data)
    predict = jax.jit(lambda classifier, images: classifier(images))
    hits = []
    names = list(jpegs)
    assert len(names) == 638
    for first in range(0, len(names), 58):  # 11 equal batches, compiled once
        part = names[first : first + 58]
        images = np.stack([decode(jpegs[name], case.size) for name in part])
        order = np.argsort(-np.asarray(predict(classifier, images)), axis=1)[:, :5]
        hits.append(order == np.array([labels[name] for name in part])[:, None])
    hits = np.concatenate(hits)
    top1, top5 = 100 * hits[:, 0].mean(), 100 * hits.any(axis=1).mean()
    print(f"{case.file}: top-1 {top1:.2f} %, top-5 {top5:.2f} %")
    assert abs(top1 - case.top1) <= 0.5 and abs(top5 - case.top5) <= 0.5


def read_labels(shared_data):
    """The label of each validation image: the line of its class in the list."""
    with tarfile.open(shared_data / "imagenet-mini.tar.gz") as archive:
        files = {}
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name in ("LOC_synset_mapping.txt", "LOC_val_solution.csv"):
                files[name] = archive.extractfile(member).read().decode().splitlines()
    wnids = [line.split()[0] for line in files["LOC_synset_mapping.txt"]]
    rows = [line.split(",") for line in files["LOC_val_solution.csv"][1:]]
    return {name: wnids.index(boxes.split()[0]) for name, boxes in rows}
