"""Weights and images that come out the same on every machine and in every version.

The golden values stand for networks of 25 million weights, which are too many to store:
they are made from integers (the finaliser of SplitMix64) by correctly rounded
operations only, so the answer does not depend on any library's random generator.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from saliency_jax.models.resnet import ResNet
from saliency_jax.models.weight_names import from_torch, torch_shape
from saliency_jax.types import PyTree

GAMMA = np.uint64(0x9E3779B97F4A7C15)


# Of the seeds of the stored values, whatever the module: a name for every path.
torch_name = ResNet.weight_names.name


def uniform(shape: tuple[int, ...], name: str, low: float, high: float) -> np.ndarray:
    """float32 in [low, high), a function of the shape and the name alone."""
    start = np.uint64(zlib.crc32(name.encode())) << np.uint64(31)
    bits = start + np.arange(np.prod(shape, dtype=int), dtype=np.uint64)
    bits *= GAMMA
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(0x94D049BB133111EB)
    unit = (bits >> np.uint64(40)).astype(np.float64) / 2**24
    return (low + (high - low) * unit).astype(np.float32).reshape(shape)


def state_dict(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """PyTorch-shaped ResNet weights whose activations stay of order one."""
    arrays = {}
    for name, shape in shapes.items():
        if name.endswith("running_var"):
            low, high = 0.5, 1.5
        elif len(shape) == 1 and name.endswith("weight"):
            low, high = 0.5, 1.0  # below one, or sixteen residual sums would explode
        elif len(shape) == 1:
            low, high = -0.3, 0.3
        else:
            high = (6.0 / np.prod(shape[1:])) ** 0.5  # He et al., uniform, fan-in
            low = -high
        arrays[name] = uniform(shape, name, low, high)
    return arrays


def variables(module: Any, *arguments: Any) -> PyTree:
    """`state_dict` for any module that is called as `module(*arguments, train)`.

    Unlike the module's own `init` it compiles nothing.
    """
    shapes = jax.eval_shape(
        lambda key: module.init(key, *arguments, False), jax.random.key(0)
    )
    shapes = flax.traverse_util.flatten_dict(shapes)
    arrays = state_dict(
        {torch_name(path): torch_shape(leaf.shape) for path, leaf in shapes.items()}
    )
    return flax.traverse_util.unflatten_dict(
        {path: jnp.asarray(from_torch(arrays[torch_name(path)])) for path in shapes}
    )


def images(shape: tuple[int, ...]) -> np.ndarray:
    """Normalised images `[B, H, W, 3]`."""
    return uniform(shape, "images", -2.0, 2.0)


def sample(array: np.ndarray, count: int = 400) -> np.ndarray:
    """At most `count` values of an array, evenly spaced in memory order."""
    flat = np.asarray(array, np.float32).ravel()
    return flat[np.linspace(0, flat.size - 1, min(count, flat.size)).astype(int)]
