"""Weights files of PyTorch's names and axes, for any network that has them."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import safetensors.numpy

from saliency_jax.models.weight_names import torch_shape
from tests.models import reproducible


def write_weights(path, module, metadata=None):
    """Writes a file that fits a network, and returns its arrays."""
    shapes = jax.eval_shape(
        lambda key: module.init(key, jnp.zeros((1, 32, 32, 3)), False),
        jax.random.key(0),
    )
    arrays = reproducible.state_dict(
        {
            module.weight_names.name(path): torch_shape(leaf.shape)
            for path, leaf in flax.traverse_util.flatten_dict(shapes).items()
        }
    )
    safetensors.numpy.save_file(arrays, path, metadata)
    return arrays
