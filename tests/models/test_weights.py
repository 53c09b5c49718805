"""Reading weights: what fits is exact, what does not is one line, nothing is run."""

import json
import os
import pickle
import sys

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from saliency_jax.errors import InputError
from saliency_jax.models.create import create_backbone
from saliency_jax.models.masker import CasmMasker
from saliency_jax.models.resnet import ResNet
from saliency_jax.models.weight_names import torch_shape
from saliency_jax.models.weights import (
    SAFETENSORS_DTYPES,
    load_weights,
    read_weights,
)
from tests.models import reproducible


@pytest.fixture(scope="module")
def module():
    return create_backbone("resnet50", 10, width=4)


@pytest.fixture(scope="module")
def arrays(module):
    """PyTorch-named weights of `module`, every value different."""
    shapes = jax.eval_shape(
        lambda key: module.init(key, jnp.zeros((1, 32, 32, 3)), False),
        jax.random.key(0),
    )
    return reproducible.state_dict(
        {
            ResNet.weight_names.name(path): torch_shape(leaf.shape)
            for path, leaf in flax.traverse_util.flatten_dict(shapes).items()
        }
    )


def message_of(weights, module):
    """The error's text; it must be one line."""
    with pytest.raises(InputError) as caught:
        load_weights(weights, module)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_are_torchvisions():
    names = {
        ("params", "conv1", "kernel"): "conv1.weight",
        ("params", "layer3_5", "conv3", "kernel"): "layer3.5.conv3.weight",
        ("params", "layer1_0", "bn2", "bias"): "layer1.0.bn2.bias",
        ("batch_stats", "bn1", "var"): "bn1.running_var",
        (
            "params",
            "layer1_0",
            "downsample_conv",
            "kernel",
        ): "layer1.0.downsample.0.weight",
        (
            "batch_stats",
            "layer4_0",
            "downsample_bn",
            "mean",
        ): "layer4.0.downsample.1.running_mean",
        ("params", "fc", "kernel"): "fc.weight",
    }
    torch_name = ResNet.weight_names.name
    assert {path: torch_name(path) for path in names} == names


def test_axes_are_turned_from_oihw_and_oi(arrays, module):
    variables = load_weights(arrays, module)
    kernel = variables["params"]["layer2_0"]["conv2"]["kernel"]
    assert kernel[2, 0, 3, 5] == arrays["layer2.0.conv2.weight"][5, 3, 2, 0]
    assert variables["params"]["fc"]["kernel"][7, 2] == arrays["fc.weight"][2, 7]
    mean = variables["batch_stats"]["layer1_0"]["downsample_bn"]["mean"]
    np.testing.assert_array_equal(mean, arrays["layer1.0.downsample.1.running_mean"])


def test_prefix_counters_and_half_precision_are_taken_in(arrays, module, tmp_path):
    wrapped = {f"module.{name}": array for name, array in arrays.items()}
    wrapped["module.bn1.num_batches_tracked"] = np.array(7)
    save_file(wrapped, tmp_path / "weights.safetensors")
    loaded = load_weights(tmp_path / "weights.safetensors", module)
    jax.tree.map(np.testing.assert_array_equal, loaded, load_weights(arrays, module))
    half = {name: array.astype(np.float16) for name, array in arrays.items()}
    for leaf in jax.tree.leaves(load_weights(half, module)):
        assert leaf.dtype == jnp.float32


def test_missing_unexpected_and_misshaped_names_are_all_listed(arrays, module):
    changed = dict(arrays)
    del changed["layer3.2.bn1.running_mean"]
    changed["layer5.0.conv1.weight"] = np.zeros((4, 4, 1, 1), np.float32)
    changed["conv1.weight"] = np.zeros((4, 3, 3, 3), np.float32)
    message = message_of(changed, module)
    assert "1 missing: layer3.2.bn1.running_mean" in message
    assert "1 unexpected: layer5.0.conv1.weight" in message
    assert "conv1.weight (4, 3, 3, 3) instead of (4, 3, 7, 7)" in message


def test_long_lists_are_counted(arrays):
    message = message_of(arrays, create_backbone("resnet101", 10, width=4))
    # 17 blocks more in stage 3, each of three convolutions and three BatchNorms.
    assert f"{17 * 15} missing" in message
    assert f"and {17 * 15 - 10} more" in message


def test_other_classes_say_what_to_do(arrays):
    message = message_of(arrays, create_backbone("resnet50", 7, width=4))
    assert "10 classes" in message
    assert "have 7" in message
    assert "--config.classifier.init" in message


OTHERS = {
    "mobilenet_v1": {"width_multiplier": 0.25},
    "mobilenet_v2": {"width_multiplier": 0.25},
    "squeezenet1_1": {},
    "googlenet": {},
    "vgg11": {"width": 4},
    "vgg16_bn": {"width": 4},
    "small_cnn": {"width": 8},
}


def filed(module):
    """Zeros by the names and in the shapes of a file of this network."""
    names = module.weight_names
    shapes = jax.eval_shape(
        lambda key: module.init(key, jnp.zeros((1, 64, 64, 3)), False),
        jax.random.key(0),
    )
    arrays = {}
    for path, leaf in flax.traverse_util.flatten_dict(shapes).items():
        name = names.name(path)
        arrays[name] = np.zeros(names.file_shape(name, leaf.shape), np.float32)
    assert len(arrays) == len(jax.tree.leaves(shapes))  # no name stands for two
    return arrays


@pytest.mark.parametrize("name", OTHERS)
def test_every_backbone_is_imported_strictly(name):
    module = create_backbone(name, 10, **OTHERS[name])
    arrays = filed(module)
    variables = load_weights(arrays, module)
    assert set(variables) == {"params", "batch_stats"}
    assert bool(variables["batch_stats"]) == (name not in ("squeezenet1_1", "vgg11"))
    first, second = list(arrays)[0], list(arrays)[-1]
    changed = {**arrays, "extra.weight": np.zeros(3), first: np.zeros((2, 2))}
    del changed[second]
    message = message_of(changed, module)
    assert f"1 missing: {second}" in message
    assert "1 unexpected: extra.weight" in message
    assert f"1 of another shape: {first} (2, 2) instead of" in message


@pytest.mark.parametrize("name", OTHERS)
def test_other_classes_of_every_backbone(name):
    arrays = filed(create_backbone(name, 10, **OTHERS[name]))
    message = message_of(arrays, create_backbone(name, 7, **OTHERS[name]))
    assert "tells 10 classes apart, the data have 7" in message
    head = create_backbone(name, 7).weight_names.head[0]
    arrays[head] = np.zeros((10, 3, 1, 1), np.float32)
    message = message_of(arrays, create_backbone(name, 7, **OTHERS[name]))
    assert "does not fit the network" in message and f"{head} (10, 3, 1, 1)" in message


def test_another_width_does_not_fit():
    arrays = filed(create_backbone("mobilenet_v1", 10, width_multiplier=0.25))
    message = message_of(arrays, create_backbone("mobilenet_v1", 10))
    assert "conv1/kernel (3, 3, 3, 8) instead of (3, 3, 3, 32)" in message


def test_keras_axes():
    module = create_backbone("mobilenet_v1", 10, width_multiplier=0.25)
    arrays = filed(module)
    for name in ("conv_dw_2/depthwise_kernel", "conv_pw_2/kernel"):
        arrays[name] = reproducible.uniform(arrays[name].shape, name, -1.0, 1.0)
    params = load_weights(arrays, module)["params"]
    depthwise = arrays["conv_dw_2/depthwise_kernel"]
    assert params["conv_dw_2"]["kernel"][2, 1, 0, 5] == depthwise[2, 1, 5, 0]
    np.testing.assert_array_equal(
        params["conv_pw_2"]["kernel"], arrays["conv_pw_2/kernel"]
    )


def test_auxiliary_heads_of_googlenet_and_of_no_other_network_are_dropped():
    module = create_backbone("googlenet", 10)
    arrays = filed(module)
    heads = {
        "aux1.conv.conv.weight": np.zeros((128, 512, 1, 1), np.float32),
        "aux2.fc2.bias": np.zeros(10, np.float32),
    }
    load_weights(arrays | heads, module)
    assert "1 unexpected: aux3.fc2.bias" in message_of(
        arrays | heads | {"aux3.fc2.bias": np.zeros(10)}, module
    )
    other = create_backbone("squeezenet1_1", 10)
    assert "2 unexpected: aux1." in message_of(filed(other) | heads, other)


def test_a_network_without_names_takes_no_file(arrays):
    message = message_of(arrays, CasmMasker())
    assert "CasmMasker cannot take weights from a file" in message


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_missing_damaged_and_folder(name, arrays, tmp_path):
    if name.endswith(".pth"):
        pytest.importorskip("torch")
    path = tmp_path / name
    with pytest.raises(InputError, match=f"{name} does not exist"):
        read_weights(path)
    for content in (b"", b"hello, this is no table of weights"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is not a readable"):
            read_weights(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=f"{name} is a folder"):
        read_weights(path)


def test_truncated_safetensors(arrays, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(arrays, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable safetensors"):
        read_weights(path)


def save_raw(path, dtype, num_bytes):
    """Files eight numbers of a dtype that NumPy may lack."""
    tensor = {"dtype": dtype, "shape": [8], "data_offsets": [0, num_bytes]}
    header = json.dumps({"fc.bias": tensor}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(num_bytes))


@pytest.mark.parametrize(
    ("dtype", "num_bytes"),
    [
        ("F4", 4),
        ("F6_E2M3", 6),
        ("F8_E4M3", 8),
        ("F8_E5M2", 8),
        ("F8_E8M0", 8),
        ("C64", 64),
    ],
)
def test_dtypes_that_no_weights_are_taken_from(dtype, num_bytes, tmp_path, module):
    path = tmp_path / "weights.safetensors"
    save_raw(path, dtype, num_bytes)
    message = message_of(path, module)
    assert message.startswith(
        f"weights file {path} has tensor fc.bias of dtype {dtype}"
    )
    assert message.endswith("save the tensors as float32")


def test_every_other_dtype_is_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    for dtype in SAFETENSORS_DTYPES:
        bits = 8 if dtype == "BOOL" else int(dtype.lstrip("BFIU"))
        save_raw(path, dtype, bits)
        assert read_weights(path)["fc.bias"].shape == (8,)


def test_unknown_suffix(tmp_path):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"weights.h5 .*\.safetensors or \.pth"):
        read_weights(path)


def test_pth_without_pytorch_names_the_package(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="pip install torch"):
        read_weights(path)


class Payload:
    """Runs a command when an ordinary unpickler reads it."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_malicious_files_are_refused_and_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    payload = Payload(f"touch {tmp_path / 'was_run'}")
    pickle.dump(payload, (tmp_path / "plain.pth").open("wb"))
    torch.save({"conv1.weight": payload}, tmp_path / "zipped.pth")
    for name in ("plain.pth", "zipped.pth"):
        with pytest.raises(InputError, match="could run code"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "was_run").exists()
    pickle.loads((tmp_path / "plain.pth").read_bytes())  # the trap does work
    assert (tmp_path / "was_run").exists()


@pytest.mark.torch
def test_pth_files_of_training_scripts(arrays, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for content in (tensors, {"epoch": 3, "state_dict": tensors}, {"model": tensors}):
        torch.save(content, path)
        read = read_weights(path)
        assert read.keys() == arrays.keys()
        np.testing.assert_array_equal(read["conv1.weight"], arrays["conv1.weight"])
    torch.save({"half": torch.ones(2, dtype=torch.bfloat16)}, path)
    assert read_weights(path)["half"].dtype == np.float32
    torch.save({"p": torch.nn.Parameter(torch.ones(2))}, path)
    assert read_weights(path)["p"].tolist() == [1, 1]
    torch.save([torch.ones(2)], path)
    with pytest.raises(InputError, match="no table of named tensors"):
        read_weights(path)
    torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="not a readable PyTorch"):
        read_weights(path)
