"""Find the pixels that a classification rests on."""

from saliency_jax.errors import InputError
from saliency_jax.saliency import Masker, load_masker, saliency_fn

__all__ = ["InputError", "Masker", "load_masker", "saliency_fn"]
