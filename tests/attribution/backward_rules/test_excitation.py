"""Excitation backprop: worked by hand, shares that add up, networks written anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import nn
from jax.ad_checkpoint import checkpoint_name

from saliency_jax.attribution.backward_rules.excitation import (
    contrastive_excitation_backprop,
    excitation_backprop,
)
from saliency_jax.attribution.backward_rules.relevance import lrp
from saliency_jax.attribution.layers import Unit
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.cpu_gradients import shifted_products
from saliency_jax.models.squeezenet import SqueezeNet
from tests.attribution import small_network
from tests.attribution.backward_rules.twins import twins
from tests.attribution.small_network import images
from tests.attribution.worked_example import IMAGE, answer_of
from tests.models.test_imported_weights import CASES, classifier_of

AT_INPUT = [
    [0, 0.000988, 0.001975, 0.002963],
    [0.020412, 0.060082, 0.072099, 0.048395],
    [0.040823, 0.108148, 0.120165, 0.076049],
    [0.061235, 0.143374, 0.154403, 0.088889],
]


def raw(logits_fn, images, targets=0, **options):
    """Maps of the layer's size, and what is lost."""
    maps, aux = excitation_backprop(
        logits_fn, images, targets, upsampling=None, return_aux=True, **options
    )
    return np.asarray(maps), np.asarray(aux["lost_mass"])


def test_worked_example():
    maps, lost = raw(answer_of, IMAGE, layer="relu1")
    expected = [[0, 0.053333], [0.413333, 0.533333]]
    np.testing.assert_allclose(maps[0], expected, atol=1e-6)
    np.testing.assert_allclose(lost, 0, atol=1e-6)
    maps, lost = raw(answer_of, IMAGE, layer="input")
    np.testing.assert_allclose(maps[0], AT_INPUT, atol=2e-6)
    np.testing.assert_allclose(lost, 0, atol=1e-6)
    options = {"layer": "relu1", "upsampling": None}
    maps = contrastive_excitation_backprop(answer_of, IMAGE, 0, **options)
    np.testing.assert_allclose(maps[0], [[0, 0.053333], [0.127619, 0]], atol=1e-6)


def test_from_a_hidden_unit():
    # The second map at (1, 1) sees pixels 5, 6, 7, 9, 10, 11, 13, 14, 15: 90 in all.
    maps, _ = raw(answer_of, IMAGE, Unit(1, (1, 1), "relu1"), layer="input")
    expected = np.zeros((4, 4))
    expected[1:, 1:] = IMAGE[0, 1:, 1:, 0] / 90
    np.testing.assert_allclose(maps[0], expected, atol=1e-6)


def class_of_sum(maps_of):
    """Logits of one class: the sum of maps, so that each gets its share of it."""
    return lambda images: jnp.sum(maps_of(images), axis=(1, 2))


PIXELS = jnp.array([0.1, 0.2, 0.3, 0.4]).reshape(1, 2, 2, 1)
KERNEL = jnp.ones((1, 1))


def residual(images):
    # Of each pixel x: x by the skip, and (3 x - 0.5)^+ by the branch.
    x = checkpoint_name(images, "x")
    return x + checkpoint_name(nn.relu(x @ (3 * KERNEL) - 0.5), "branch")


def test_residual_sums():
    sums = np.array([0.1, 0.3, 0.7, 1.1])
    branch = np.array([0, 0.1, 0.4, 0.7])
    maps, lost = raw(class_of_sum(residual), PIXELS, layer="x")
    np.testing.assert_allclose(maps.ravel(), sums / 2.2, atol=1e-6)
    np.testing.assert_allclose(lost, 0, atol=1e-6)
    # By the branch alone, with nothing but its share of the sum.
    maps, lost = raw(class_of_sum(residual), PIXELS, layer="branch")
    np.testing.assert_allclose(maps.ravel(), branch / 2.2, atol=1e-6)
    np.testing.assert_allclose(lost, 1 / 2.2, atol=1e-6)
    options = {"layer": "branch", "variant": "ignore_skip"}
    maps, lost = raw(class_of_sum(residual), PIXELS, **options)
    np.testing.assert_allclose(maps.ravel(), sums / 2.2, atol=1e-6)
    np.testing.assert_allclose(lost, 0, atol=1e-6)


def test_ignoring_the_skip_takes_a_projected_one_for_a_skip_too():
    def projected(images):
        skip = checkpoint_name(images @ KERNEL, "skip")
        return skip + nn.relu(nn.relu(images @ KERNEL) @ KERNEL)

    for variant, share in (("split", 0.5), ("ignore_skip", 0)):
        maps, _ = raw(class_of_sum(projected), PIXELS, layer="skip", variant=variant)
        np.testing.assert_allclose(maps.sum(), share, atol=1e-6)


def test_negative_terms_and_lost_mass():
    def two(images):
        x = checkpoint_name(images, "x")
        return x @ KERNEL - checkpoint_name(x @ (2 * KERNEL), "subtracted")

    # Nothing is positive anywhere: all is lost, and nothing is infinite.
    maps, lost = raw(class_of_sum(two), PIXELS, layer="x")
    np.testing.assert_array_equal(maps, np.zeros((1, 2, 2)))
    np.testing.assert_array_equal(lost, [1])


def with_first_layer(first):
    """Logits of a layer of its own, a ReLU and a dense layer."""
    dense = jax.random.normal(jax.random.key(5), (4, 2))
    return lambda images: jnp.mean(nn.relu(first(images)), axis=(1, 2)) @ dense


def assert_same_maps(one, other, pictures):
    expected, lost = raw(one, pictures, layer="input")
    maps, also_lost = raw(other, pictures, layer="input")
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    np.testing.assert_allclose(also_lost, lost, atol=1e-5)


def test_scales_of_any_sign_are_as_if_folded_into_weights():
    kernel = jax.random.normal(jax.random.key(0), (3, 4))
    scale = jnp.array([2.0, -0.5, -1.0, 0.1])
    scales, mean = scale.reshape(1, 1, 1, 4), jnp.full((1, 1, 1, 4), 0.2)
    folded = with_first_layer(lambda x: x @ (kernel * scale[None]) - mean * scales)
    for written in (
        lambda x: (x @ kernel - mean) * scales,
        lambda x: (mean - x @ kernel) * -scales,
        lambda x: -((x @ kernel - mean) / (-1 / scales)),
        lambda x: 0 - (x @ kernel - mean) * -scales,
    ):
        assert_same_maps(with_first_layer(written), folded, images(2))


def test_depthwise_convolution_as_a_sum_of_products():
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 3))
    pad = lambda x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def convolved(x):
        return jax.lax.conv_general_dilated(
            pad(x),
            kernel,
            (2, 2),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=3,
        )

    widen = lambda f: lambda x: nn.relu(f(x)) @ jnp.ones((3, 4))
    products = lambda x: shifted_products(pad(x), kernel, 2)
    one, other = (with_first_layer(widen(f)) for f in (convolved, products))
    assert_same_maps(one, other, images(2))


def test_average_pooling_is_a_uniform_convolution():
    uniform = jnp.full((2, 2, 1, 3), 0.25)

    def convolved(x):
        return jax.lax.conv_general_dilated(
            x,
            uniform,
            (2, 2),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=3,
        )

    def pooled(x):
        size = (1, 2, 2, 1)
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, size, size, "VALID") / 4

    kernel = jax.random.normal(jax.random.key(2), (3, 4))
    one, other = (
        with_first_layer(lambda x, f=f: f(x) @ kernel) for f in (convolved, pooled)
    )
    assert_same_maps(one, other, images(2))


def test_gates_norms_and_softmax_count_as_constants():
    kernel = jax.random.normal(jax.random.key(3), (3, 4))
    dense = jax.random.normal(jax.random.key(6), (4, 4))
    plain = with_first_layer(lambda x: x @ kernel)
    assert_same_maps(plain, lambda x: nn.softmax(plain(x)), images(1))

    def scale(x):
        squeezed = jnp.mean(x, axis=(1, 2), keepdims=True)
        norm = jnp.sqrt(jnp.sum(squeezed**2, axis=-1, keepdims=True) + 1e-6)
        return nn.sigmoid(squeezed @ dense) / norm

    def gated(scale):
        def first(x):
            x = nn.relu(x @ kernel)
            return x * scale(x) @ dense

        return with_first_layer(first)

    known = scale(nn.relu(images(1) @ kernel))
    assert_same_maps(gated(lambda _: known), gated(scale), images(1))


def test_what_has_no_rule_is_named():
    def attention(x):
        x = nn.relu(x @ jnp.ones((3, 4)))
        flat = x.reshape(len(x), -1, 4)
        x = nn.softmax(flat @ flat.mT) @ flat
        x = jax.lax.scan(lambda x, _: (nn.relu(x), None), x, None, length=2)[0]
        x = checkpoint_name(x.reshape(len(x), 16, 16, 4), "behind")
        return jnp.mean(x, axis=(1, 2)) @ jnp.ones((4, 2))

    with pytest.raises(
        InputError,
        match=r"no rule for dot_general \(.*test_excitation.py:.*\) of two activations"
        r".*, scan \(.*test_excitation.py:",
    ):
        excitation_backprop(attention, images(1), 0)
    # What comes before the layer needs no rule.
    _, lost = raw(attention, images(1), layer="behind")
    np.testing.assert_allclose(lost, 0, atol=1e-6)
    halves = lambda x: jnp.mean(x * x[:, ::-1], axis=(1, 2))
    with pytest.raises(InputError, match=r"no rule for mul \(.*\) of two activations"):
        excitation_backprop(halves, images(1), 0)


@pytest.mark.parametrize("method", [excitation_backprop, lrp])
def test_no_rule_for_complex_numbers(method):
    """What comes before them would keep its gradient."""

    def logits(x):
        x = nn.relu(x @ jnp.ones((3, 4)))
        x = jnp.fft.ifft2(jnp.fft.fft2(x, axes=(1, 2)), axes=(1, 2)).real
        return jnp.mean(checkpoint_name(x, "behind"), axis=(1, 2)) @ jnp.ones((4, 2))

    with pytest.raises(InputError, match=r"no rule for fft \(.*\), .*real \("):
        method(logits, images(1), 0, layer="input")
    assert np.ptp(method(logits, images(1), 0, layer="behind")) > 0


def test_nothing_is_lost_where_nothing_is_negative():
    module = SqueezeNet(num_classes=7)
    init = jax.jit(module.init, static_argnums=2)
    variables = init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), False)
    model = Classifier(variables, module, (0.5,) * 3, (0.25,) * 3)
    pictures = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
    for layer in ("tap_0", "tap_3"):
        maps, lost = raw(model, pictures, None, layer=layer)
        assert maps.min() >= 0
        np.testing.assert_allclose(lost, 0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.network)
def test_mass_in_real_networks(case, shared_data, tmp_path):
    model = classifier_of(case, shared_data, tmp_path)
    pictures = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
    lossless = case.network == "squeezenet1_1"
    layers = ("tap_0", "tap_1", "middle", "tap_3", None)  # deeper and deeper
    masses = []
    for layer in layers if lossless else ("tap_0", "middle"):
        maps, _ = raw(model, pictures, None, layer=layer)
        assert maps.min() >= 0
        masses.append(maps.sum())
    if lossless:
        np.testing.assert_allclose(masses, 1, atol=1e-5)
    else:  # units that are active by their bias alone, and linear bottlenecks
        # Nothing comes by a layer that has not come by the one behind it.
        assert 0 < masses[0] < masses[1] < 0.99


def test_contrast_of_two_opposite_classes():
    # The second class has the negated weights of the first.
    dense = jax.random.normal(jax.random.key(4), (3, 1))
    head = jnp.concatenate([dense, -dense], axis=1)
    kernel = jax.random.normal(jax.random.key(3), (3, 3))
    logits = lambda x: jnp.mean(nn.relu(x @ kernel), axis=(1, 2)) @ head
    first, second = (raw(logits, images(2), k, layer="input")[0] for k in (0, 1))
    for target, expected in ((0, first - second), (1, second - first)):
        maps = contrastive_excitation_backprop(logits, images(2), target, layer="input")
        np.testing.assert_allclose(maps, np.maximum(expected, 0), atol=1e-7)
    with pytest.raises(InputError, match="the layer comes after them"):
        late = lambda x: jnp.mean(checkpoint_name(x @ kernel, "late"), axis=(1, 2))
        contrastive_excitation_backprop(late, images(2), 0, layer="late")


@pytest.mark.parametrize(
    "method", [excitation_backprop, contrastive_excitation_backprop]
)
def test_one_map_of_one_network_in_three_libraries(method):
    of_linen, *others = twins()
    for layer in ("middle", "input"):
        expected = np.asarray(method(of_linen, images(2), 1, layer=layer))
        assert np.ptp(expected) > 0
        for other in others:
            maps = method(other, images(2), 1, layer=layer)
            np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_the_middle():
    # Of maps at 1/1, 1/2, 1/4 ... of a side of 64, the last of at least 4 pixels.
    def logits(x):
        for _ in range(5):
            x = nn.relu(x @ jnp.eye(3) - 0.1)
            x = x[:, ::2, ::2]
        return jnp.mean(x, axis=(1, 2)) @ jnp.eye(3)

    pictures = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
    assert raw(logits, pictures)[0].shape == (1, 4, 4)
    # One of two branches is not what all goes through.
    branched = lambda x: logits(nn.relu(x @ jnp.eye(3)) + x)
    assert raw(branched, images(1))[0].shape == (1, 1, 1)
    assert raw(small_network.classifier(), images(1))[0].shape == (1, 8, 8)
    # Those just before max pooling would be dots.
    step = lambda x: nn.relu(x @ jnp.eye(3) - 0.1)
    size = (1, 32, 32, 1)
    pool = lambda x: jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, size, size, "VALID"
    )

    def pooled(x):
        x = step(checkpoint_name(step(x), "before"))
        return jnp.mean(pool(x), axis=(1, 2)) @ jnp.eye(3)

    expected, _ = raw(pooled, pictures, layer="before")
    np.testing.assert_array_equal(raw(pooled, pictures)[0], expected)
    # Maps that were turned lie as the images do.
    np.testing.assert_allclose(
        raw(answer_of, IMAGE)[0][0], [[0, 0.053333], [0.413333, 0.533333]], atol=1e-6
    )
