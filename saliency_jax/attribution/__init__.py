"""Saliency of any classifier in JAX, without training a network for it."""
