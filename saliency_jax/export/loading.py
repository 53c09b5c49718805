"""Loads an exported masker: JAX and the file, neither Flax nor a network's code."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from saliency_jax import described_file
from saliency_jax.errors import InputError
from saliency_jax.masking import check_one_or_more, to_float

KIND = described_file.Kind(
    name="exported masker",
    format="saliency_jax.program",
    version="1",
    written_by="python -m saliency_jax.export",
    again="export the masker again",
)
PROGRAM = "program"
MULTIPLE = 32
"""Of what the sides of images are multiples, where a program takes any size."""


class Interface(NamedTuple):
    """What an exported program is called with.

    Attributes:
      num_classes: of the labels; None where it takes no labels.
      image_size: side in pixels; None: any multiple of `MULTIPLE`.
      square: whether both sides have to be the same.
    """

    num_classes: int | None
    image_size: int | None
    square: bool


def load_exported(path: str | Path) -> Callable[..., Float[Array, "*B H W"]]:
    """Loads an exported masker.

    Args:
      path: of a file that `export_masker` or `python -m saliency_jax.export` wrote.

    Returns:
      A function `masks(images, labels=None)` that takes and gives what
      `saliency_jax.saliency_fn` does, except that the masker of a black box always
      needs labels and that there is at least one image. It compiles once for each
      shape, may be called inside `jax.jit`, but not `jax.vmap`, and has no gradient. It
      raises an `InputError` for images of another size than the program takes.

    Raises:
      InputError: the file is missing, damaged, of another kind or of a JAX that is too
        old or too new, or flatbuffers is not installed.
    """
    path = Path(path)
    metadata, arrays = described_file.read(path, KIND)
    stored = arrays.pop(PROGRAM, np.zeros(0, np.uint8))
    if hashlib.sha256(stored).hexdigest() != metadata.get("sha256"):
        raise InputError(f"exported masker {path} is damaged: {KIND.advice}")
    interface = _interface(path, metadata)
    program = _deserialised(path, stored)
    here = platform_here()
    if here not in program.platforms:
        raise InputError(
            f"exported masker {path} is for {', '.join(program.platforms)}, and JAX "
            f"runs on {here} here: export it again with --platforms={here}"
        )
    asked = [(4, np.float32)] + [(1, np.int32)] * (interface.num_classes is not None)
    weights = [(arrays[name].shape, arrays[name].dtype) for name in sorted(arrays)]
    own, given = program.in_avals[: len(weights)], program.in_avals[len(weights) :]
    if [(aval.shape, aval.dtype) for aval in own] != weights or asked != [
        (len(aval.shape), aval.dtype) for aval in given
    ]:
        raise InputError(
            f"exported masker {path}: its arrays are not those that its program takes: "
            f"{KIND.advice}"
        )
    weights = jax.device_put(arrays)
    run = jax.jit(
        lambda weights, images, *labels: program.call(
            weights, to_float(images).astype(jnp.float32), *labels
        )
    )

    def masks(
        images: Num[Array | np.ndarray, "..."],
        labels: int | Int[Array | np.ndarray, "*B"] | None = None,
    ) -> Float[Array, "*B H W"]:
        """Returns masks in [0, 1], 1 = salient; see `load_exported`."""
        _check_images(images, interface)
        batch = images[None] if images.ndim == 3 else images
        extra = ()
        if interface.num_classes is not None:
            extra = (_labels(labels, images.shape[:-3], interface.num_classes),)
        found = run(weights, batch, *extra)
        return found[0] if images.ndim == 3 else found

    return masks


def platform_here() -> str:
    """What `jax.export` calls the platform that JAX runs on by default."""
    return jax.default_backend().replace("gpu", "cuda")


def _interface(path: Path, metadata: Mapping[str, str]) -> Interface:
    try:
        interface = Interface(**json.loads(metadata.get("interface", "")))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"exported masker {path}: interface: {error}") from error
    count = lambda value: value is None or (type(value) is int and value > 0)
    if (
        not count(interface.num_classes)
        or not count(interface.image_size)
        or not isinstance(interface.square, bool)
    ):
        raise InputError(
            f"exported masker {path}: {interface}: expected whole numbers above 0 or "
            f"null, and true or false; {KIND.advice}"
        )
    return interface


def _deserialised(path: Path, stored: np.ndarray) -> Any:
    check_flatbuffers()
    from jax import export

    try:
        return export.deserialize(bytearray(stored))
    # It has no error of its own: what is wrong shows where a part of it is read.
    except Exception as error:
        raise InputError(
            f"the program of exported masker {path} cannot be read by JAX "
            f"{jax.__version__} ({str(error):.200}): JAX reads exported programs for "
            "six months; export the masker again"
        ) from error


def check_flatbuffers() -> None:
    """Checks for what `jax.export` needs and JAX does not install.

    Raises:
      InputError: it is not there.
    """
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise InputError(
            "exported programs need the package flatbuffers: pip install flatbuffers"
        ) from error


def _check_images(images: Any, interface: Interface) -> None:
    size = interface.image_size
    sides = f"{size}" if size else f"a multiple of {MULTIPLE}"
    same = " the same for both sides" if interface.square and not size else ""
    check_one_or_more(images)
    if images.ndim == 4 and images.shape[0] == 0:
        raise InputError("no image: this program takes a batch of at least one")
    height, width = images.shape[-3:-1]
    fits = (
        {height, width} == {size}
        if size
        else not (height % MULTIPLE or width % MULTIPLE)
    )
    if not fits or (interface.square and height != width) or not height * width:
        raise InputError(
            f"images of {height}x{width} pixels: this program takes {sides} pixels"
            f"{same}; resize the images, or export the masker for their size"
        )


def _labels(
    labels: Any, shape: tuple[int, ...], num_classes: int
) -> Int[Array, "B"] | Int[np.ndarray, "B"]:
    if labels is None:
        raise InputError(
            "this masker explains a class that it is asked for: pass labels, such as "
            "the classes that its classifier predicts"
        )
    if jnp.shape(labels) not in ((), shape):
        raise InputError(
            f"labels of shape {jnp.shape(labels)}: expected one class for each image, "
            f"{shape}, or one number"
        )
    if not isinstance(labels, jax.core.Tracer):  # else inside somebody's jit
        numbers = np.atleast_1d(labels)
        wrong = numbers[(numbers < 0) | (numbers >= num_classes)]
        if wrong.size:
            raise InputError(
                f"label {wrong[0]}: the masker knows classes 0 to {num_classes - 1}"
            )
    labels = jnp.broadcast_to(jnp.asarray(labels, jnp.int32), shape)
    return labels.reshape(-1)
