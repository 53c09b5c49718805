"""Find the pixels that a classification rests on."""

import importlib
import os
from typing import Any

# OpenCV reads it when it is imported. By default a file of some kilobytes can make it
# take 3 GB; `data/builders/image_memory.py` says where the number comes from.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "111848106")

from saliency_jax.errors import InputError

_LAZY = {
    "Classifier": "saliency",
    "Masker": "saliency",
    "export_masker": "export.exporting",
    "load_classifier": "loading",
    "load_exported": "export.loading",
    "load_masker": "saliency",
    "saliency_fn": "saliency",
}

__all__ = ["InputError", *_LAZY]


def __getattr__(name: str) -> Any:
    # Worker processes of the input pipeline import this package and need no JAX.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"saliency_jax.{_LAZY[name]}"), name)
