"""What a weights file says of the network it was made for, besides the weights.

A safetensors file may carry text. These three entries are read, in the forms that
published files have; another form is not guessed at, for a wrong guess would give wrong
answers without a word:

    input         RGB 224x224, uint8/127.5-1
                  RGB 224x224, (uint8-127)*0.007843137718737125
                  RGB 224x224, ImageNet mean/std normalised
    padding       TensorFlow SAME | Keras: ... | PyTorch symmetric
    architecture  ... width 1.0 ... | ... alpha 0.75 ...  and  ... eps 1e-5 ...
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from saliency_jax.errors import InputError
from saliency_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD

NUMBER = r"([0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)"
DIVIDED = re.compile(rf"\buint8 */ *{NUMBER} *- *{NUMBER}$")
SCALED = re.compile(rf"\( *uint8 *- *{NUMBER} *\) *\* *{NUMBER}$")
# As Python's floats: a comparison with NumPy's warns of what is larger.
TINY, HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
WIDTH = re.compile(rf"\b(?:width|alpha) {NUMBER}")
EPSILON = re.compile(rf"\beps {NUMBER}")
PADDING_STARTS = {
    "TensorFlow SAME": "tensorflow",
    "Keras": "keras",
    "PyTorch symmetric": "symmetric",
}


class Unclear(NamedTuple):
    """An entry that is there and in no known form: whoever needs it has to ask."""

    entry: str
    text: str


def unreadable_safetensors(path: str | Path, error: Exception) -> InputError:
    """The error for a file that is damaged or of another kind."""
    return InputError(
        f"weights file {path} is not a readable safetensors file ({error}); "
        "download it again"
    )


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text that a weights file carries; a PyTorch file carries none.

    Raises:
      InputError: it is not a readable safetensors file.
    """
    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise unreadable_safetensors(path, error) from error


def told_by_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the text says, by the names of a config's fields.

    Fields of which it says nothing are absent; those of an entry in no known form are
    `Unclear`.
    """
    told = {}
    if "input" in metadata:
        told["data.mean"], told["data.std"] = normalisation(metadata["input"])
    if "padding" in metadata:
        told["classifier.padding"] = _padding(metadata["padding"])
    architecture = metadata.get("architecture", "")
    if found := WIDTH.search(architecture):
        told["classifier.width_multiplier"] = float(found[1])
    if found := EPSILON.search(architecture):
        told["classifier.epsilon"] = float(found[1])
    return told


def normalisation(
    text: str,
) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[Unclear, Unclear]:
    """The mean and std, for images in [0, 1], that a description amounts to.

    For example "uint8/127.5-1" is (x - 0.5) / 0.5.
    """
    if not re.match(r"RGB\b", text):
        return Unclear("input", text), Unclear("input", text)
    if "ImageNet mean/std" in text:
        return IMAGENET_MEAN, IMAGENET_STD
    mean = std = math.nan
    if found := DIVIDED.search(text):
        divisor, shift = (float(number) for number in found.groups())
        mean, std = shift * divisor / 255, divisor / 255
    elif found := SCALED.search(text):
        shift, factor = (float(number) for number in found.groups())
        mean, std = shift / 255, 1 / (255 * factor) if factor else math.inf
    # No input was scaled by nought or infinity, and the networks reckon in float32.
    if not (mean <= HUGE and TINY <= std <= HUGE):
        return Unclear("input", text), Unclear("input", text)
    return 3 * (mean,), 3 * (std,)


def _padding(text: str) -> str | Unclear:
    for start, padding in PADDING_STARTS.items():
        if text.startswith(start):
            return padding
    return Unclear("padding", text)
