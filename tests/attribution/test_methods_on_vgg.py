"""Methods on a VGG, whose head reads 7x7 cells in PyTorch's order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.backward_rules.excitation import excitation_backprop
from saliency_jax.attribution.backward_rules.guided import guided_backprop
from saliency_jax.attribution.backward_rules.relevance import lrp
from saliency_jax.attribution.class_activation.gradient_weighted import grad_cam
from saliency_jax.attribution.gradients.plain import gradient
from saliency_jax.attribution.layers import MIDDLE, _find
from saliency_jax.attribution.program import trace
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import create_backbone
from saliency_jax.models.vgg import VGG
from saliency_jax.models.weights import load_weights
from tests.models import reproducible

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.models import torch_backbones, torch_resnet  # noqa: E402

PLAN = (64, "M", 128, "M", 256, "M", 512, "M", 512, "M")
CLASSES = 5
TARGETS = np.array([3, 1])
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def twins(norm, biases=True):
    """A VGG of five convolutions here and in PyTorch, with the same weights."""
    module = VGG((1, 1, 1, 1, 1), norm, CLASSES, width=4)
    twin = torch_backbones.TorchVGG(PLAN, norm, CLASSES, width=4).eval()
    arrays = reproducible.state_dict(torch_resnet.shapes_of(twin))
    for name in arrays:
        if not biases and name.endswith("bias"):
            arrays[name] = np.zeros_like(arrays[name])
    torch_resnet.load(twin, arrays)
    return Classifier(load_weights(arrays, module), module, MEAN, STD), twin


def pictures(size):
    coarse = reproducible.uniform((2, size[0] // 8, size[1] // 8, 3), "x", 0.0, 1.0)
    return np.asarray(jax.image.resize(jnp.asarray(coarse), (2, *size, 3), "linear"))


def block_negative(_, of_inputs, __):
    return (of_inputs[0].clamp(min=0),)


def test_gradients_guided_backprop_and_grad_cam_are_pytorchs():
    model, twin = twins(norm=True)
    images = pictures((64, 80))  # 2x2 places become 7x7 cells
    inputs = torch_resnet.to_torch(
        (images - np.float32(MEAN)) / np.float32(STD)
    ).requires_grad_()
    logits, taps = twin(inputs)
    score = logits[range(2), TARGETS].sum()
    of_inputs, of_maps = torch.autograd.grad(score, [inputs, taps[3]])
    expected = np.abs(torch_resnet.from_torch(of_inputs) / np.float32(STD)).max(-1)
    maps = gradient(model, images, TARGETS)
    np.testing.assert_allclose(maps, expected, atol=1e-5 * expected.max())

    cam = (of_maps.mean((2, 3), keepdim=True) * taps[3]).sum(1).clamp(min=0)
    maps = grad_cam(model, images, TARGETS, upsampling=None)
    assert maps.shape == (2, 4, 5)
    np.testing.assert_allclose(maps, cam.detach(), atol=1e-5 * cam.max().item())

    for layer in twin.modules():
        if isinstance(layer, torch.nn.ReLU):
            layer.register_full_backward_hook(block_negative)
    logits, _ = twin(inputs)
    (guided,) = torch.autograd.grad(logits[range(2), TARGETS].sum(), inputs)
    expected = np.abs(torch_resnet.from_torch(guided) / np.float32(STD)).max(-1)
    maps = guided_backprop(model, images, TARGETS)
    np.testing.assert_allclose(maps, expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("size", [64, 112, 224])
def test_cells_are_not_taken_for_the_last_maps(size):
    """At 112 pixels the fifth block has 7x7 maps too; nothing is run."""
    module = create_backbone("vgg16", CLASSES, width=2)
    images = jnp.zeros((2, size, size, 3))
    programs = []

    def look(key):
        model = Classifier(module.init(key, images, False), module)
        programs.append(trace(model, images))

    jax.eval_shape(look, jax.random.key(0))
    (program,) = programs
    last, *_ = _find(program, None)
    assert last is program.taps[3]  # torchvision's features.29
    convolutions = [
        equation
        for equation in program.equations
        if equation.primitive.name == "conv_general_dilated"
    ]
    middle, *_ = _find(program, MIDDLE)
    assert middle is convolutions[-1].invars[0]  # features.27


def shared(linear, mass, inputs):
    """The mass of a layer's results in shares of what its inputs add, in PyTorch."""
    inputs = inputs.detach().requires_grad_()
    total = linear(inputs)
    each = torch.where(total > 0, mass / total, 0)
    (share,) = torch.autograd.grad(total, inputs, each)
    return (inputs * share).detach()


def test_excitation_goes_through_the_cells():
    model, twin = twins(norm=False, biases=False)
    images = pictures((64, 96))
    maps, aux = excitation_backprop(
        model, images, TARGETS, layer="tap_4", upsampling=None, return_aux=True
    )
    with torch.no_grad():
        _, taps = twin(torch_resnet.to_torch((images - np.float32(MEAN)) / STD).float())
        cells = twin.avgpool(taps[4]).flatten(1)
        first = twin.classifier[:2](cells)
        second = twin.classifier[3:5](first)
    mass = torch.nn.functional.one_hot(torch.from_numpy(TARGETS), CLASSES).float()
    for number, inputs in ((6, second), (3, first), (0, cells)):
        weight = twin.classifier[number].weight.detach().clamp(min=0)
        mass = shared(lambda x, weight=weight: x @ weight.T, mass, inputs)
    mass = shared(lambda x: twin.avgpool(x).flatten(1), mass, taps[4])
    assert maps.shape == (2, 2, 3)
    np.testing.assert_allclose(maps, mass.sum(1), atol=1e-5)
    np.testing.assert_allclose(aux["lost_mass"], 0, atol=1e-5)
    # Without biases every unit that is active is excited: nothing is lost lower down.
    _, aux = excitation_backprop(model, images, TARGETS, layer="tap_0", return_aux=True)
    np.testing.assert_allclose(aux["lost_mass"], 0, atol=1e-4)


def test_relevance_is_conserved_without_biases():
    model, _ = twins(norm=False, biases=False)
    images = pictures((64, 96))
    logits = np.asarray(model(images))[range(2), TARGETS]
    maps, aux = lrp(
        model, images, TARGETS, layer="tap_0", upsampling=None, return_aux=True
    )
    np.testing.assert_allclose(maps.sum((1, 2)), logits, rtol=1e-4)
    np.testing.assert_allclose(aux["conservation_gap"], 0, atol=1e-4)
    assert np.abs(logits).min() > 0.1 and np.ptp(maps) > 0
