"""A masker in one file: every bit comes back, and nothing else comes in."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_jax import Classifier, InputError, Masker, load_masker, saliency_fn
from saliency_jax.masker_file import KIND, dequantise, quantise
from saliency_jax.models.create import create_classifier, create_masker, init_networks
from tests import own_networks
from tests.training import tiny

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def saved(casm_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "casm.safetensors"
    load_masker(casm_run).save(path)
    return path


def rewritten(saved, path, change):
    """The file with its arrays, metadata and config as `change` leaves them."""
    arrays = safetensors.numpy.load_file(saved)
    with safetensors.safe_open(saved, "numpy") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"])
    change(arrays, metadata, config)
    if "config" in metadata:
        metadata["config"] = json.dumps(config)
    safetensors.numpy.save_file(arrays, path, metadata)
    return path


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_every_bit_of_casm_comes_back(casm_run, saved):
    assert_same(load_masker(saved), load_masker(str(casm_run)))
    assert not [*saved.parent.glob("*.partial")]


def test_every_bit_of_a_black_box_masker_comes_back(black_box_run, tmp_path):
    masker, path = load_masker(black_box_run), tmp_path / "masker.safetensors"
    masker.save(path)
    assert_same(load_masker(path), masker)
    masker.replace(confidence=np.float32(0.1), classifier=None).save(path)
    alone = load_masker(path)
    assert alone.classifier is None and np.float32(alone.confidence) == np.float32(0.1)
    jax.tree.map(np.testing.assert_array_equal, alone.variables, masker.variables)


FRESH = """
import sys
from functools import partial

import numpy as np

from saliency_jax import load_masker, saliency_fn
from saliency_jax.models import create
from saliency_jax.models.resnet import ResNet

like = create.BACKBONES["resnet10"]
create.BACKBONES["resnet4"] = like._replace(create=partial(ResNet, (1,), False))
_, path, images, out = sys.argv
np.save(out, saliency_fn(load_masker(path), np.load(images)))
assert not {"orbax", "tensorstore", "grain"} & sys.modules.keys()
"""


def test_a_file_is_used_without_orbax_and_without_the_run(casm_run, saved, tmp_path):
    images, out = tmp_path / "images.npy", tmp_path / "masks.npy"
    np.save(images, IMAGES)
    subprocess.run([sys.executable, "-c", FRESH, saved, images, out], check=True)
    np.testing.assert_array_equal(
        np.load(out), saliency_fn(load_masker(casm_run), IMAGES)
    )


def test_int8_is_smaller_and_close(casm_run, saved, tmp_path):
    path = tmp_path / "int8.safetensors"
    load_masker(saved).save(path, int8=True)
    assert path.stat().st_size < 0.7 * saved.stat().st_size  # most is text
    masks, expected = (
        saliency_fn(load_masker(file), IMAGES) for file in (path, casm_run)
    )
    assert 0 < np.abs(masks - expected).mean() < 0.05


@given(
    st.integers(0, 2**32 - 1),
    st.floats(1e-6, 1e6),
    st.sampled_from([(3, 3, 4, 5), (7, 5)]),
)
@settings(max_examples=20, deadline=None)
def test_int8_errs_by_half_a_step_of_each_channel(seed, size, shape):
    kernel = np.random.default_rng(seed).normal(scale=size, size=shape)
    kernel = kernel.astype(np.float32)
    kernel[..., 0] = 0
    arrays = {"a/kernel": kernel, "a/bias": kernel[0]}
    quantised = quantise(arrays)
    assert quantised["a/kernel"].dtype == np.int8 and "a/bias.scale" not in quantised
    back = dequantise(quantised)
    axes = tuple(range(kernel.ndim - 1))
    step = np.abs(kernel).max(axes) / 127
    error = np.abs(back["a/kernel"] - kernel).max(axes)
    assert (error <= 0.501 * step).all()
    assert list(back) == list(arrays)
    np.testing.assert_array_equal(back["a/bias"], arrays["a/bias"])


def own_masker(labels=()):
    fields = {"network": "tests.own_networks:plain", "num_classes": 4}
    module = create_classifier(fields | {"dtype": "float32"})
    masker = create_masker(
        {
            "encoder": "own",
            "taps": (0, 1),
            "features": 2,
            "final_upsampling": "nearest",
        },
        module,
    )
    networks = init_networks(module, masker, jax.random.key(0), 16)
    classifier = Classifier(networks["classifier"], module, labels=labels)
    return Masker(networks["masker"], classifier, masker)


def test_a_network_of_the_users_own_is_named(tmp_path):
    masker, path = own_masker(("a", "b", "c", "d")), tmp_path / "own.safetensors"
    masker.save(path)
    assert_same(load_masker(path), masker)
    gone = {"classifier.network": "nowhere_at_all:create"}
    change = lambda arrays, metadata, config: config.update(gone)
    with pytest.raises(InputError, match=r"own\.saf.*no module 'nowhere_at_all'"):
        load_masker(rewritten(path, path, change))


def test_a_function_that_is_explained_is_named(black_box_run, tmp_path):
    masker, path = load_masker(black_box_run), tmp_path / "masker.safetensors"
    function = Classifier.from_function(own_networks.darkness)
    masker = masker.replace(classifier=function)
    with pytest.raises(InputError, match="function='my_model:logits'"):
        masker.save(path)
    masker = masker.replace(function="tests.own_networks:darkness")
    masker.save(path)
    assert_same(load_masker(path), masker)
    gone = {"classifier.function": "nowhere_at_all:logits"}
    change = lambda arrays, metadata, config: config.update(gone)
    assert load_masker(rewritten(path, path, change)).classifier is None


def test_what_has_no_name_is_not_saved(tmp_path):
    networks, path = tiny.networks(0), tmp_path / "masker.safetensors"
    classifier = Classifier(networks["classifier"], own_networks.Small(5))
    with pytest.raises(InputError, match="a Small of this kind has no name"):
        Masker(networks["masker"], classifier, tiny.DECODER).save(path)
    with pytest.raises(InputError, match=r"has to end in \.safetensors"):
        own_masker().save(tmp_path / "masker.npz")
    with pytest.raises(InputError, match="cannot be written .*No such file"):
        own_masker().save(tmp_path / "nowhere" / "masker.safetensors")
    assert not [*tmp_path.iterdir()]


def config_with(**fields):
    named = {name.replace("__", "."): value for name, value in fields.items()}
    return lambda arrays, metadata, config: config.update(named)


BIAS = "masker/params/final/bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, m, c: a.pop(BIAS), f"has no {BIAS}; copy it again"),
        (lambda a, m, c: a.update(x=a[BIAS]), "x is unexpected"),
        (
            lambda a, m, c: a.update({BIAS: np.zeros((2,), np.float32)}),
            r"bias has shape \(2,\) instead of \(1,\)",
        ),
        (lambda a, m, c: a.update({BIAS: np.zeros((1,), np.int8)}), "is of type int8"),
        (
            lambda a, m, c: a.update({BIAS + ".scale": np.zeros((1,), np.float32)}),
            "expected to be int8 and float32",
        ),
        (lambda a, m, c: m.pop("format"), "is no masker file"),
        (
            lambda a, m, c: m.update(format="pt"),
            "format 'pt', expected 'saliency_jax.m",
        ),
        (lambda a, m, c: m.update(version="2"), "version '2', .* reads version 1"),
        (lambda a, m, c: m.pop("config"), "config: Expecting value"),
        (
            lambda a, m, c: c.pop("masker.taps"),
            "no masker.taps: expected a list of whole",
        ),
        (config_with(masker__taps="all"), "masker.taps = 'all': expected a list of"),
        (config_with(masker__taps=[9]), "masker taps .* are not among the encoder's"),
        (config_with(masker__features=3), r"shape .* instead of .*3.*\(and"),
        (config_with(stage="gan"), "stage = 'gan': expected one of"),
        (config_with(stage=[1]), r"stage = \[1\]: expected one of"),
        (config_with(classifier__network="resnet5"), "no network 'resnet5'"),
        (config_with(classifier__num_classes=1.5), "num_classes = 1.5: expected"),
        (config_with(classifier__num_classes=10**30), "cannot be built|instead of"),
        (config_with(data__image_size=0), "data.image_size = 0: expected 1 to"),
        (config_with(data__mean=[0.5]), "data.mean = .*three numbers"),
        (config_with(casm__pool_slots=3), "a field 'casm.pool_slots', which no masker"),
    ],
)
def test_a_file_that_is_not_what_was_saved(saved, tmp_path, change, message):
    path = rewritten(saved, tmp_path / "bad.safetensors", change)
    with pytest.raises(InputError, match=message) as raised:
        load_masker(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("kept", [0, 7, 100, 5000, -1])
def test_a_file_that_was_cut_short(saved, tmp_path, kept):
    path = tmp_path / "short.safetensors"
    path.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(InputError, match="short.safetensors is not a readable"):
        load_masker(path)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_header_with_other_bytes_is_read_or_refused(saved, data):
    content = bytearray(saved.read_bytes())
    length = 8 + int.from_bytes(content[:8], "little")
    for place in data.draw(
        st.lists(st.integers(0, length - 1), min_size=1, max_size=4)
    ):
        content[place] = data.draw(st.integers(0, 255))
    path = saved.with_name("fuzzed.safetensors")
    path.write_bytes(content)
    try:
        load_masker(path)
    except InputError as error:
        assert str(path) in str(error)


def test_what_is_no_file(saved, tmp_path):
    with pytest.raises(InputError, match="gone.safetensors does not exist"):
        load_masker(tmp_path / "gone.safetensors")
    with pytest.raises(InputError, match="holds one masker and no checkpoint 'best'"):
        load_masker(saved, "best")
    shutil.copy(saved, tmp_path / "config.json")
    with pytest.raises(InputError, match="config.json is damaged"):
        load_masker(tmp_path)


def test_arrays_of_types_that_numpy_lacks(tmp_path):
    header = {
        "__metadata__": {"format": KIND.format, "version": "1", "config": "{}"},
        "x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0")
    with pytest.raises(InputError, match="is not a readable safetensors file"):
        load_masker(path)
