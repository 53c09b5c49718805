"""A small classifier with all that methods must cope with, and images for it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from saliency_jax.models.classifier import Classifier

SIZE = 16
CLASSES = 5


class SmallNetwork(nn.Module):
    """Two convolutions, normalisation, pooling, and a class activation map's head."""

    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(8, (3, 3), dtype=self.dtype, name="conv1")(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.Conv(12, (3, 3), dtype=self.dtype, name="conv2")(x)
        x = nn.BatchNorm(not train, dtype=self.dtype, name="bn2")(x)
        x = nn.relu(x)
        pooled = jnp.mean(x, axis=(1, 2))
        return nn.Dense(CLASSES, dtype=self.dtype, name="fc")(pooled), (x,)


def classifier(seed=0, dtype=jnp.float32):
    """One with random weights and running statistics."""
    module = SmallNetwork(dtype)
    variables = module.init(
        jax.random.key(seed), jnp.zeros((1, SIZE, SIZE, 3)), train=False
    )
    statistics = variables["batch_stats"]["bn2"]
    random = np.random.default_rng(seed)
    statistics = {
        "mean": jnp.asarray(random.normal(size=12) * 0.3, jnp.float32),
        "var": jnp.asarray(random.uniform(0.5, 2, 12), jnp.float32),
    }
    variables = {**variables, "batch_stats": {"bn2": statistics}}
    return Classifier(variables, module, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def with_dead_channels():
    """One whose second convolution gives nothing but zeros after the ReLU."""
    alive = classifier()
    bn2 = {"scale": jnp.zeros(12), "bias": -jnp.ones(12)}
    params = {**alive.variables["params"], "bn2": bn2}
    return alive.replace(variables={**alive.variables, "params": params})


def images(count, seed=0):
    """Smooth random ones, in [0, 1]."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(size=(count, 4, 4, 3)).astype(np.float32)
    return np.asarray(jax.image.resize(coarse, (count, SIZE, SIZE, 3), "linear"))
