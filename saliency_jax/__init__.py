"""Find the pixels that a classification rests on."""

import importlib
from typing import Any

from saliency_jax.errors import InputError

_LAZY = ("Classifier", "Masker", "load_masker", "saliency_fn")

__all__ = ["InputError", *_LAZY]


def __getattr__(name: str) -> Any:
    # Worker processes of the input pipeline import this package and need no JAX.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("saliency_jax.saliency"), name)
