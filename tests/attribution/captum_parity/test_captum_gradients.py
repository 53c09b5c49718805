"""Gradients, their averages over noise, and activations: captum's values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("captum")

from captum import attr  # noqa: E402

from saliency_jax.attribution import (  # noqa: E402
    gradient,
    input_x_gradient,
    smooth_grad,
    smooth_grad_squared,
    var_grad,
)
from saliency_jax.attribution.layers import Unit, as_layer, cut  # noqa: E402
from tests.attribution.captum_parity.twins import (  # noqa: E402
    MARKS,
    active_channel,
    assert_same,
    by_pixel_value,
    on_both,
    twins_of,
)
from tests.models import torch_resnet  # noqa: E402
from tests.models.torch_resnet import from_torch  # noqa: E402

pytestmark = MARKS


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


def noise_of(twins, key, samples, sigma):
    """The noise on the images of `smooth_grad`, by its definition."""
    keys = [jax.random.fold_in(key, i) for i in range(samples)]
    draws = [jax.random.normal(key, twins.images.shape[1:]) for key in keys]
    return np.stack(draws) * np.float32(sigma)


@pytest.mark.parametrize(
    ("captum_type", "method", "power"),
    [
        ("smoothgrad", smooth_grad, 1),
        ("smoothgrad_sq", smooth_grad_squared, 2),
        ("vargrad", var_grad, 2),
    ],
)
def test_noise_tunnel(captum_type, method, power, monkeypatch):
    """captum's `stdevs` is of normalised images: here `sigma=stdevs * std`.

    It draws other noise, so it is given this package's.
    """
    twins = twins_of("small")
    std = np.float32(twins.classifier.std)
    samples, stdevs, key = 6, 0.4, jax.random.key(3)
    noise = noise_of(twins, key, samples, stdevs)
    noise = torch_resnet.to_torch(noise).repeat(len(twins.images), 1, 1, 1)
    monkeypatch.setattr(
        attr.NoiseTunnel,
        "_add_noise_to_input",
        staticmethod(lambda x, _, count: x.repeat_interleave(count, dim=0) + noise),
    )
    expected = attr.NoiseTunnel(attr.Saliency(twins.module)).attribute(
        twins.inputs,
        nt_type=captum_type,
        nt_samples=samples,
        stdevs=stdevs,
        target=twins.labels,
        abs=False,
    )
    maps = method(
        twins.classifier,
        twins.images,
        twins.targets,
        key=key,
        samples=samples,
        sigma=stdevs * std,
        reduction=None,
    )
    assert_same(maps, from_torch(expected) / std**power)
