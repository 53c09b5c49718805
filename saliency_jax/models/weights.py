"""torchvision's ResNet weights as Flax variables, read without executing code."""

from collections.abc import Mapping
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from saliency_jax.errors import InputError
from saliency_jax.models.resnet import ResNet
from saliency_jax.types import PyTree

TORCH_SUFFIXES = (".pth", ".pt")
WRAPPERS = ("state_dict", "model")  # where PyTorch's training scripts nest the weights
NAMES_SHOWN = 10

# (collection, Flax's name) -> PyTorch's name of a layer's array.
ARRAY_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
LAYER_NAMES = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}


def torch_name(path: tuple[str, ...]) -> str:
    """Returns torchvision's name of a ResNet variable.

    For example ("params", "layer1_0", "downsample_bn", "scale") is
    "layer1.0.downsample.1.weight".
    """
    collection, *blocks, layer, array = path
    blocks = [block.replace("_", ".") for block in blocks]
    layer = LAYER_NAMES.get(layer, layer)
    return ".".join([*blocks, layer, ARRAY_NAMES[collection, array]])


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of a Flax array in PyTorch's order of axes."""
    if len(shape) == 4:  # HWIO -> OIHW
        return (shape[3], shape[2], shape[0], shape[1])
    return shape[::-1]


def from_torch(array: np.ndarray) -> np.ndarray:
    """Returns a PyTorch array in Flax's order of axes: OIHW -> HWIO, OI -> IO."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a `.safetensors` or PyTorch `.pth` / `.pt` file by name.

    Nothing in the file is executed: a PyTorch file may hold tensors only, at the top or
    under "state_dict" or "model".

    Raises:
      InputError: the file is missing, damaged, of another kind or holds anything but
        arrays, or PyTorch is not installed.
    """
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(
            f"weights file {path} {kind}; give a .safetensors or .pth file"
        )
    if path.suffix == ".safetensors":
        try:
            return safetensors.numpy.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"weights file {path} is not a readable safetensors file ({error}); "
                "download it again"
            ) from error
    if path.suffix in TORCH_SUFFIXES:
        return _read_torch(path)
    raise InputError(
        f"weights file {path} is of an unknown kind; expected .safetensors or .pth"
    )


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"reading {path} needs PyTorch: pip install torch, or convert the file to "
            ".safetensors"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load has no error of its own: a bad file shows as RuntimeError, EOFError,
    # KeyError, UnpicklingError, ... according to the byte at which it goes wrong.
    except Exception as error:
        raise InputError(
            f"weights file {path} is not a readable PyTorch state_dict: it is damaged, "
            "or it holds more than tensors, whose loading could run code; download it "
            "again or save `model.state_dict()`"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor)
        for name, value in content.items()
    ):
        raise InputError(
            f"weights file {path} holds no table of named tensors; "
            "save `model.state_dict()`"
        )
    return {
        name: (value.float() if value.is_floating_point() else value).detach().numpy()
        for name, value in content.items()
    }


def load_torch_resnet(
    weights: str | Path | Mapping[str, np.ndarray],
    module: ResNet,
    image_shape: tuple[int, int, int] = (224, 224, 3),
) -> PyTree:
    """Returns torchvision's weights as the variables of `module`.

    Args:
      weights: a file for `read_weights`, or arrays by torchvision's names. A prefix
        "module." (DataParallel) and the counters `num_batches_tracked` are dropped.
      module: the network that the weights must fit, name by name and shape by shape.
      image_shape: (H, W, C) of the images; only C matters to the variables.

    Returns:
      `{"params": ..., "batch_stats": ...}`, float32.

    Raises:
      InputError: the file cannot be read, or names are missing, unexpected or of
        another shape; the message lists them.
    """
    if isinstance(weights, Mapping):
        source, arrays = "the dictionary of weights", dict(weights)
    else:
        source, arrays = f"weights file {weights}", read_weights(weights)
    arrays = {
        name.removeprefix("module."): array
        for name, array in arrays.items()
        if not name.endswith("num_batches_tracked")
    }
    expected = jax.eval_shape(
        lambda key: module.init(key, jnp.zeros((1, *image_shape)), False),
        jax.random.key(0),
    )
    expected = {
        path: leaf.shape
        for path, leaf in flax.traverse_util.flatten_dict(expected).items()
    }
    shapes = {torch_name(path): torch_shape(shape) for path, shape in expected.items()}
    _check_names_and_shapes(source, arrays, shapes)
    return flax.traverse_util.unflatten_dict(
        {
            path: jnp.asarray(from_torch(arrays[torch_name(path)]), jnp.float32)
            for path in expected
        }
    )


def _check_names_and_shapes(
    source: str,
    arrays: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    missing = [name for name in expected if name not in arrays]
    unexpected = [name for name in arrays if name not in expected]
    misshaped = sorted(
        name
        for name, shape in expected.items()
        if name in arrays and arrays[name].shape != shape
    )
    if not (missing or unexpected or misshaped):
        return
    if (
        not missing
        and not unexpected
        and misshaped == ["fc.bias", "fc.weight"]
        and arrays["fc.weight"].shape[1:] == expected["fc.weight"][1:]
    ):
        count = arrays["fc.weight"].shape[0]
        raise InputError(
            f"{source} tells {count} classes apart, the data have "
            f"{expected['fc.weight'][0]}; use a data set of {count} classes, or set "
            "--config.classifier.init to weights or a run that know the data's classes"
        )
    described = [
        f"{name} {arrays[name].shape} instead of {expected[name]}" for name in misshaped
    ]
    report = "; ".join(
        f"{len(names)} {problem}: {_listing(names)}"
        for problem, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", described),
        )
        if names
    )
    raise InputError(
        f"{source} does not fit the network ({report}); choose the network it was "
        "trained with, or other weights"
    )


def _listing(names: list[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
