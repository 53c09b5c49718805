"""Grad-CAM, guided backpropagation, deconvnet and LRP: captum's values."""

import functools

import numpy as np
import pytest

pytest.importorskip("captum")

from captum import attr
from captum.attr._utils import lrp_rules

from saliency_jax.attribution import (
    deconvnet,
    grad_cam,
    guided_backprop,
    guided_grad_cam,
    lrp,
)
from saliency_jax.attribution.layers import Unit
from tests.attribution import torch_twins
from tests.attribution.captum_parity.twins import (
    MARKS,
    active_channel,
    assert_same,
    by_pixel_value,
    on_both,
    twins_of,
)
from tests.models.torch_resnet import from_torch

pytestmark = MARKS


@on_both
def test_grad_cam(name):
    """captum has no ReLU by default (`variant="captum"`), and leaves the layer's size.

    Its `LayerAttribution.interpolate` is bilinear or, by default, nearest; the latter
    is the same where the images' sides are multiples of the layer's.
    """
    twins = twins_of(name)
    size = twins.images.shape[1:3]
    for layer, module in twins.layers.items():
        method = attr.LayerGradCam(twins.module, module)
        for variant, relu in (("paper", True), ("captum", False)):
            expected = method.attribute(
                twins.inputs, twins.labels, relu_attributions=relu
            )
            asked = twins.classifier, twins.images, twins.targets
            maps = functools.partial(grad_cam, *asked, layer=layer, variant=variant)
            assert_same(maps(upsampling=None), from_torch(expected)[..., 0])
            multiple = not any(np.mod(size, expected.shape[2:]))
            for mode in ("bilinear", "nearest") if multiple else ("bilinear",):
                larger = attr.LayerAttribution.interpolate(expected, size, mode)
                assert_same(maps(upsampling=mode), from_torch(larger)[..., 0])


@on_both
@pytest.mark.parametrize(
    ("captum_class", "method"),
    [(attr.GuidedBackprop, guided_backprop), (attr.Deconvolution, deconvnet)],
)
def test_backward_rules_of_relu(name, captum_class, method):
    twins = twins_of(name)
    expected = captum_class(twins.module).attribute(twins.inputs, twins.labels)
    maps = method(twins.classifier, twins.images, twins.targets, reduction=None)
    assert_same(maps, by_pixel_value(twins, expected))


@on_both
@pytest.mark.parametrize(
    ("captum_class", "method"),
    [
        (attr.NeuronGuidedBackprop, guided_backprop),
        (attr.NeuronDeconvolution, deconvnet),
    ],
)
def test_backward_rules_of_relu_from_a_unit(name, captum_class, method):
    twins = twins_of(name)
    layer, module = next(iter(twins.layers.items()))
    channel = active_channel(twins, module)
    neuron = captum_class(twins.module, module)
    expected = neuron.attribute(twins.inputs, (channel, 1, 1))
    unit = Unit(channel, (1, 1), layer)
    maps = method(twins.classifier, twins.images, unit, reduction=None)
    assert_same(maps, by_pixel_value(twins, expected))


CAPTUM_RULES = {
    "epsilon": (lrp_rules.EpsilonRule, {"rule": "epsilon", "epsilon": 1e-9}),
    "gamma": (
        lrp_rules.GammaRule,
        {"rule": "gamma", "gamma": 0.25, "epsilon": 1e-9, "variant": "captum"},
    ),
    "alpha 1, beta 0": (
        lrp_rules.Alpha1_Beta0_Rule,
        {"rule": "alpha_beta", "alpha": 1.0, "epsilon": 1e-9, "variant": "captum"},
    ),
}


@pytest.mark.parametrize("rule", CAPTUM_RULES)
def test_lrp(rule):
    """captum has a rule for BatchNorm by itself; here it is folded into the weights.

    So captum gets a network whose BatchNorm has been folded. By `variant="captum"`
    contributions go by the sign of the weights alone.
    """
    twins = twins_of("small")
    module = torch_twins.folded(twins)
    captum_rule, options = CAPTUM_RULES[rule]
    for layer in (module.conv1, module.conv2, module.fc):
        layer.rule = captum_rule()
    expected = attr.LRP(module).attribute(twins.inputs, twins.labels)
    maps = lrp(twins.classifier, twins.images, twins.targets, reduction=None, **options)
    assert_same(maps, expected)


def test_lrp_with_batch_norm():
    """With a small epsilon, a rule for BatchNorm by itself makes no difference."""
    twins = twins_of("small")
    expected = attr.LRP(twins.module).attribute(twins.inputs, twins.labels)
    maps = lrp(
        twins.classifier,
        twins.images,
        twins.targets,
        rule="epsilon",
        epsilon=1e-9,
        reduction=None,
    )
    assert_same(maps, expected)


def test_lrp_of_a_layer():
    twins = twins_of("small")
    module = torch_twins.folded(twins)
    expected = attr.LayerLRP(module, module.conv1).attribute(twins.inputs, twins.labels)
    maps = lrp(
        twins.classifier,
        twins.images,
        twins.targets,
        rule="epsilon",
        epsilon=1e-9,
        layer="conv1",
        reduction=None,
        upsampling=None,
    )
    assert_same(maps, expected)


def test_guided_grad_cam():
    """captum enlarges Grad-CAM to the nearest cell by default, here bilinear."""
    twins = twins_of("small")
    for layer in ("tap_0", "conv2"):
        method = attr.GuidedGradCam(twins.module, twins.layers[layer])
        for mode in ("nearest", "bilinear"):
            expected = method.attribute(
                twins.inputs, twins.labels, interpolate_mode=mode
            )
            maps = guided_grad_cam(
                twins.classifier,
                twins.images,
                twins.targets,
                layer=layer,
                reduction=None,
                upsampling=mode,
            )
            assert_same(maps, by_pixel_value(twins, expected))
