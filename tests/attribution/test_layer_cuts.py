"""Layers of all kinds of classifiers, by name or by default; units; messages."""

import inspect

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from saliency_jax.attribution.class_activation.gradient_weighted import grad_cam
from saliency_jax.attribution.gradients.plain import gradient
from saliency_jax.attribution.gradients.ten_crop import ten_crop_gradient
from saliency_jax.attribution.layers import (
    INPUT,
    Unit,
    _find,
    as_layer,
    cut,
    target_scores,
    unit_scores,
)
from saliency_jax.attribution.program import trace
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import create_backbone
from tests.attribution.small_network import classifier, images

TARGETS = jnp.array([1, 3])


def cut_at(model, layer, targets=TARGETS):
    return cut(model, jnp.asarray(images(2)), as_layer(layer), targets)


@pytest.mark.parametrize(
    "layer, size, channels",
    [
        (None, 8, 12),
        ("tap_0", 8, 12),
        ("conv1", 16, 8),
        ("conv2", 8, 12),
        ("bn2", 8, 12),
        (INPUT, 16, 3),
    ],
)
def test_both_sides_of_a_cut(layer, size, channels):
    model, batch = classifier(), jnp.asarray(images(2))
    parts = cut_at(model, layer)
    maps = parts.activations(batch)
    assert maps.shape == (2, size, size, channels)
    logits = parts.logits(batch, maps)
    np.testing.assert_allclose(logits, model(batch), atol=1e-6)
    scores = parts.scores(batch, maps, TARGETS)
    np.testing.assert_allclose(scores, logits[jnp.arange(2), TARGETS])
    other = parts.logits(batch, maps + 1)
    assert np.abs(other - logits).max() > 1e-3


def test_the_default_is_after_the_last_convolution():
    model, batch = classifier(), jnp.asarray(images(2))
    tap = model.features(batch)[1][0]
    np.testing.assert_array_equal(cut_at(model, None).activations(batch), tap)


@pytest.mark.parametrize(
    "network, options, channels",
    [
        ("resnet10", {"width": 4}, 32),
        ("resnet50", {"width": 4}, 128),
        ("mobilenet_v1", {"width_multiplier": 0.25}, 256),
        ("mobilenet_v2", {"width_multiplier": 0.1}, 1280),
        ("googlenet", {}, 1024),
    ],
)
def test_default_layers_of_networks(network, options, channels):
    """The last taps; nothing is run."""
    module, batch = create_backbone(network, 5, **options), jnp.zeros((2, 64, 64, 3))
    programs = []

    def look(key):
        model = Classifier(module.init(key, batch, False), module)
        programs.append(trace(model, batch))

    jax.eval_shape(look, jax.random.key(0))
    (program,) = programs
    variable, to_last, _ = _find(program, None)
    assert variable == program.taps[-1] and to_last == (0, 1, 2, 3)
    assert variable.aval.shape == (2, 2, 2, channels)


def test_default_layer_of_squeezenet():
    """Its last convolution is the classifier: the means of its maps are the logits."""
    module, batch = create_backbone("squeezenet1_1", 5), jnp.ones((2, 64, 64, 3))

    @jax.jit
    def both(key):
        model = Classifier(module.init(key, batch, False), module)
        return cut(model, batch, None).activations(batch), model(batch)

    maps, logits = both(jax.random.key(0))
    assert maps.shape == (2, 3, 3, 5)
    np.testing.assert_allclose(maps.mean((1, 2)), logits, atol=1e-5)


def logits_after(activated):
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(4, 5)), jnp.float32)
    return activated @ weights


def flat_network(excited=False, channels_first=False):
    """Convolution, ReLU, and what a default layer must not fall for."""
    random = np.random.default_rng(0)
    kernel = jnp.asarray(random.normal(size=(3, 3, 3, 4)), jnp.float32)

    def logits(images):
        layout = "NCHW" if channels_first else "NHWC"
        spatial = (2, 3) if channels_first else (1, 2)
        if channels_first:
            images = images.transpose(0, 3, 1, 2)
        x = jax.lax.conv_general_dilated(
            images, kernel, (2, 2), "SAME", dimension_numbers=(layout, "HWIO", layout)
        )
        x = checkpoint_name(jax.nn.relu(x), "activated")
        if excited:
            pooled = x.mean(spatial, keepdims=True)
            gate = jax.lax.conv_general_dilated(
                pooled,
                jnp.ones((1, 1, 4, 4)) / 4,
                (1, 1),
                "VALID",
                dimension_numbers=(layout, "HWIO", layout),
            )
            x = checkpoint_name(x * jax.nn.sigmoid(gate), "excited")
        if channels_first:
            x = checkpoint_name(x.transpose(0, 2, 3, 1), "turned")
            spatial = (1, 2)
        return logits_after(x.mean(spatial))

    return logits


def test_squeeze_and_excitation_is_not_the_last_convolution():
    model = Classifier.from_function(flat_network(excited=True))
    batch = jnp.asarray(images(2))
    maps = cut_at(model, None).activations(batch)
    assert maps.shape == (2, 8, 8, 4)
    np.testing.assert_array_equal(maps, cut_at(model, "excited").activations(batch))


@pytest.mark.parametrize("excited", [False, True])
def test_channels_first_are_turned(excited):
    batch = jnp.asarray(images(2))
    first = Classifier.from_function(flat_network(excited, channels_first=True))
    last = Classifier.from_function(flat_network(excited))
    np.testing.assert_allclose(first(batch), last(batch), atol=1e-5)
    names = [None, "activated", *(["excited"] if excited else [])]
    for name in names:
        expected = cut_at(last, name).activations(batch)
        parts = cut_at(first, name)
        maps = parts.activations(batch)
        np.testing.assert_allclose(maps, expected, atol=1e-5)
        np.testing.assert_allclose(parts.logits(batch, maps), last(batch), atol=1e-5)
        unit = Unit(jnp.array([1, 2]), (jnp.array([0, 7]), jnp.array([3, 5])), name)
        np.testing.assert_allclose(
            gradient(first, batch, unit), gradient(last, batch, unit), atol=1e-5
        )
    turned = cut_at(first, "turned").activations(batch)
    np.testing.assert_allclose(turned, maps, atol=1e-6)


def test_an_equinox_model():
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0), 3)
    name = lambda x: checkpoint_name(x, "activated")
    network = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, 6, 3, stride=2, padding=1, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Conv2d(6, 4, 3, padding=1, key=keys[1]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Lambda(name),
            eqx.nn.Lambda(lambda x: x.mean((1, 2))),
            eqx.nn.Linear(4, 5, key=keys[2]),
        ]
    )
    model = Classifier.from_function(
        lambda images: jax.vmap(network)(images.transpose(0, 3, 1, 2))
    )
    batch = jnp.asarray(images(2))
    activated = jax.jit(jax.vmap(network[:5]))(batch.transpose(0, 3, 1, 2))
    for layer in (None, "activated"):
        parts = cut_at(model, layer)
        maps = jax.jit(parts.activations)(batch)
        np.testing.assert_allclose(maps, activated.transpose(0, 2, 3, 1), atol=1e-6)
        logits = jax.jit(parts.logits)(batch, maps)
        np.testing.assert_allclose(
            logits, jax.jit(Classifier.__call__)(model, batch), atol=1e-6
        )
    weights = network[-1].weight[np.asarray(TARGETS)] / 64
    expected = jnp.einsum("bk,bkhw->bhw", weights, activated)
    maps = grad_cam(model, batch, TARGETS, variant="captum", upsampling=None)
    np.testing.assert_allclose(maps, expected, atol=1e-5)


def test_an_nnx_model():
    nnx = pytest.importorskip("flax.nnx")

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs)
            self.norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
            self.head = nnx.Linear(6, 5, rngs=rngs)

        def activated(self, images):
            return nnx.relu(self.norm(self.conv(images)))

        def __call__(self, images):
            return self.head(jnp.mean(self.activated(images), axis=(1, 2)))

    network, batch = Network(nnx.Rngs(0)), jnp.asarray(images(2))
    graphdef, state = nnx.split(network)
    apply = lambda state, images: nnx.merge(graphdef, state)(images)
    model = Classifier.from_function(jax.tree_util.Partial(apply, state))
    maps = jax.jit(cut_at(model, None).activations)(batch)
    np.testing.assert_allclose(maps, network.activated(batch), atol=1e-6)
    weights = network.head.kernel[...][:, np.asarray(TARGETS)] / 64
    np.testing.assert_allclose(
        grad_cam(model, batch, TARGETS, variant="captum", upsampling=None),
        jnp.einsum("kb,bhwk->bhw", weights, maps),
        atol=1e-5,
    )


def test_features_and_head_may_be_pytrees():
    """Their arrays are arguments: new ones do not trace again."""
    traced = []

    def features(kernel, images):
        traced.append(None)
        return images @ kernel

    head = lambda kernel, maps: maps.mean((1, 2)) @ kernel
    model = Classifier.from_function(lambda images: images.mean((1, 2)))

    def maps_of(scale):
        kernel = scale * jnp.ones((3, 2))
        layer = (
            jax.tree_util.Partial(features, kernel),
            jax.tree_util.Partial(head, kernel.T),
        )
        return grad_cam(model, images(2), 1, layer=layer)

    first = maps_of(1.0)
    before = len(traced)
    np.testing.assert_allclose(maps_of(2.0), 4 * first, rtol=1e-5)
    assert len(traced) == before


def test_units():
    maps = jnp.arange(48.0).reshape(2, 2, 3, 4)
    np.testing.assert_array_equal(unit_scores(maps, Unit(2, (1, 0))), [14, 38])
    np.testing.assert_array_equal(unit_scores(maps, Unit(1)), [11, 35])
    each = Unit(jnp.array([0, 3]), (jnp.array([1, 0]), jnp.array([2, 1])))
    np.testing.assert_array_equal(unit_scores(maps, each), [20, 31])


def test_units_are_scores_of_a_cut():
    model, batch = classifier(), jnp.asarray(images(2))
    unit = Unit(jnp.array([2, 5]), (1, 3), "bn2")
    parts = cut_at(model, "conv1", unit)
    hidden = cut_at(model, "bn2").activations(batch)
    scores = parts.scores(batch, parts.activations(batch), unit)
    expected = hidden[jnp.arange(2), 1, 3, jnp.array([2, 5])]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_targets():
    logits = jnp.array([[0.0, 2, 1], [3, 5, 4]])
    np.testing.assert_array_equal(target_scores(logits, None), [2, 5])
    np.testing.assert_array_equal(target_scores(logits, jnp.array([2, 0])), [1, 3])
    margin = target_scores(logits, lambda logits: logits[1] - logits[0])
    np.testing.assert_array_equal(margin, [2, 2])


def test_messages():
    model, batch = classifier(), images(2)
    of = lambda layer, targets=1: gradient(model, batch, targets, layer=layer)
    with pytest.raises(InputError, match="no layer 'conv3': use one like 'conv2'"):
        of("conv3")
    with pytest.raises(InputError, match="no layer 'tap_1': use one like 'tap_0'"):
        of("tap_1")
    with pytest.raises(InputError, match=r"'fc' gives an array of shape \(2, 5\): exp"):
        of("fc")
    with pytest.raises(InputError, match="no layer 'nothing'"):
        of("conv1", Unit(1, layer="nothing"))
    with pytest.raises(InputError, match="is not computed from layer 'bn2'"):
        of("bn2", Unit(1, layer="conv1"))
    with pytest.raises(InputError, match=r"expected the name of a layer or two func"):
        inspect.unwrap(as_layer)(3)
    pair = (lambda images: images.mean((1, 2)), lambda maps: maps)
    with pytest.raises(InputError, match=r"array of shape \(2, 3\): expected maps"):
        of(pair)
    pair = (lambda images: images, lambda maps: maps.mean((1, 2)))
    with pytest.raises(InputError, match="a hidden unit as target needs a classifier"):
        of(pair, Unit(1))


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (
            Unit(99, (1, 1), "conv1"),
            "channel 99 of a Unit: its layer gives maps",
        ),
        (Unit(-1, (1, 1), "conv1"), "channel -1 .*16x16 and 8 channels .* expected"),
        (Unit(8, None, "conv1"), "channel 8 .* expected 0 to 7"),
        (Unit(12), "channel 12 .* maps of 8x8 and 12 channels .* expected 0 to 11"),
        (Unit(1, (8, 1)), "row 8 .* expected 0 to 7"),
        (Unit(1, (1, np.array([3, -2]))), "column -2 .* expected 0 to 7"),
        (Unit(np.array([0, 1, 2])), r"numbers of a Unit of shape \(3,\) for 2 images"),
        (Unit(3, (0, 16), "input"), "channel 3 .* maps of 16x16 and 3 channels"),
    ],
)
def test_units_that_are_not_there(unit, words):
    """Indexing would give the nearest one, or zeros."""
    with pytest.raises(InputError, match=words):
        gradient(classifier(), images(2), unit)


def test_units_of_crops():
    model, batch = classifier(), images(2)
    unit = Unit(1, (15, 0), "conv1")  # crops are of 14 pixels
    with pytest.raises(InputError, match="row 15 .* of 14x14: expected 0 to 13"):
        ten_crop_gradient(model, batch, unit)
    assert np.ptp(ten_crop_gradient(model, batch, unit, resize=True)) > 0


@pytest.mark.parametrize(
    "wrong", [True, 0.7, np.array([0.7, 1.2]), np.array([True, False]), Unit(True)]
)
def test_targets_are_integers(wrong, monkeypatch):
    """Whoever has no type checker would get the maps of class 0."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    name = "numbers of a Unit" if isinstance(wrong, Unit) else "targets"
    with pytest.raises(InputError, match=f"{name} of type (bool|float32): expected in"):
        gradient(classifier(), images(2), wrong)


def test_messages_for_functions():
    batch = images(2)
    dense = lambda images: images.mean((1, 2))
    with pytest.raises(InputError, match="no convolution in the classifier"):
        grad_cam(dense, batch, 1)
    with pytest.raises(InputError, match="jax.ad_checkpoint.checkpoint_name"):
        gradient(dense, batch, 1, layer="conv")

    def aside(images):
        checkpoint_name(images * 2, "unused")
        constant = checkpoint_name(jnp.ones((len(images), 4, 4, 3)), "constant")
        side = checkpoint_name(images + 1, "side")
        return images.mean((1, 2)) + constant.mean((1, 2)), (side,)

    with pytest.raises(InputError, match="no layer 'unused': use one like"):
        gradient(aside, batch, 1, layer="unused")
    with pytest.raises(InputError, match="'constant' does not depend on the images"):
        gradient(aside, batch, 1, layer="constant")
