"""Find the pixels that a classification rests on."""

import importlib
import os
from typing import Any

# OpenCV reads it when it is imported. By default a file of some kilobytes can make it
# take 3 GB; this many pixels take half of one, and are as many as Pillow reads.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2 * 89_478_485))

from saliency_jax.errors import InputError

_LAZY = {
    "Classifier": "saliency",
    "Masker": "saliency",
    "load_classifier": "loading",
    "load_masker": "saliency",
    "saliency_fn": "saliency",
}

__all__ = ["InputError", *_LAZY]


def __getattr__(name: str) -> Any:
    # Worker processes of the input pipeline import this package and need no JAX.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"saliency_jax.{_LAZY[name]}"), name)
