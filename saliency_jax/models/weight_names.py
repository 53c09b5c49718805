"""How files name and lay out the weights of a network: PyTorch's way and Keras's.

A network whose weights can be imported has a class attribute `weight_names`; what turns
the path of a Flax layer into the name of a layer in the file stands beside the network.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Path = tuple[str, ...]
Shape = tuple[int, ...]


class WeightNames(NamedTuple):
    """The names and the axes of one network's weights in a file.

    Attributes:
      name: from a variable's path, such as ("params", "layer1_0", "conv1", "kernel"),
        to its name in the file.
      file_shape: from the name and the shape in Flax to the shape in the file.
      to_flax: turns the file's array of a name to Flax's order of axes.
      head: the names of the last layer's kernel and bias.
      class_axis: which axis of the last layer's arrays counts the classes.
      ignored: beginnings of names that a file may hold and the network does without.
    """

    name: Callable[[Path], str]
    file_shape: Callable[[str, Shape], Shape]
    to_flax: Callable[[str, np.ndarray], np.ndarray]
    head: tuple[str, str]
    class_axis: int
    ignored: tuple[str, ...] = ()


# (collection, Flax's name) -> PyTorch's name of a layer's array.
TORCH_ARRAYS = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


def torch_names(
    layer_name: Callable[[Path], str], head: str, ignored: tuple[str, ...] = ()
) -> WeightNames:
    """Returns PyTorch's names and axes: `layer.weight`, OIHW and OI.

    Args:
      layer_name: from a layer's path, such as ("layer1_0", "conv1"), to its name in the
        file, "layer1.0.conv1".
      head: PyTorch's name of the last layer.
      ignored: see `WeightNames`.
    """

    def name(path: Path) -> str:
        collection, *layer, array = path
        return f"{layer_name(tuple(layer))}.{TORCH_ARRAYS[collection, array]}"

    return WeightNames(
        name=name,
        file_shape=lambda _, shape: torch_shape(shape),
        to_flax=lambda _, array: from_torch(array),
        head=(f"{head}.weight", f"{head}.bias"),
        class_axis=0,
        ignored=ignored,
    )


def torch_shape(shape: Shape) -> Shape:
    """Returns the shape of a Flax array in PyTorch's order of axes."""
    if len(shape) == 4:  # HWIO -> OIHW
        return (shape[3], shape[2], shape[0], shape[1])
    return shape[::-1]


def from_torch(array: np.ndarray) -> np.ndarray:
    """Returns a PyTorch array in Flax's order of axes: OIHW -> HWIO, OI -> IO."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


# Keras's names of a layer's array, by (collection, Flax's name).
KERAS_ARRAYS = {
    ("params", "kernel"): "kernel",
    ("params", "bias"): "bias",
}
KERAS_BATCH_NORM_ARRAYS = {
    ("params", "scale"): "gamma",
    ("params", "bias"): "beta",
    ("batch_stats", "mean"): "moving_mean",
    ("batch_stats", "var"): "moving_variance",
}
DEPTHWISE = "depthwise_kernel"


def keras_names(head: str) -> WeightNames:
    """Returns Keras's names and axes: `layer/kernel`, HWIO, HWI1 where depthwise.

    For networks whose Flax layers have Keras's names: BatchNorms end in `_bn`, and
    depthwise convolutions have `_dw_` in their names.

    Args:
      head: Keras's name of the last layer, a 1x1 convolution.
    """

    def name(path: Path) -> str:
        collection, *layer, array = path
        layer = "/".join(layer)
        if layer.endswith("_bn"):
            return f"{layer}/{KERAS_BATCH_NORM_ARRAYS[collection, array]}"
        if "_dw_" in layer:
            return f"{layer}/{DEPTHWISE}"
        return f"{layer}/{KERAS_ARRAYS[collection, array]}"

    def file_shape(name: str, shape: Shape) -> Shape:
        return (*shape[:2], shape[3], shape[2]) if name.endswith(DEPTHWISE) else shape

    def to_flax(name: str, array: np.ndarray) -> np.ndarray:
        return array.swapaxes(2, 3) if name.endswith(DEPTHWISE) else array

    return WeightNames(
        name=name,
        file_shape=file_shape,
        to_flax=to_flax,
        head=(f"{head}/kernel", f"{head}/bias"),
        class_axis=-1,
    )
