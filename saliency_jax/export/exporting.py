"""Writes a masker as a program in StableHLO, with its weights in it or beside it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from saliency_jax import described_file
from saliency_jax.errors import InputError, unknown
from saliency_jax.export.loading import (
    KIND,
    MULTIPLE,
    PROGRAM,
    Interface,
    check_flatbuffers,
)
from saliency_jax.masker_file import SUFFIX, dequantise, quantise
from saliency_jax.models.create import IMAGE_SIZE
from saliency_jax.models.selective_masker import SelectiveMasker
from saliency_jax.saliency import Masker

PLATFORMS = ("cpu", "cuda")
_KNOWN_PLATFORMS = (*PLATFORMS, "rocm", "tpu")

Weights = Literal["inside", "beside"]


def export_masker(
    masker: Masker,
    path: str | Path,
    *,
    image_size: int | None = None,
    weights: Weights = "beside",
    int8: bool = False,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Writes a masker as a program that JAX runs without Flax or the networks' code.

    The program maps float32 images in [0, 1] (and, for a `SelectiveMasker`, labels) to
    masks, for batches of any size; see `load_exported`. The black box of a
    `SelectiveMasker` is not in it.

    By default it takes images of any size that is a multiple of 32: each side by itself
    with ResNet, MobileNet and GoogLeNet; squares with small_cnn and Keras's padding of
    MobileNet v1, which compare the sides. SqueezeNet and VGG need a fixed `image_size`:
    their pooling is laid out by numbers, not by symbols. A network of the user's own
    may, too.

    Args:
      masker: from `load_masker`.
      path: of the file, which ends in ".safetensors".
      image_size: side in pixels of the images that it takes; None: any, as above.
      weights: "beside" the program, as arrays of the file with names, or "inside" it,
        as constants. XLA folds those, which takes seconds for large kernels whenever
        the program is compiled. The file is about as large.
      int8: store the kernels in eight bits, each output channel with its scale; the
        program computes in float32 with their products. See `masker_file.quantise`.
      platforms: that the program runs on, of "cpu", "cuda", "rocm", "tpu".

    Raises:
      InputError: the networks need a fixed size, the size is too small, another suffix,
        an unknown platform or place of weights,
        the file cannot be written, or flatbuffers is not installed.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise InputError(f"exported masker {path}: its name has to end in {SUFFIX}")
    if wrong := [name for name in platforms if name not in _KNOWN_PLATFORMS]:
        raise InputError(unknown("platform", wrong[0], _KNOWN_PLATFORMS))
    if weights not in get_args(Weights):
        raise InputError(unknown("place of weights", weights, get_args(Weights)))
    check_flatbuffers()
    masker = _without_black_box(masker)
    names, arrays = _named_leaves(masker)
    structure = jax.tree.structure(masker)
    arrays = quantise(arrays) if int8 else arrays

    def masks_of(arrays: Mapping[str, Any], images: Any, *labels: Any) -> Any:
        # Of NumPy's arrays the products would be made here, and not by the program.
        whole = dequantise({name: jnp.asarray(arrays[name]) for name in arrays})
        parts = [whole[name] for name in names]
        return jax.tree.unflatten(structure, parts)(images, *labels)

    def program(beside: Mapping[str, Any], *asked: Any) -> Any:
        return masks_of({**arrays, **beside}, *asked)

    num_classes = None
    if isinstance(masker.module, SelectiveMasker):
        num_classes = masker.module.decoder.num_classes
    labelled = num_classes is not None
    beside = {}
    if weights == "beside":
        size = image_size or masker.image_size or IMAGE_SIZE
        beside = _used(program, arrays, size, labelled)
    exported, square = _exported(program, beside, image_size, labelled, platforms)
    stored = np.frombuffer(exported.serialize(), np.uint8)
    metadata = {
        "interface": json.dumps(Interface(num_classes, image_size, square)._asdict()),
        "sha256": hashlib.sha256(stored).hexdigest(),
        "jax": jax.__version__,
    }
    described_file.write(path, KIND, {**beside, PROGRAM: stored}, metadata)


def _without_black_box(masker: Masker) -> Masker:
    """The same but for the classifier of a masker that does not read its maps."""
    if not isinstance(masker.module, SelectiveMasker):
        return masker
    if not masker.encoder_mean:
        mean, std = masker.classifier.mean, masker.classifier.std
        masker = masker.replace(encoder_mean=mean, encoder_std=std)
    return masker.replace(classifier=None)


def _named_leaves(masker: Masker) -> tuple[list[str], dict[str, np.ndarray]]:
    """The names of a masker's arrays in the order of its leaves, and the arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(masker)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    names = [name(path) for path, _ in leaves]
    arrays = [jax.device_get(jnp.asarray(leaf)) for _, leaf in leaves]
    return names, dict(zip(names, arrays, strict=True))


def _used(
    program: Callable[..., Any],
    arrays: Mapping[str, np.ndarray],
    image_size: int,
    labelled: bool,
) -> dict[str, np.ndarray]:
    """The arrays that make the masks: not the classifier's last layer, for one.

    JAX tells it of images of a fixed size alone.
    """
    exported = _export(
        program, arrays, (1, image_size, image_size, 3), labelled, [PLATFORMS[0]]
    )
    names = sorted(arrays)  # the order of a dictionary's leaves
    used = [names[n] for n in exported.module_kept_var_idx if n < len(names)]
    return {name: arrays[name] for name in used}


def _exported(
    program: Callable[..., Any],
    weights: Mapping[str, np.ndarray],
    image_size: int | None,
    labelled: bool,
    platforms: Sequence[str],
) -> tuple[export.Exported, bool]:
    """The exported program, and whether it takes square images alone."""
    if image_size is not None:
        (batch,) = export.symbolic_shape("b")
        shape = (batch, image_size, image_size, 3)
        return _export(program, weights, shape, labelled, platforms), True
    for width in ("w", "h"):  # the most general first
        text = f"b, {MULTIPLE}*h, {MULTIPLE}*{width}, 3"
        shape = export.symbolic_shape(text)
        try:
            return _export(program, weights, shape, labelled, platforms), width == "h"
        # Python code that needs a number for what has none raises any of these.
        except (TypeError, ValueError, jax.errors.InconclusiveDimensionOperation) as e:
            reason = e
    raise InputError(
        "this masker's networks cannot be exported for images of any size "
        f"({str(reason).splitlines()[0]:.80}): name one, image_size"
    ) from reason


def _export(
    program: Callable[..., Any],
    weights: Mapping[str, np.ndarray],
    image_shape: tuple[Any, ...],
    labelled: bool,
    platforms: Sequence[str],
) -> export.Exported:
    described = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in weights.items()
    }
    images = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    labels = [jax.ShapeDtypeStruct(image_shape[:1], jnp.int32)] * labelled
    make = export.export(jax.jit(program), platforms=tuple(platforms))
    return make(described, images, *labels)
