"""VGG's head, names and gradients are PyTorch's; so are those of the small network."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from saliency_jax.models.create import create_backbone
from saliency_jax.models.layers import max_pool_2x2
from saliency_jax.models.small_cnn import SmallCnn
from saliency_jax.models.vgg import VGG, adaptive_mean, cell_weights
from saliency_jax.models.weights import load_weights
from tests.models import reproducible

SHORT = (1, 1, 1, 1, 1)
SHORT_PLAN = (64, "M", 128, "M", 256, "M", 512, "M", 512, "M")

NAMES = {
    ("params", "features_0", "kernel"): "features.0.weight",
    ("params", "features_40", "kernel"): "features.40.weight",  # the last convolution
    ("params", "features_41", "scale"): "features.41.weight",
    ("batch_stats", "features_41", "var"): "features.41.running_var",
    ("params", "classifier_0", "kernel"): "classifier.0.weight",
    ("params", "classifier_6", "bias"): "classifier.6.bias",
}


def test_names_are_torchvisions():
    module = create_backbone("vgg16_bn", 10, width=2)
    init = lambda key: module.init(key, jnp.zeros((1, 32, 32, 3)), False)
    shapes = jax.eval_shape(init, jax.random.key(0))
    names = {
        tuple(key.key for key in path): module.weight_names.name(
            tuple(key.key for key in path)
        )
        for path, _ in jax.tree_util.tree_leaves_with_path(shapes)
    }
    assert {path: names[path] for path in NAMES} == NAMES
    # 13 convolutions with BatchNorm, of six arrays in all, and three dense layers.
    assert len(set(names.values())) == len(names) == 13 * 6 + 3 * 2


def test_initial_values_are_torchvisions():
    module = VGG(SHORT, True, 10, width=4)
    init = lambda key: module.init(key, jnp.zeros((1, 32, 32, 3)), False)
    params = jax.jit(init)(jax.random.key(1))["params"]
    assert all(not layer["bias"].any() for layer in params.values())
    assert (params["features_1"]["scale"] == 1).all()
    kernel = params["features_12"]["kernel"]  # fan out: 9 times 32 channels
    np.testing.assert_allclose(kernel.std(), (2 / (9 * 32)) ** 0.5, rtol=0.02)
    for name in ("classifier_0", "classifier_3", "classifier_6"):
        np.testing.assert_allclose(params[name]["kernel"].std(), 0.01, rtol=0.05)


def test_cells_by_hand():
    """Windows of 5 places for 3 cells: 0 and 1, 1 to 3, 3 and 4."""
    thirds = 1 / 3
    expected = [[0.5, 0.5, 0, 0, 0], [0, *3 * [thirds], 0], [0, 0, 0, 0.5, 0.5]]
    np.testing.assert_allclose(cell_weights(5, 3), expected, rtol=1e-6)
    # Fewer places than cells: each is repeated where windows are of one place.
    np.testing.assert_allclose(cell_weights(2, 3), [[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_array_equal(cell_weights(7, 7), np.eye(7))


@pytest.mark.torch
@pytest.mark.parametrize("size", [(1, 2), (6, 8), (7, 7), (7, 9), (20, 5)])
def test_adaptive_pooling_is_pytorchs_in_its_order(size):
    torch = pytest.importorskip("torch")
    x = reproducible.uniform((2, *size, 3), "x", -1.0, 1.0)
    pool = torch.nn.AdaptiveAvgPool2d(7)
    expected = pool(torch.from_numpy(x.transpose(0, 3, 1, 2))).flatten(2)
    means = adaptive_mean(jnp.asarray(x), 7)
    np.testing.assert_allclose(means, expected.numpy(), atol=1e-6)
    if size == (7, 7):
        np.testing.assert_array_equal(means, expected.numpy())


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_pooling_in_training_is_the_same_pooling(size):
    x = jnp.asarray(reproducible.uniform((2, *size, 3), "x", -1.0, 1.0))
    x = x.at[:, :4, :4].set(-1.0)  # windows of zeros alone
    pooled = {}
    for train in (True, False):
        pool = lambda x, train=train: max_pool_2x2(nn.relu(x), train)
        value, pull = jax.vjp(pool, x)
        pooled[train] = (
            value,
            *pull(jnp.cos(jnp.arange(value.size)).reshape(value.shape)),
        )
    jax.tree.map(np.testing.assert_array_equal, pooled[True], pooled[False])


# The head's 7x7 is made of 7x7 and of 2x3; the small network has another head.
CASES = {
    "VGG": (VGG(SHORT, False, 11, width=2), (1, 224, 230, 3)),
    "VGG, BatchNorm": (VGG(SHORT, True, 11, width=4), (2, 64, 97, 3)),
    "small_cnn": (SmallCnn(11, width=4), (2, 49, 64, 3)),
}


def twin_of(module):
    """The same network in PyTorch."""
    from tests.models import torch_backbones

    if isinstance(module, SmallCnn):
        return torch_backbones.TorchSmallCnn(11, module.width)
    return torch_backbones.TorchVGG(SHORT_PLAN, module.norm, 11, module.width)


def scores(logits, taps):
    """A number that every map has a part in; of JAX's arrays and of PyTorch's."""
    return (logits**2).sum() + sum((tap**2).mean() for tap in taps)


@partial(jax.jit, static_argnums=0)
def gradients_of(module, params, statistics, images):
    variables = lambda params: {"params": params, "batch_stats": statistics}
    score = lambda params, images: scores(
        *module.apply(variables(params), images, False)
    )
    return jax.grad(score, argnums=(0, 1))(params, images)


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_gradients_and_a_round_trip_of_weights(case, tmp_path):
    torch = pytest.importorskip("torch")
    from tests.models import torch_resnet

    module, shape = CASES[case]
    twin = twin_of(module).eval()
    arrays = reproducible.state_dict(torch_resnet.shapes_of(twin))
    torch_resnet.load(twin, arrays)
    torch.save(twin.state_dict(), tmp_path / "weights.pth")
    save_file(arrays, tmp_path / "weights.safetensors")
    variables = load_weights(tmp_path / "weights.pth", module)
    jax.tree.map(
        np.testing.assert_array_equal,
        variables,
        load_weights(tmp_path / "weights.safetensors", module),
    )

    images = reproducible.images(shape)
    inputs = torch_resnet.to_torch(images).requires_grad_()
    scores(*twin(inputs)).backward()
    of_params, of_images = gradients_of(
        module, variables["params"], variables["batch_stats"], images
    )
    pairs = {"images": (of_images, torch_resnet.from_torch(inputs.grad))}
    names, parameters = module.weight_names, dict(twin.named_parameters())
    for path, leaf in jax.tree_util.tree_leaves_with_path({"params": of_params}):
        key = names.name(tuple(k.key for k in path))
        pairs[key] = (leaf, names.to_flax(key, parameters[key].grad.numpy()))
    assert len(pairs) == len(parameters) + 1
    for key, (ours, theirs) in pairs.items():
        scale = np.abs(theirs).max()
        assert scale > 0, key
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * scale, err_msg=key)
