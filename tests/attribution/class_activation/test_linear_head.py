"""CAM: the last layer's weights, and heads that have none."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.class_activation.gradient_weighted import grad_cam
from saliency_jax.attribution.class_activation.linear_head import cam
from saliency_jax.attribution.layers import Unit
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from tests.attribution.small_network import classifier, images

TARGETS = np.array([0, 4, 2])


def test_is_the_last_layers_weights_times_the_activations():
    model, batch = classifier(), images(3)
    dense = jax.tree.map(np.asarray, model.variables["params"]["fc"])
    activations = np.asarray(model.features(batch)[1][0])
    expected = np.einsum("bhwk,kb->bhw", activations, dense["kernel"][:, TARGETS])
    maps = np.asarray(cam(model, batch, TARGETS, upsampling=None))
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    logits = np.asarray(model(batch))[np.arange(3), TARGETS]
    np.testing.assert_allclose(
        maps.mean((1, 2)) + dense["bias"][TARGETS], logits, atol=1e-5
    )
    positive = cam(model, batch, TARGETS, variant="relu", upsampling=None)
    np.testing.assert_allclose(positive, np.maximum(expected, 0), atol=1e-5)
    weighted = grad_cam(model, batch, TARGETS, variant="captum", upsampling=None)
    np.testing.assert_allclose(maps, 64 * weighted, atol=1e-4)


def test_of_linear_functions_and_units():
    model, batch = classifier(), images(2)
    margin = cam(model, batch, lambda logits: logits[1] - logits[3])
    expected = cam(model, batch, 1) - cam(model, batch, 3)
    np.testing.assert_allclose(margin, expected, atol=1e-5)
    predicted = np.asarray(model(batch)).argmax(-1)
    np.testing.assert_allclose(cam(model, batch), cam(model, batch, predicted))
    unit = cam(model, batch, Unit(3), upsampling=None)
    np.testing.assert_allclose(unit, model.features(batch)[1][0][..., 3], atol=1e-6)
    with pytest.raises(InputError, match="not a linear function of the layer"):
        cam(model, batch, lambda logits: logits[1] ** 2)
    with pytest.raises(InputError, match="variant='none' is unknown"):
        inspect.unwrap(cam)(model, batch, variant="none")


class Head(nn.Module):
    """A convolution, and what comes then."""

    kind: str

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(4, (3, 3), (2, 2), name="conv")(x))
        if self.kind == "average":
            x = nn.avg_pool(x, x.shape[1:3]).reshape(len(x), -1)
        elif self.kind == "einsum":
            x = jax.jit(lambda x: jnp.einsum("bhwc->bc", x) / 64)(x)
        elif self.kind == "flat":
            return nn.Dense(3)(x.reshape(len(x), -1))
        elif self.kind == "two layers":
            x = nn.relu(nn.Dense(8)(x.mean((1, 2))))
        elif self.kind == "max":
            x = x.max((1, 2))
        elif self.kind == "overlapping":
            x = nn.avg_pool(x, (4, 4), (2, 2)).mean((1, 2))
        else:
            x = nn.log_softmax(x.mean((1, 2)))
        return nn.Dense(3)(x)


def with_head(kind):
    module = Head(kind)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False)
    return Classifier(variables, module)


@pytest.mark.parametrize("kind", ["average", "einsum"])
def test_ways_to_write_it(kind):
    model, batch = with_head(kind), images(2)
    bias = model.variables["params"]["Dense_0"]["bias"][1]
    maps = np.asarray(cam(model, batch, 1, upsampling=None))
    np.testing.assert_allclose(maps.mean((1, 2)) + bias, model(batch)[:, 1], atol=1e-5)


@pytest.mark.parametrize("kind", ["two layers", "max", "log-softmax"])
def test_other_heads_are_refused(kind):
    model = with_head(kind)
    message = "cam needs a head of .* not a linear function of the layer"
    with pytest.raises(InputError, match=message):
        cam(model, images(2), 1)
    with pytest.raises(InputError, match=message):
        jax.jit(lambda model, images: cam(model, images, 1))(model, images(2))


@pytest.mark.parametrize("kind", ["flat", "overlapping"])
def test_heads_that_weigh_positions_are_refused(kind):
    with pytest.raises(InputError, match="the layer's positions count differently"):
        cam(with_head(kind), images(2), 1)


def test_layers_before_the_last_are_refused():
    with pytest.raises(InputError, match="use the last layer before the pooling"):
        cam(classifier(), images(2), 1, layer="conv1")
