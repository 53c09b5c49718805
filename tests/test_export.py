"""An exported masker gives the masker's masks, with JAX and the file alone."""

import json
import subprocess
import sys

import jax
import jaxtyping
import numpy as np
import pytest
import safetensors.numpy
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_jax import (
    Classifier,
    InputError,
    Masker,
    export_masker,
    load_exported,
    load_masker,
    saliency_fn,
)
from saliency_jax.export import __main__ as command
from saliency_jax.models.create import create_backbone, init_networks
from saliency_jax.models.masker import CasmMasker

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 64, 3), np.uint8)
LABELS = np.array([3, 0, 9, 9, 1])


@pytest.fixture(scope="module")
def casm(casm_run):
    return load_masker(casm_run)


@pytest.fixture(scope="module", autouse=True)
def sizes_may_be_symbols():
    """A symbolic size is no `int`, as signatures say that sizes are."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def exported(casm, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "casm.safetensors"
    export_masker(casm, path)
    return path


def test_images_of_any_number_and_size(casm, exported):
    masks_of = load_exported(exported)
    expected = saliency_fn(casm, IMAGES)
    np.testing.assert_allclose(masks_of(IMAGES), expected, atol=1e-5)
    np.testing.assert_allclose(masks_of(IMAGES[:1])[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(masks_of(IMAGES[0]), expected[0], atol=1e-5)
    square = np.concatenate([IMAGES, IMAGES], axis=1)
    inside = jax.jit(masks_of)(square.astype(np.float32) / 255)
    np.testing.assert_allclose(inside, saliency_fn(casm, square), atol=1e-5)


FRESH = """
import sys

import numpy as np

{load}
_, path, images, out = sys.argv
np.save(out, masks_of(path, np.load(images)))
modules = sys.modules.keys()
assert not {{"flax", "orbax", "optax", "saliency_jax.models"}} & modules
assert ("saliency_jax" in modules) == {ours}
"""
OURS = """
from saliency_jax import load_exported
masks_of = lambda path, images: load_exported(path)(images)
"""
WITHOUT_US = """
import jax.export, safetensors.numpy
def masks_of(path, images):
    arrays = safetensors.numpy.load_file(path)
    program = jax.export.deserialize(bytearray(arrays.pop("program")))
    return program.call(arrays, images)
"""


@pytest.mark.parametrize(("load", "ours"), [(OURS, True), (WITHOUT_US, False)])
def test_a_fresh_process_needs_neither_flax_nor_the_networks_code(
    casm, exported, tmp_path, load, ours
):
    images, out = tmp_path / "images.npy", tmp_path / "masks.npy"
    np.save(images, IMAGES.astype(np.float32) / 255)
    program = FRESH.format(load=load, ours=ours)
    subprocess.run([sys.executable, "-c", program, exported, images, out], check=True)
    np.testing.assert_allclose(np.load(out), saliency_fn(casm, IMAGES), atol=1e-5)


def test_int8_weights_beside_the_program(casm, tmp_path):
    """What the program holds of them is nothing, and of masks no last layer."""
    path = tmp_path / "int8.safetensors"
    export_masker(casm, path, weights="beside", int8=True)
    arrays = safetensors.numpy.load_file(path)
    kernels = [name for name in arrays if name.endswith("kernel")]
    assert kernels and all(arrays[name].dtype == np.int8 for name in kernels)
    assert not [name for name in arrays if "fc" in name or name == "confidence"]
    quantised = tmp_path / "masker.safetensors"
    casm.save(quantised, int8=True)
    expected = saliency_fn(load_masker(quantised), IMAGES)
    np.testing.assert_allclose(load_exported(path)(IMAGES), expected, atol=1e-5)


def test_the_masker_of_a_black_box_by_the_command(black_box_run, tmp_path, capsys):
    """In int8, of a fixed size, without the black box: its weights are constants."""
    out, quantised = tmp_path / "int8.safetensors", tmp_path / "masker.safetensors"
    command.define_flags()
    try:
        flags.FLAGS.out, flags.FLAGS.int8, flags.FLAGS.image_size = str(out), True, 32
        flags.FLAGS.weights = "inside"
        command.main(["", str(black_box_run)])
    finally:
        for flag in [*flags.FLAGS.flags_by_module_dict()[command.__name__]]:
            delattr(flags.FLAGS, flag.name)
    assert "differ from the masker's by at most" in capsys.readouterr().out
    masker = load_masker(black_box_run)
    in_float = sum(leaf.nbytes for leaf in jax.tree.leaves(masker.variables))
    assert out.stat().st_size < 0.7 * in_float
    masker.save(quantised, int8=True)
    images, masks_of = IMAGES[:, :, :32], load_exported(out)
    expected = saliency_fn(load_masker(quantised), images, LABELS)
    np.testing.assert_allclose(masks_of(images, LABELS), expected, atol=1e-5)
    np.testing.assert_allclose(masks_of(images[0], 3), expected[0], atol=1e-5)
    in_float = saliency_fn(masker, images, LABELS)
    assert 0 < np.abs(expected - in_float).mean() < 0.05
    for labels, message in (
        (None, "pass labels"),
        (np.int32(10), "label 10: the masker knows classes 0 to 9"),
        (np.array([1, 2]), r"labels of shape \(2,\): expected one class for each .*5"),
    ):
        with pytest.raises(InputError, match=message):
            masks_of(images, labels)
    with pytest.raises(InputError, match="32x64 pixels: this program takes 32 pixels"):
        masks_of(IMAGES, LABELS)


def test_images_that_a_program_does_not_take(exported):
    masks_of = load_exported(exported)
    for shape, message in (
        ((2, 32, 33, 3), "32x33 pixels: this program takes a multiple of 32 pixels"),
        ((2, 0, 32, 3), "0x32 pixels"),
        ((32, 32), r"expected an array \[H, W, 3\]"),
        ((0, 32, 32, 3), "no image: .* at least one"),
    ):
        with pytest.raises(InputError, match=message):
            masks_of(np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match="images of type list: expected an array"):
        masks_of([IMAGES[0]])
    with pytest.raises(InputError, match="NaN or infinite"):
        masks_of(np.full((1, 32, 32, 3), np.nan, np.float32))
    with pytest.warns(UserWarning, match="images reach from 255 to 255"):
        masks_of(np.full((1, 32, 32, 3), 255, np.float32))
    with pytest.raises(InputError, match="type int32 have no known range"):
        masks_of(np.zeros((1, 32, 32, 3), np.int32))


def test_a_network_that_needs_a_fixed_size_says_so(tmp_path):
    classifier = create_backbone("squeezenet1_1", 2)
    module, path = CasmMasker(taps=(0,)), tmp_path / "masker.safetensors"
    like = lambda key: init_networks(classifier, module, key, 32)
    networks = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(like, jax.random.key(0)),
    )
    masker = Masker(
        networks["masker"], Classifier(networks["classifier"], classifier), module
    )
    with pytest.raises(InputError, match="images of any size .*: name one, image_size"):
        export_masker(masker, path)
    assert not [*tmp_path.iterdir()]


def test_where_an_export_cannot_be_written(casm, tmp_path):
    with pytest.raises(InputError, match=r"has to end in \.safetensors"):
        export_masker(casm, tmp_path / "casm.bin")


def with_metadata(**changed):
    def change(arrays, metadata):
        metadata.update(changed)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_metadata(format="saliency_jax.masker"), "is no exported masker"),
        (lambda a, m: m.clear(), "is no exported masker"),
        (lambda a, m: a.pop("program"), "is damaged"),
        (with_metadata(version="9"), "version '9', and this saliency_jax reads"),
        (with_metadata(sha256="0"), "is damaged: copy it again"),
        (lambda a, m: a.update(program=a["program"][:-1]), "is damaged"),
        (with_metadata(interface="{"), "interface: Expecting"),
        (with_metadata(interface='{"sizes": 3}'), "interface: "),
        (
            with_metadata(
                interface=json.dumps(
                    {"num_classes": None, "image_size": "x", "square": True}
                )
            ),
            "expected whole numbers above 0",
        ),
        (
            with_metadata(
                interface=json.dumps(
                    {"num_classes": 3, "image_size": None, "square": True}
                )
            ),
            "not those that its program takes",
        ),
        (lambda a, m: a.update(x=a["program"]), "not those that its program takes"),
    ],
)
def test_a_file_that_is_not_what_was_exported(exported, tmp_path, change, message):
    arrays = safetensors.numpy.load_file(exported)
    with safetensors.safe_open(exported, "numpy") as file:
        metadata = file.metadata()
    change(arrays, metadata)
    path = tmp_path / "bad.safetensors"
    safetensors.numpy.save_file(arrays, path, metadata)
    with pytest.raises(InputError, match=message) as raised:
        load_exported(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there_or_cut_short(exported, tmp_path):
    path = tmp_path / "casm.safetensors"
    with pytest.raises(InputError, match="does not exist: name a file that"):
        load_exported(path)
    path.write_bytes(exported.read_bytes()[:-1])
    with pytest.raises(InputError, match="is not a readable safetensors file"):
        load_exported(path)


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_other_bytes_are_read_or_refused(exported, data):
    content = bytearray(exported.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1)):
        content[place] = data.draw(st.integers(0, 255))
    path = exported.with_name("fuzzed.safetensors")
    path.write_bytes(content)
    try:
        load_exported(path)
    except InputError as error:
        assert str(path) in str(error)


def test_platforms_that_are_not_here(casm, tmp_path):
    path = tmp_path / "cuda.safetensors"
    with pytest.raises(InputError, match=r"no platform 'cudda' \(did you mean cuda"):
        export_masker(casm, path, platforms=["cudda"])
    with pytest.raises(InputError, match="no place of weights 'below'"):
        export_masker(casm, path, weights="below")
    assert not path.exists()
    export_masker(casm, path, image_size=32, platforms=["cuda"])
    with pytest.raises(InputError, match="is for cuda, and JAX runs on cpu here"):
        load_exported(path)
