"""The same weights and images give what captum gives.

captum is called as its users call it, with normalised images; a `Classifier` normalises
images in [0, 1] itself. So a gradient here is captum's divided by the standard
deviation of the normalisation, and an attribution, which is a gradient times a
difference of inputs, is the same.
"""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Setting .* hooks"),
]
torch = pytest.importorskip("torch")
pytest.importorskip("captum")

from captum import attr  # noqa: E402

from saliency_jax.attribution.gradients import (  # noqa: E402
    gradient,
    input_x_gradient,
)
from saliency_jax.attribution.layers import Unit, as_layer, cut  # noqa: E402
from tests.attribution import torch_twins  # noqa: E402
from tests.models.torch_resnet import from_torch  # noqa: E402

TOLERANCE = 1e-3

twins_of = functools.cache(lambda name: torch_twins.TWINS[name]())
on_both = pytest.mark.parametrize("name", torch_twins.TWINS)


def assert_same(maps, expected, tolerance=TOLERANCE):
    """The greatest difference, on the scale of the greatest value."""
    maps = np.asarray(maps)
    if isinstance(expected, torch.Tensor):
        expected = from_torch(expected)
    assert maps.shape == expected.shape
    scale = np.abs(expected).max()
    error = np.abs(maps - expected).max() / scale
    print(f"relative error {error:.1e}")
    assert scale > 0 and error < tolerance


def by_pixel_value(twins, gradients):
    """captum's gradients, of normalised pixels, as those of pixels in [0, 1]."""
    return from_torch(gradients) / np.float32(twins.classifier.std)


def active_channel(twins, module):
    """A channel of a layer that is not switched off at row 1 and column 1."""
    values = attr.LayerActivation(twins.module, module).attribute(twins.inputs)
    return int(values[:, :, 1, 1].amin(dim=0).argmax())


@on_both
def test_logits(name):
    twins = twins_of(name)
    with torch.no_grad():
        expected = twins.module(twins.inputs).numpy()
    np.testing.assert_allclose(twins.classifier(twins.images), expected, atol=1e-4)
    assert expected.std() > 0.1


@on_both
def test_saliency(name):
    """captum keeps the channels, and their absolute values unless `abs=False`."""
    twins = twins_of(name)
    asked = twins.classifier, twins.images, twins.targets
    saliency = attr.Saliency(twins.module).attribute
    signed = saliency(twins.inputs, twins.labels, abs=False)
    expected = by_pixel_value(twins, signed)
    assert_same(gradient(*asked, reduction=None), expected)
    absolute = saliency(twins.inputs, twins.labels)
    expected = by_pixel_value(twins, absolute)
    assert_same(gradient(*asked), expected.max(axis=-1))
    assert_same(gradient(*asked, reduction="sum_abs"), expected.sum(axis=-1))


@on_both
def test_input_x_gradient(name):
    twins = twins_of(name)
    asked = twins.classifier, twins.images, twins.targets
    product = attr.InputXGradient(twins.module).attribute(twins.inputs, twins.labels)
    assert_same(input_x_gradient(*asked, reduction=None), product)
    assert_same(input_x_gradient(*asked), from_torch(product).sum(axis=-1))


@on_both
def test_gradient_x_activation_of_a_layer(name):
    twins = twins_of(name)
    for layer, module in twins.layers.items():
        maps = input_x_gradient(
            twins.classifier,
            twins.images,
            twins.targets,
            layer=layer,
            reduction=None,
            upsampling=None,
        )
        method = attr.LayerGradientXActivation(twins.module, module)
        assert_same(maps, method.attribute(twins.inputs, twins.labels))


@on_both
def test_activations_of_a_layer(name):
    twins = twins_of(name)
    for layer, module in twins.layers.items():
        parts = cut(twins.classifier, jnp.asarray(twins.images), as_layer(layer))
        expected = attr.LayerActivation(twins.module, module).attribute(twins.inputs)
        assert_same(parts.activations(jnp.asarray(twins.images)), expected)


@on_both
def test_gradient_of_a_unit(name):
    twins = twins_of(name)
    for layer, module in twins.layers.items():
        channel = active_channel(twins, module)
        method = attr.NeuronGradient(twins.module, module)
        neuron = method.attribute(twins.inputs, (channel, 1, 1))
        unit = Unit(channel, (1, 1), layer)
        maps = gradient(twins.classifier, twins.images, unit, reduction=None)
        assert_same(maps, by_pixel_value(twins, neuron))
