"""All backbones but ResNets give what PyTorch gives, at every map."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.models.create import create_backbone
from saliency_jax.models.layers import DepthwiseConv3x3, max_pool_ceil
from saliency_jax.models.weights import load_weights
from tests.models import reproducible

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.models import torch_backbones, torch_resnet  # noqa: E402

TOLERANCE = 1e-4
# Batch statistics of few values magnify rounding: in the last map of GoogLeNet, PyTorch
# in float32 is 1.2e-4 from PyTorch in float64.
TRAINING_TOLERANCE = 5e-4

# The sides give strided layers odd and even sizes.
CASES = {
    "mobilenet_v2": ("mobilenet_v2", {}, (2, 68, 90, 3)),
    "mobilenet_v2, tensorflow": (
        "mobilenet_v2",
        {"padding": "tensorflow", "width_multiplier": 0.35, "epsilon": 1e-3},
        (1, 65, 58, 3),
    ),
    "mobilenet_v2, keras": (
        "mobilenet_v2",
        {"padding": "keras", "width_multiplier": 1.4},
        (1, 45, 34, 3),
    ),
    "mobilenet_v1": ("mobilenet_v1", {}, (1, 65, 58, 3)),
    "mobilenet_v1, keras": (
        "mobilenet_v1",
        {"padding": "keras", "width_multiplier": 0.75},
        (1, 69, 58, 3),
    ),
    "mobilenet_v1, symmetric": (
        "mobilenet_v1",
        {"padding": "symmetric", "width_multiplier": 0.25, "epsilon": 1e-5},
        (2, 68, 45, 3),
    ),
    "squeezenet1_1": ("squeezenet1_1", {}, (2, 68, 90, 3)),
    "squeezenet1_1, odd": ("squeezenet1_1", {}, (1, 41, 57, 3)),
    "googlenet": ("googlenet", {}, (2, 68, 90, 3)),
    "googlenet, odd": ("googlenet", {"epsilon": 1e-5}, (1, 41, 57, 3)),
    # The head reads 7x7: of the last maps as they are, of less, of more.
    "vgg11, 224": ("vgg11", {"width": 4}, (1, 224, 224, 3)),
    "vgg13_bn": ("vgg13_bn", {"width": 4, "epsilon": 1e-3}, (2, 33, 90, 3)),
    "vgg16": ("vgg16", {"width": 2}, (1, 289, 270, 3)),
    "vgg19_bn": ("vgg19_bn", {"width": 2}, (1, 224, 120, 3)),
    "small_cnn": ("small_cnn", {}, (2, 68, 90, 3)),
    "small_cnn, odd": ("small_cnn", {"width": 5, "epsilon": 1e-3}, (1, 41, 57, 3)),
}


def twin(name, num_classes, options):
    """The PyTorch network with reproducible weights, and those weights as filed."""
    module = torch_backbones.NETWORKS[name](num_classes, **options)
    arrays = reproducible.state_dict(torch_resnet.shapes_of(module))
    torch_resnet.load(module, arrays)
    if name == "mobilenet_v1":
        arrays = torch_backbones.keras_arrays(arrays)
    return module, arrays


@partial(jax.jit, static_argnums=(0, 3))
def apply(module, variables, images, train):
    return module.apply(variables, images, train, mutable=["batch_stats"])


def assert_same_outputs(outputs, expected, tolerance):
    (logits, taps), (torch_logits, torch_taps) = outputs, expected
    pairs = {"logits": (logits, torch_logits.numpy())}
    for i, (tap, torch_tap) in enumerate(zip(taps, torch_taps, strict=True)):
        pairs[f"tap{i}"] = (tap, torch_resnet.from_torch(torch_tap))
    for key, (value, reference) in pairs.items():
        assert value.shape == reference.shape and value.dtype == jnp.float32
        difference = np.abs(np.asarray(value) - reference).max()
        print(f"{key}: std {reference.std():.2f}, max abs difference {difference:.1e}")
        assert difference < tolerance, f"{key}: {difference}"
        assert reference.std() > 0.1, f"{key} is too flat to tell anything"


@pytest.mark.parametrize("case", CASES)
def test_evaluation(case):
    name, options, shape = CASES[case]
    module, arrays = twin(name, 11, options)
    images = reproducible.images(shape)
    with torch.no_grad():
        expected = module.eval()(torch_resnet.to_torch(images))
    network = create_backbone(name, 11, **options)
    outputs, _ = apply(network, load_weights(arrays, network), images, False)
    assert_same_outputs(outputs, expected, TOLERANCE)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v1", {"width_multiplier": 0.25}),
        ("mobilenet_v2", {"width_multiplier": 0.25}),
        ("googlenet", {}),
        ("vgg11_bn", {"width": 4}),
        ("small_cnn", {"width": 8}),
    ],
)
def test_training_and_its_running_statistics(name, options):
    module, arrays = twin(name, 11, options)
    images = reproducible.images((6, 64, 66, 3))
    with torch.no_grad():
        expected, variances = torch_resnet.biased_running_variances(
            module, lambda: module(torch_resnet.to_torch(images))
        )
    network = create_backbone(name, 11, **options)
    outputs, updated = apply(network, load_weights(arrays, network), images, True)
    assert_same_outputs(outputs, expected, TRAINING_TOLERANCE)

    running = {
        key: value.numpy()
        for key, value in module.state_dict().items()
        if key.endswith("running_mean")
    } | variances
    if name == "mobilenet_v1":
        running = torch_backbones.keras_arrays(running)
    names = network.weight_names
    flat = jax.tree_util.tree_leaves_with_path(updated)
    ours = {names.name(tuple(k.key for k in path)): leaf for path, leaf in flat}
    assert ours.keys() == running.keys()
    for key, value in running.items():
        np.testing.assert_allclose(ours[key], value, atol=TOLERANCE, err_msg=key)


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 2), (3, 1)])
def test_pooling_in_ceil_mode(window, stride):
    for height in range(window, 12):
        x = reproducible.uniform((2, height, height + 3, 4), f"{height}", -1.0, 1.0)
        pool = torch.nn.MaxPool2d(window, stride, ceil_mode=True)
        expected = torch_resnet.from_torch(pool(torch_resnet.to_torch(x)))
        x = jnp.asarray(x)
        np.testing.assert_array_equal(max_pool_ceil(x, window, stride), expected)
    one = jnp.full((1, 1, 1, 1), -3.0)
    assert max_pool_ceil(one, window, stride).item() == -3.0


@pytest.mark.parametrize("padding", ["symmetric", "tensorflow", "keras"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 8), (8, 5)])
@pytest.mark.parametrize("train", [False, True])
def test_depthwise_convolution_and_its_gradients(padding, stride, size, train):
    x = jnp.asarray(reproducible.uniform((2, *size, 5), "x", -1.0, 1.0))
    kernel = jnp.asarray(reproducible.uniform((3, 3, 1, 5), "kernel", -1.0, 1.0))
    layer = torch_backbones.Conv3x3(5, 5, stride, padding, groups=5)
    layer.weight.data = torch.from_numpy(np.array(kernel.transpose(3, 2, 0, 1)))
    torch_x = torch_resnet.to_torch(np.asarray(x)).requires_grad_()
    expected = layer(torch_x)
    expected.pow(2).sum().backward()

    module = DepthwiseConv3x3(stride, padding, jnp.float32)
    convolve = lambda kernel, x: module.apply({"params": {"kernel": kernel}}, x, train)
    squared = lambda kernel, x: jnp.sum(convolve(kernel, x) ** 2)
    by_kernel, by_x = jax.grad(squared, argnums=(0, 1))(kernel, x)
    for ours, theirs in (
        (convolve(kernel, x), torch_resnet.from_torch(expected)),
        (by_x, torch_resnet.from_torch(torch_x.grad)),
        (by_kernel, layer.weight.grad.numpy().transpose(2, 3, 1, 0)),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "count"),
    [  # mobilenet_v1 is Keras's count of what is trained
        ("mobilenet_v1", 4_231_976),
        ("mobilenet_v2", 3_504_872),
        ("squeezenet1_1", 1_235_496),
        ("googlenet", 6_624_904),
        ("vgg11", 132_863_336),
        ("vgg13_bn", 133_053_736),
        ("vgg16", 138_357_544),
        ("vgg16_bn", 138_365_992),
        ("vgg19", 143_667_240),
        ("small_cnn", 32 * (27 + 9 * 2 * 32 * 53 + 2 * 23) + 257 * 1000),
    ],
)
def test_parameter_counts(name, count):
    with torch.device("meta"):  # VGG would take half a gigabyte
        module = torch_backbones.NETWORKS[name](1000)
    assert sum(p.numel() for p in module.parameters()) == count
    network = create_backbone(name, 1000)
    shapes = jax.eval_shape(
        lambda key: network.init(key, jnp.zeros((1, 64, 64, 3)), False),
        jax.random.key(0),
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count
