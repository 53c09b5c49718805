"""Saliency of any classifier in JAX, without training a network for it.

Every method is a pure function with one call,

    maps = attribution.grad_cam(classifier, images, targets, batch_size=8)

on a `Classifier` or any function from images to logits; `attribution.methods()` lists
them with their options.
"""

import importlib
from collections.abc import Callable
from typing import Any

from saliency_jax.attribution.layers import Unit
from saliency_jax.attribution.registry import FILE_OF, Method, describe
from saliency_jax.errors import InputError, unknown

__all__ = ["Method", "Unit", "get", "methods"]


def get(name: str) -> Callable[..., Any]:
    """Returns the method of that name, such as "grad_cam".

    Raises:
      InputError: there is none; the message names the nearest, and lists all.
    """
    if name not in FILE_OF:
        raise InputError(unknown("method", name, FILE_OF))
    file = importlib.import_module(f"saliency_jax.attribution.{FILE_OF[name]}")
    return getattr(file, name)


def methods() -> dict[str, Method]:
    """Returns what is known of every method, by name."""
    return {name: describe(name, get(name)) for name in FILE_OF}


def __getattr__(name: str) -> Any:
    if name not in FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return get(name)
