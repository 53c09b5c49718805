"""Weights from files as Flax variables, read without executing code."""

from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from jaxtyping import Array, Key

from saliency_jax.errors import InputError
from saliency_jax.models.weight_names import WeightNames
from saliency_jax.models.weights_metadata import unreadable_safetensors
from saliency_jax.types import PyTree

TORCH_SUFFIXES = (".pth", ".pt")
SAFETENSORS_DTYPES = (
    *("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8"),
    *("U64", "U32", "U16", "U8", "BOOL"),
)
WRAPPERS = ("state_dict", "model")  # where PyTorch's training scripts nest the weights
NAMES_SHOWN = 10


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
        return _read_safetensors(path)
    if path.suffix in TORCH_SUFFIXES:
        return _read_torch(path)
    raise InputError(
        f"weights file {path} is of an unknown kind; expected .safetensors or .pth"
    )


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(path, "numpy") as file:
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            unknown = sorted(n for n in dtypes if dtypes[n] not in SAFETENSORS_DTYPES)
            if not unknown:
                return {name: file.get_tensor(name) for name in dtypes}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise unreadable_safetensors(path, error) from error
    raise InputError(
        f"weights file {path} has tensor {unknown[0]} of dtype {dtypes[unknown[0]]}: "
        f"expected one of {', '.join(SAFETENSORS_DTYPES)}; save the tensors as float32"
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


def load_weights(
    weights: str | Path | Mapping[str, np.ndarray],
    module: nn.Module,
    image_shape: tuple[int, int, int] = (224, 224, 3),
    new_head: Key[Array, ""] | None = None,
) -> PyTree:
    """Returns the weights of a file as the variables of `module`.

    Args:
      weights: a file for `read_weights`, or arrays by the names that files of this
        network use: torchvision's, or Keras's for `MobileNetV1`. A prefix "module."
        (DataParallel), the counters `num_batches_tracked` and what the network's
        `weight_names.ignored` lists (auxiliary heads of GoogLeNet) are dropped.
      module: the network that the weights must fit, name by name and shape by shape.
      image_shape: (H, W, C) of the images; only C matters to the variables.
      new_head: if given, the last layer is not taken from the file, whose classes may
        be others; the key draws a fresh one.

    Returns:
      `{"params": ..., "batch_stats": ...}`, float32; the latter is empty for a network
      without BatchNorm.

    Raises:
      InputError: the file cannot be read, or names are missing, unexpected or of
        another shape; the message lists them. Or there are no names for this network.
    """
    names = names_of(module)
    if isinstance(weights, Mapping):
        source, arrays = "the dictionary of weights", dict(weights)
    else:
        source, arrays = f"weights file {weights}", read_weights(weights)
    arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    arrays = {
        name: array
        for name, array in arrays.items()
        if not name.endswith("num_batches_tracked")
        and not name.startswith(names.ignored)
    }
    init = lambda key: module.init(key, jnp.zeros((1, *image_shape)), False)
    expected = jax.eval_shape(init, jax.random.key(0))
    expected = {
        path: (names.name(path), leaf.shape)
        for path, leaf in flax.traverse_util.flatten_dict(expected).items()
    }
    head = {}
    if new_head is not None:
        fresh = flax.traverse_util.flatten_dict(jax.jit(init)(new_head))
        for path, (name, _) in [*expected.items()]:
            if name in names.head:
                head[path] = fresh[path]
                del expected[path]
                arrays.pop(name, None)
    shapes = {name: names.file_shape(name, shape) for name, shape in expected.values()}
    _check_names_and_shapes(source, arrays, shapes, names)
    variables = {
        path: jnp.asarray(names.to_flax(name, arrays[name]), jnp.float32)
        for path, (name, _) in expected.items()
    }
    variables |= head
    return {"batch_stats": {}, **flax.traverse_util.unflatten_dict(variables)}


def count_classes(path: Path, module: nn.Module) -> int:
    """How many classes the weights of a file tell apart.

    Args:
      path: of the file.
      module: the network that they are of, for any number of classes.

    Raises:
      InputError: the file cannot be read, or has no last layer of this network.
    """
    bias = names_of(module).head[1]
    arrays = read_weights(path)
    counts = [a.size for n, a in arrays.items() if n.removeprefix("module.") == bias]
    if not counts:
        raise InputError(
            f"weights file {path} does not fit the network ({bias} is missing); choose "
            "the network it was trained with, or other weights"
        )
    return counts[0]


def names_of(module: nn.Module) -> WeightNames:
    """How files name a network's weights.

    Raises:
      InputError: there are no names for this network.
    """
    names: WeightNames | None = getattr(module, "weight_names", None)
    if names is None:
        raise InputError(
            f"{type(module).__name__} cannot take weights from a file: it has no "
            "`weight_names` (see saliency_jax/models/weight_names.py)"
        )
    return names


def _check_names_and_shapes(
    source: str,
    arrays: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    names: WeightNames,
) -> None:
    missing = [name for name in expected if name not in arrays]
    unexpected = [name for name in arrays if name not in expected]
    misshaped = [
        name
        for name, shape in expected.items()
        if name in arrays and arrays[name].shape != shape
    ]
    if not (missing or unexpected or misshaped):
        return
    if not missing and not unexpected and set(misshaped) == set(names.head):
        axis = names.class_axis
        without_classes = lambda shape: np.delete(shape, axis).tolist()
        if all(
            arrays[name].ndim == len(expected[name])
            and without_classes(arrays[name].shape) == without_classes(expected[name])
            for name in names.head
        ):
            bias = names.head[1]
            raise InputError(
                f"{source} tells {arrays[bias].size} classes apart, the data have "
                f"{expected[bias][0]}; use a data set of {arrays[bias].size} classes, "
                "set --config.classifier.init to weights or a run that know the "
                "data's classes, or, in the stage classifier, set "
                "--config.classifier.new_head=True to train a last layer for them"
            )
    described = [
        f"{name} {arrays[name].shape} instead of {expected[name]}"
        for name in sorted(misshaped)
    ]
    report = "; ".join(
        f"{len(found)} {problem}: {_listing(found)}"
        for problem, found in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", described),
        )
        if found
    )
    raise InputError(
        f"{source} does not fit the network ({report}); choose the network it was "
        "trained with, or other weights"
    )


def _listing(names: list[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
