"""One network in three libraries, with the same weights."""

import equinox
import flax.linen as linen
import jax
import jax.numpy as jnp
from flax import nnx


class LinenTwin(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(4, (3, 3), name="conv1")(x))
        x = linen.relu(linen.Conv(6, (3, 3), name="conv2")(x))
        return linen.Dense(3, name="fc")(jnp.mean(x, axis=(1, 2)))


class NnxTwin(nnx.Module):
    def __init__(self, params, rngs):
        self.conv1 = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(4, 6, (3, 3), rngs=rngs)
        self.fc = nnx.Linear(6, 3, rngs=rngs)
        for name in ("conv1", "conv2", "fc"):
            getattr(self, name).kernel[...] = params[name]["kernel"]
            getattr(self, name).bias[...] = params[name]["bias"]

    def __call__(self, x):
        x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
        return self.fc(jnp.mean(x, axis=(1, 2)))


class EquinoxTwin(equinox.Module):
    conv1: equinox.nn.Conv2d
    conv2: equinox.nn.Conv2d
    fc: equinox.nn.Linear
    relu: equinox.nn.Lambda  # one module, used twice

    def __init__(self, params):
        keys = iter(jax.random.split(jax.random.key(0), 3))
        kernel = lambda x: jnp.transpose(x["kernel"], (3, 2, 0, 1))
        bias = lambda x: x["bias"].reshape(-1, 1, 1)
        with_params = lambda layer, weight, bias: equinox.tree_at(
            lambda layer: (layer.weight, layer.bias), layer, (weight, bias)
        )
        convolution = lambda i, o, x: with_params(
            equinox.nn.Conv2d(i, o, 3, padding="SAME", key=next(keys)),
            kernel(x),
            bias(x),
        )
        self.conv1 = convolution(3, 4, params["conv1"])
        self.conv2 = convolution(4, 6, params["conv2"])
        fc = equinox.nn.Linear(6, 3, key=next(keys))
        self.fc = with_params(fc, params["fc"]["kernel"].T, params["fc"]["bias"])
        self.relu = equinox.nn.Lambda(jax.nn.relu)

    def __call__(self, image):  # channels first, of one image
        maps = self.relu(self.conv2(self.relu(self.conv1(image))))
        return self.fc(jnp.mean(maps, axis=(1, 2)))


def twins():
    """The same network in three libraries, as functions of images."""
    module = LinenTwin()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    params = variables["params"]
    channels_first = jax.vmap(EquinoxTwin(params))
    return (
        lambda x: module.apply(variables, x),
        NnxTwin(params, nnx.Rngs(0)),
        lambda x: channels_first(jnp.transpose(x, (0, 3, 1, 2))),
    )
