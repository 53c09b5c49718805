"""Guided backpropagation and the deconvnet: worked by hand, on any library's models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import nn
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas
from jax.sharding import AxisType, PartitionSpec

from saliency_jax.attribution.backward_rules.guided import deconvnet, guided_backprop
from saliency_jax.attribution.gradients.plain import gradient
from saliency_jax.attribution.layers import Unit
from saliency_jax.errors import InputError
from tests.attribution.backward_rules.twins import twins
from tests.attribution.small_network import classifier, images
from tests.attribution.worked_example import IMAGE, answer_of

GUIDED = [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]
DECONV = [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]

# Pixels 0 to 4 reach an activation as -2, -1, 0, 1, 7; each is seen with weight 3 and
# -3 by the two classes.
INPUTS = jnp.array([-2.0, -1.0, 0.0, 1.0, 7.0])
PIXELS = ((INPUTS + 2) / 16).reshape(1, 1, 5, 1)


def seen_through(phi):
    def logits(images):
        u = images @ jnp.full((1, 1), 16.0) - 2
        return jnp.sum(phi(u), axis=(1, 2, 3))[:, None] * jnp.array([[3.0, -3.0]])

    return logits


def through(method, phi, target, **options):
    maps = method(seen_through(phi), PIXELS, target, reduction="sum", **options)
    return np.asarray(maps[0, 0]) / 48


def test_worked_example():
    np.testing.assert_array_equal(guided_backprop(answer_of, IMAGE, 0)[0], GUIDED)
    np.testing.assert_array_equal(deconvnet(answer_of, IMAGE, 0)[0], DECONV)


@pytest.mark.parametrize(
    "phi",
    [
        nn.relu,
        lambda x: jnp.maximum(x, 0),
        lambda x: jnp.maximum(0, x),
        lambda x: jnp.where(x > 0, x, 0),
        lambda x: x * (x > 0),
        lambda x: x + nn.relu(x) - x,
    ],
)
def test_relu_however_it_is_written(phi):
    expected = [0, 0, 0, 1, 1]
    np.testing.assert_allclose(through(guided_backprop, phi, 0), expected, atol=1e-6)
    np.testing.assert_array_equal(through(guided_backprop, phi, 1), np.zeros(5))
    if phi is nn.relu:
        np.testing.assert_allclose(through(deconvnet, phi, 0), np.ones(5), atol=1e-6)
    np.testing.assert_array_equal(through(deconvnet, phi, 1), np.zeros(5))


@pytest.mark.parametrize(
    ("phi", "slopes"),
    [
        (nn.relu6, [1, 0]),
        (lambda x: jnp.clip(x, 0, 6), [1, 0]),
        (nn.leaky_relu, [1, 1]),
        (lambda x: jnp.where(x > 0, x, x * jnp.full((1, 1, 1, 1), 0.3)), [1, 1]),
        (nn.elu, [1, 1]),
        # Phi(1) + pdf(1), of the normal distribution.
        (lambda x: nn.gelu(x, approximate=False), [0.841345 + 0.241971, 1]),
        # s (1 + 1 - s) with s = 1 / (1 + e^-1) = 0.731059.
        (nn.silu, [0.731059 * (1 + 0.268941), 1.00546]),
        (nn.hard_swish, [5 / 6, 1]),
    ],
)
def test_stated_rules_of_other_activations(phi, slopes):
    guided = through(guided_backprop, phi, 0)
    np.testing.assert_allclose(guided, [0, 0, 0, *slopes], atol=1e-5)
    np.testing.assert_array_equal(through(guided_backprop, phi, 1), np.zeros(5))
    np.testing.assert_allclose(through(deconvnet, phi, 0), np.ones(5), atol=1e-6)


@pytest.mark.parametrize("phi", [nn.tanh, nn.sigmoid, jnp.square, nn.softmax])
def test_others_keep_their_gradient(phi):
    for method in (guided_backprop, deconvnet):
        expected = through(gradient, phi, 1)
        np.testing.assert_array_equal(through(method, phi, 1), expected)


def test_clipped_images_are_no_activation():
    clipped = lambda x: answer_of(jnp.clip(x, -1, 16) * -1)
    ordinary = lambda x: answer_of(x * -1)
    for method in (guided_backprop, deconvnet):
        maps = method(clipped, IMAGE, 0, reduction="sum")
        expected = method(ordinary, IMAGE, 0, reduction="sum")
        np.testing.assert_array_equal(maps, expected)


def test_zero_input_of_a_relu():
    for phi in (nn.relu, lambda x: jnp.maximum(x, 0), lambda x: jnp.where(x < 0, 0, x)):
        passes = through(guided_backprop, phi, 0, at_zero="passes")
        np.testing.assert_allclose(passes, [0, 0, 1, 1, 1], atol=1e-6)


def test_from_a_unit_and_at_a_layer():
    # conv1's second map is relu'd after the unit: what is explained is u itself.
    maps = guided_backprop(answer_of, IMAGE, Unit(1, (1, 0), "conv1"), reduction="sum")
    expected = [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
    np.testing.assert_array_equal(maps[0], expected)
    # relu1's is zero at (0, 0): guided passes nothing, the deconvnet does.
    unit = Unit(1, (0, 0), "relu1")
    np.testing.assert_array_equal(
        guided_backprop(answer_of, IMAGE, unit), 0 * IMAGE[..., 0]
    )
    assert np.sum(deconvnet(answer_of, IMAGE, unit)) == 9
    options = {"layer": "conv1", "reduction": None, "upsampling": None}
    at_layer = guided_backprop(answer_of, IMAGE, 0, **options)[0]
    np.testing.assert_array_equal(at_layer[..., 0], [[0, 1], [1, 1]])
    np.testing.assert_array_equal(at_layer[..., 1], np.zeros((2, 2)))


@pytest.mark.parametrize("method", [guided_backprop, deconvnet])
def test_one_map_of_one_network_in_three_libraries(method):
    of_linen, *others = twins()
    ordinary = np.asarray(gradient(of_linen, images(2), 1, reduction="sum"))
    expected = np.asarray(method(of_linen, images(2), 1, reduction="sum"))
    scale = np.abs(expected).max()
    assert np.abs(expected - ordinary).max() > 0.1 * scale
    for other in others:
        maps = method(other, images(2), 1, reduction="sum")
        np.testing.assert_allclose(maps / scale, expected / scale, atol=1e-4)


def test_activations_in_a_loop():
    kernel = jnp.eye(3)

    def looped(phi):
        def logits(images):
            step = lambda x, _: (phi(x @ kernel), None)
            maps, _ = jax.lax.scan(step, images, None, length=2)
            return jnp.sum(nn.relu(checkpoint_name(maps, "behind")), axis=(1, 2))

        return logits

    with pytest.raises(InputError, match=r"inside of scan \(.*test_.*\.py:"):
        guided_backprop(looped(nn.relu), images(1), 0)
    with pytest.raises(InputError, match=r"inside of scan"):
        deconvnet(looped(lambda x: jnp.where(x > 0, x, 0)), images(1), 0)
    assert np.ptp(guided_backprop(looped(nn.tanh), images(1), 0)) > 0
    assert np.ptp(guided_backprop(looped(nn.relu), images(1), 0, layer="behind")) == 0


def sharded(phi):
    """An activation on each device, where an axis of devices has a name."""
    mesh = jax.make_mesh((1,), ("devices",), axis_types=(AxisType.Auto,))

    def on_a_device(x):
        maps = phi(phi(x @ jnp.eye(3)) @ jnp.eye(3))
        return maps - jax.lax.pmean(maps, "devices") / 2

    places = PartitionSpec("devices")
    return jax.shard_map(on_a_device, mesh=mesh, in_specs=places, out_specs=places)


def kernel(phi):
    """An activation in a kernel that writes its result to memory."""

    def fill(given, written):
        written[...] = phi(given[...])

    @jax.custom_vjp
    def call(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pallas.pallas_call(fill, shape, interpret=True)(x)

    call.defvjp(lambda x: (call(x), x), lambda x, gradient: (gradient * (x > 0),))
    return call


@pytest.mark.parametrize(
    ("within", "name"),
    [(sharded, "shard_map"), (kernel, "custom_vjp_call")],
    ids=("shard_map", "kernel"),
)
def test_activations_in_bodies_of_any_kind(within, name):
    logits = lambda phi: lambda images: jnp.sum(within(phi)(images), axis=(1, 2))
    for method in (guided_backprop, deconvnet):
        for phi in (nn.relu, lambda x: jnp.where(x > 0, x, 0)):
            with pytest.raises(InputError, match=rf"inside of {name} \("):
                method(logits(phi), images(1), 0)
        method(logits(jnp.tanh), images(1), 0)  # no rectifier


def test_jitted_and_checkpointed_activations():
    # Their bodies stand in the program's place of the call.
    expected = guided_backprop(answer_of, IMAGE, 0)
    inside = lambda x: jax.jit(jax.checkpoint(answer_of))(x)
    np.testing.assert_array_equal(guided_backprop(inside, IMAGE, 0), expected)


def test_it_differs_from_the_gradient_on_a_network_with_normalisation():
    model = classifier()
    maps = {
        method: np.asarray(method(model, images(1), 2, reduction="sum"))
        for method in (gradient, guided_backprop, deconvnet)
    }
    assert len({value.tobytes() for value in maps.values()}) == 3
