"""A masker in one file: its arrays, and in the metadata what its networks are.

A safetensors file, which holds arrays and text. (What is executed is code of the user's
own that the text may name, under the rules of `own_network`, as for a run.)

    masker/params/..., classifier/batch_stats/...   arrays, by the names of a checkpoint
    metadata: format   "saliency_jax.masker"
              version  "1"
              config   JSON: values by the names of a run's config, `network_fields` and
                       what the masker needs besides; all of them are always there, but
                       for data.image_size where that is unknown

With int8 weights the kernels are int8, and beside each is `<name>.scale`, float32, of
each output channel. They are read as their products, in float32.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from saliency_jax import described_file
from saliency_jax.errors import InputError
from saliency_jax.models.create import BACKBONES, OPTIONS
from saliency_jax.models.own_network import OwnNetwork
from saliency_jax.training import config_values
from saliency_jax.types import PyTree

SUFFIX = ".safetensors"
KIND = described_file.Kind(
    name="masker file",
    format="saliency_jax.masker",
    version="1",
    written_by="Masker.save",
    again="save the masker again",
)
SCALE = ".scale"
# Other types are none that a network's variables have.
FLOATS = ("float32", "bfloat16", "float16")

_NETWORK = ("network", "num_classes", "dtype", *OPTIONS)
_FIELDS = {
    "casm": {
        "data": ("mean", "std", "class_names"),
        "classifier": (*_NETWORK, "output"),
        "masker": ("encoder", "taps", "features", "final_upsampling"),
    },
    "black_box": {
        "data": ("mean", "std", "class_names"),
        "classifier": (*_NETWORK, "output", "function"),
        "encoder": (*_NETWORK, "mean", "std"),
        "masker": ("upsampling", "base", "confidence"),
    },
}
"""The fields of a config, by its stage."""


def network_fields(section: str, module: nn.Module | None) -> dict[str, Any]:
    """What a file says of a network, for `create.create_classifier`.

    Args:
      section: of the config, "classifier" or "encoder".
      module: None: there is no network, and the fields are empty.

    Raises:
      InputError: it is neither a network of the registry nor one that a run has named.
    """
    if module is None:
        fields = {"network": "", "num_classes": 1, "dtype": "float32", **OPTIONS}
        return {f"{section}.{name}": value for name, value in fields.items()}
    name, options = _name_and_options(module)
    fields = {
        "network": name,
        "num_classes": module.num_classes,
        "dtype": jnp.dtype(module.dtype).name,
        **OPTIONS,
        **options,
    }
    return {f"{section}.{name}": value for name, value in fields.items()}


def _name_and_options(module: nn.Module) -> tuple[str, dict[str, Any]]:
    if isinstance(module, OwnNetwork):
        return module.factory, {}
    for name, backbone in BACKBONES.items():
        options = {option: getattr(module, option, None) for option in backbone.options}
        if None in options.values() or not hasattr(module, "num_classes"):
            continue
        made = backbone.create(
            num_classes=module.num_classes, dtype=module.dtype, **options
        )
        if made == module:
            return name, options
    raise InputError(
        f"a {type(module).__name__} of this kind has no name that a file could give: "
        "name the function that makes it, as in create.create_classifier({'network': "
        "'my_model:create', ...}), or, of a black box that is a function, where it is: "
        "masker.replace(function='my_model:logits')"
    )


def write(
    path: Path, config: Mapping[str, Any], networks: PyTree, *, int8: bool = False
) -> None:
    """Writes a masker file, in the place of the one that is there.

    Args:
      path: of the file; ends in ".safetensors".
      config: values by the names of their fields.
      networks: `{"masker": variables, "classifier": variables}`, the latter where the
        file is to have them.
      int8: quantise the kernels.

    Raises:
      InputError: another suffix, values that no file may have, or it cannot be written.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"masker file {path}: its name has to end in {SUFFIX}")
    arrays = {
        name: np.asarray(leaf)
        for name, leaf in flax.traverse_util.flatten_dict(networks, sep="/").items()
    }
    if wrong := _what_is_wrong(config) or _wrong_types(arrays):
        raise InputError(f"a masker cannot be saved as {path}: {wrong}")
    stored = quantise(arrays) if int8 else arrays
    described_file.write(path, KIND, stored, {"config": json.dumps(config)})


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a masker file.

    Returns:
      The config by its sections, and the arrays by their names, float.

    Raises:
      InputError: it is missing, damaged or another file, or its config has not the
        fields that it should have.
    """
    metadata, arrays = described_file.read(path, KIND)
    try:
        config = json.loads(metadata.get("config", ""))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"masker file {path}: config: {error}; {KIND.advice}"
        ) from error
    if wrong := _what_is_wrong(config):
        raise InputError(f"masker file {path}: {wrong}; {KIND.advice}")
    if wrong := _wrong_scales(arrays) or _wrong_types(arrays := dequantise(arrays)):
        raise InputError(f"masker file {path}: {wrong}; {KIND.advice}")
    return nested(config), arrays


def nested(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config by its sections; `config` has it by the whole names of its fields."""
    known = {"data.image_size": None, **config}
    return flax.traverse_util.unflatten_dict(known, sep=".")


def fit(path: Path, arrays: Mapping[str, np.ndarray], like: PyTree) -> PyTree:
    """The arrays as the networks' variables.

    Args:
      path: of the file, for messages.
      arrays: of `read`.
      like: the shapes expected, `{"masker": variables, ...}`.

    Raises:
      InputError: arrays are missing, unexpected or of another shape.
    """
    # The names of what has no arrays, such as the statistics of a network without
    # BatchNorm, are kept too.
    expected = flax.traverse_util.flatten_dict(like, keep_empty_nodes=True, sep="/")
    shapes = {
        name: leaf.shape for name, leaf in expected.items() if hasattr(leaf, "shape")
    }
    wrong = [f"it has no {name}" for name in shapes if name not in arrays]
    wrong += [f"{name} is unexpected" for name in arrays if name not in shapes]
    wrong += [
        f"{name} has shape {arrays[name].shape} instead of {shape}"
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape != shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise InputError(
            f"masker file {path} does not fit its networks: {wrong[0]}{more}; "
            f"{KIND.advice}"
        )
    leaves = {
        name: jnp.asarray(arrays[name]) if name in shapes else leaf
        for name, leaf in expected.items()
    }
    return flax.traverse_util.unflatten_dict(leaves, sep="/")


def quantise(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays with kernels in int8, and `<name>.scale` beside each.

    Symmetric, for each output channel (the last axis) by itself: a kernel is within
    half a step of `int8 * scale`, and a step is 1/127 of the channel's greatest weight.
    """
    quantised = {}
    for name, array in arrays.items():
        if name.rpartition("/")[2] != "kernel" or array.ndim < 2:
            quantised[name] = array
            continue
        kernel = np.asarray(array, np.float32)
        greatest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
        scale = np.where(greatest > 0, greatest / np.float32(127), np.float32(1))
        quantised[name] = np.rint(kernel / scale).astype(np.int8)
        quantised[name + SCALE] = scale
    return quantised


def dequantise(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays that `quantise` was given, as near as int8 is; of JAX or NumPy."""
    return {
        name: array.astype(np.float32) * _along_last(arrays[name + SCALE], array.ndim)
        if name + SCALE in arrays
        else array
        for name, array in arrays.items()
        if not name.endswith(SCALE) or name.removesuffix(SCALE) not in arrays
    }


def _along_last(scale: Any, ndim: int) -> Any:
    return scale.reshape((1,) * (ndim - 1) + (-1,))


def _what_is_wrong(config: Any) -> str | None:
    """What keeps the text of a file from being a masker's config."""
    stage = config.get("stage") if isinstance(config, dict) else None
    if not isinstance(stage, str) or stage not in _FIELDS:
        return f"stage = {stage!r:.40}: expected one of {tuple(_FIELDS)}"
    fields = {"stage", "data.image_size"}
    for section, names in _FIELDS[stage].items():
        fields |= {f"{section}.{name}" for name in names}
    if unknown := sorted(config.keys() - fields):
        return f"it has a field {unknown[0]!r:.80}, which no masker has"
    if missing := sorted(fields - {"data.image_size"} - config.keys()):
        expected = config_values.expectation(missing[0]) or "a value"
        return f"it has no {missing[0]}: expected {expected}"
    return config_values.what_is_wrong(config)


def _wrong_types(arrays: Mapping[str, np.ndarray]) -> str | None:
    for name, array in arrays.items():
        if array.dtype.name not in FLOATS:
            return f"{name} is of type {array.dtype.name}, expected one of {FLOATS}"
    return None


def _wrong_scales(arrays: Mapping[str, np.ndarray]) -> str | None:
    for name, array in arrays.items():
        scale = arrays.get(name + SCALE)
        if scale is None:
            continue
        expected = array.shape[-1:]
        if array.dtype != np.int8 or scale.dtype != np.float32:
            return f"{name} and its scale are expected to be int8 and float32"
        if not expected or scale.shape != expected:
            return f"{name}{SCALE} has shape {scale.shape} instead of {expected}"
    return None
