"""Class activation maps: the worked example, linear heads, moved objects, variants."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.class_activation.gradient_weighted import (
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from saliency_jax.attribution.layers import Unit
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from tests.attribution.small_network import classifier, images
from tests.attribution.worked_example import IMAGE, answer_of

RELU1 = {"layer": "relu1", "upsampling": None}
CONV1 = {"layer": "conv1", "upsampling": None}


def worked(method, **options):
    return np.asarray(method(answer_of, IMAGE, 0, **options))[0]


@pytest.mark.parametrize(
    "method, options, expected",
    [
        (grad_cam, {**CONV1, "variant": "captum"}, [[11.25, 13.5], [20.25, 22.5]]),
        (grad_cam, CONV1, [[11.25, 13.5], [20.25, 22.5]]),
        (grad_cam, RELU1, [[0, 4], [28, 32.5]]),
        (layer_cam, CONV1, [[0, 4], [31, 40]]),
        (layer_cam, RELU1, [[0, 4], [31, 40]]),
        (hires_cam, CONV1, [[0, 4], [25, 25]]),
        (hires_cam, RELU1, [[0, 4], [25, 25]]),
        (
            grad_cam_plus_plus,
            {**RELU1, "variant": "peers"},
            [[0, 0.20779], [1.87126, 2.73010]],
        ),
        (grad_cam_plus_plus, RELU1, [[0, 4], [37, 55]]),
        # Weights 1 / (2 + 75 / 4), and 1 / (2 + 21 / 4) at one of four positions.
        (
            grad_cam_plus_plus,
            {**RELU1, "variant": "xplique"},
            [[0, 0.192771], [1.700873, 2.444952]],
        ),
        # Weights 75 / 75 and (-6 - 15) / 21.
        (xgrad_cam, RELU1, [[0, 4], [25, 25]]),
    ],
)
def test_worked_example(method, options, expected):
    np.testing.assert_allclose(worked(method, **options), expected, atol=1e-5)


def test_what_is_signed():
    """The answer turned round: 0 - 54."""
    turned = lambda images: -answer_of(images)
    of = lambda method, **options: np.asarray(method(turned, IMAGE, 0, **options))[0]
    for method, variant, expected in (
        (grad_cam, "captum", [[0, -4], [-28, -32.5]]),
        (grad_cam, "paper", np.zeros((2, 2))),
        (hires_cam, "paper", [[0, -4], [-25, -25]]),
        (hires_cam, "pytorch-grad-cam", np.zeros((2, 2))),
    ):
        np.testing.assert_array_equal(of(method, variant=variant, **RELU1), expected)


def test_upsampling():
    maps = worked(grad_cam, layer="relu1", upsampling="nearest")
    np.testing.assert_array_equal(maps, np.kron([[0, 4], [28, 32.5]], np.ones((2, 2))))
    maps = worked(grad_cam, layer="relu1")
    # Centres of pixels lie at a quarter between the centres of cells.
    np.testing.assert_allclose(maps[0], [0, 1, 3, 4], atol=1e-5)
    np.testing.assert_allclose(maps[:, 0], [0, 7, 21, 28], atol=1e-5)


@pytest.mark.parametrize("method", [grad_cam, grad_cam_plus_plus, hires_cam])
def test_an_unknown_variant(method):
    with pytest.raises(InputError, match="variant='none' is unknown: use one of"):
        inspect.unwrap(method)(answer_of, IMAGE, 0, variant="none")


def test_before_a_linear_head():
    """What the methods become where the gradient is the same at all positions."""
    model, batch, targets = classifier(), images(3), np.array([0, 4, 2])
    bias = np.asarray(model.variables["params"]["fc"]["bias"])[targets]
    logits = np.asarray(model(batch))[np.arange(3), targets]
    of = lambda method, **options: np.asarray(
        method(model, batch, targets, upsampling=None, **options)
    )
    shares = of(hires_cam)
    np.testing.assert_allclose(shares.sum((1, 2)) + bias, logits, atol=1e-5)
    weighted = of(grad_cam, variant="captum")
    np.testing.assert_allclose(weighted, shares, atol=1e-6)
    assert weighted.min() < 0 < weighted.max()
    np.testing.assert_allclose(of(grad_cam), np.maximum(shares, 0), atol=1e-6)
    np.testing.assert_allclose(of(xgrad_cam), np.maximum(shares, 0), atol=1e-6)
    # Of Grad-CAM++ by the author the weights are the positive ones of Grad-CAM.
    np.testing.assert_allclose(of(grad_cam_plus_plus), of(layer_cam), atol=1e-6)


def test_a_margin_and_a_hidden_unit_as_target():
    model, batch = classifier(), images(2)
    signed = {"variant": "captum", "upsampling": None}
    margin = grad_cam(model, batch, lambda logits: logits[1] - logits[3], **signed)
    one, other = (grad_cam(model, batch, c, **signed) for c in (1, 3))
    np.testing.assert_allclose(margin, one - other, atol=1e-6)
    at_unit = hires_cam(model, batch, Unit(2, (3, 1)), upsampling=None)
    assert np.count_nonzero(at_unit) <= 2
    with pytest.raises(InputError, match="is not computed from layer None"):
        grad_cam(model, batch, Unit(2, layer="conv1"))


class Cells(nn.Module):
    """Looks at cells of 4x4 pixels; two classes, bright and dark."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(2, (4, 4), (4, 4), padding="VALID", name="cells")(x))
        x = nn.relu(nn.Conv(4, (3, 3), name="around")(x))
        return nn.Dense(2, name="fc")(x.mean((1, 2))), (x,)


def cells():
    """Every weight positive for the class 0, and nothing seen where it is black."""
    module = Cells()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    variables = jax.tree.map(jnp.abs, variables)
    return Classifier(variables, module, (0.0,) * 3, (1.0,) * 3)


def with_object(row, column):
    image = np.zeros((1, 32, 32, 3), np.float32)
    image[0, row : row + 4, column : column + 4] = 1
    return image


@pytest.mark.parametrize(
    "method", [grad_cam, grad_cam_plus_plus, xgrad_cam, hires_cam, layer_cam]
)
def test_an_object_moved_by_a_cell_moves_the_map_by_a_cell(method):
    model = cells()
    of = lambda row, column, **options: np.asarray(
        method(model, with_object(row, column), 0, **options)
    )[0]
    maps = of(8, 12, upsampling=None)
    assert maps.shape == (8, 8) and np.ptp(maps) > 0
    moved = of(12, 20, upsampling=None)
    np.testing.assert_allclose(moved, np.roll(maps, (1, 2), (0, 1)), atol=1e-6)
    np.testing.assert_allclose(
        of(12, 20), np.roll(of(8, 12), (4, 8), (0, 1)), atol=1e-6
    )


def test_upsampled_maps_lie_over_the_object():
    """Its centre, at pixels 8 to 11 and 12 to 15, is the centre of the map."""
    for upsampling in ("bilinear", "nearest"):
        maps = np.asarray(
            layer_cam(
                cells(), with_object(8, 12), 0, layer="cells", upsampling=upsampling
            )
        )[0]
        rows, columns = np.indices(maps.shape)
        centre = (maps * rows).sum() / maps.sum(), (maps * columns).sum() / maps.sum()
        np.testing.assert_allclose(centre, (9.5, 13.5), atol=1e-4)
        assert maps[9, 13] == maps.max()


def test_layers_by_tap_path_and_functions_are_one():
    model, batch = classifier(), images(2)
    dense = model.variables["params"]["fc"]
    functions = (
        lambda images: model.features(images)[1][0],
        lambda maps: maps.mean((1, 2)) @ dense["kernel"] + dense["bias"][None],
    )
    expected = np.asarray(grad_cam(model, batch, 1))
    for layer in ("tap_0", functions):
        np.testing.assert_allclose(
            grad_cam(model, batch, 1, layer=layer), expected, atol=1e-6
        )
    normalised = grad_cam(model, batch, 1, layer="bn2", upsampling=None)
    assert normalised.shape == (2, 8, 8)
    assert grad_cam(model, batch, 1, layer="conv1", upsampling=None).shape[1] == 16


def test_layers_fused():
    """Shallow maps over their maximum through tanh, the deep one over its maximum."""
    of = lambda **options: worked(layer_cam, upsampling=None, **options)
    shallow = deep = np.array([[0, 4], [31, 40]]) / 40
    raised = np.tanh(3 * shallow)
    fused = of(layer=("conv1", "relu1"), gamma=3.0)
    np.testing.assert_allclose(fused, np.maximum(raised, deep), atol=1e-6)
    assert fused[1, 1] == 1
    np.testing.assert_allclose(
        of(layer=["conv1", "relu1"], gamma=3.0, deep=0), raised, atol=1e-6
    )
    np.testing.assert_allclose(of(layer=["relu1"]), deep, atol=1e-6)
    np.testing.assert_allclose(of(layer=("conv1", "relu1"), deep=2), deep, atol=1e-6)
    for layer, deep in (((), 1), (("conv1", "relu1"), -1)):
        with pytest.raises(InputError, match="expected at least one layer"):
            of(layer=layer, deep=deep)


def test_layers_of_several_sizes_fused():
    model, batch = classifier(), images(2)
    layers = ("conv1", "tap_0")
    fused = np.asarray(layer_cam(model, batch, 1, layer=layers, batch_size=1))
    assert fused.shape == (2, 16, 16) and fused.min() >= 0 and fused.max() <= 1
    # conv1 is as large as the images.
    np.testing.assert_allclose(
        layer_cam(model, batch, 1, layer=layers, upsampling=None), fused, atol=1e-5
    )
    single = [np.asarray(layer_cam(model, batch, 1, layer=x)) for x in layers]
    scaled = np.tanh(2 * single[0] / single[0].max((1, 2), keepdims=True))
    assert (fused >= scaled - 1e-5).all()


def test_no_gradient_is_no_evidence():
    constant = lambda images: 0 * answer_of(images)
    for method in (grad_cam, grad_cam_plus_plus, xgrad_cam, hires_cam, layer_cam):
        np.testing.assert_array_equal(method(constant, IMAGE, 0, layer="relu1"), 0)
    fused = layer_cam(constant, IMAGE, 0, layer=("conv1", "relu1"))
    np.testing.assert_array_equal(fused, 0)
    tiny = lambda images: 1e-25 * answer_of(images)  # its square is zero in float32
    weights = grad_cam_plus_plus(tiny, IMAGE, 0, **RELU1)[0] * 1e25
    np.testing.assert_allclose(weights, [[0, 4], [37, 55]], rtol=1e-4)
