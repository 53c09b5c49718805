"""Options that make each method fast enough for a test of all of them."""

import functools

import jax
import jax.numpy as jnp

from saliency_jax.attribution.optimised_masks.iterative_mask import IterativeOptions
from saliency_jax.models.create import create_backbone
from saliency_jax.models.selective_masker import SelectiveDecoder, SelectiveMasker
from saliency_jax.saliency import Masker
from tests.attribution.small_network import CLASSES, SIZE, classifier


@functools.cache
def small_masker():
    """A real-time masker with random weights."""
    encoder = create_backbone("resnet10", CLASSES, width=8)
    module = SelectiveMasker(encoder, SelectiveDecoder(CLASSES, base=4))
    one = jnp.zeros((1, SIZE, SIZE, 3)), jnp.zeros(1, int)
    variables = jax.jit(lambda key: module.init(key, *one, False))(jax.random.key(3))
    return Masker(variables, classifier(), module)


CHEAP = {
    "smooth_grad": {"samples": 3},
    "smooth_grad_squared": {"samples": 3},
    "var_grad": {"samples": 3},
    "integrated_gradients": {"steps": 5},
    "blur_integrated_gradients": {"steps": 5, "max_sigma": 8.0},
    "expected_gradients": {"samples": 3},
    "occlusion": {"patch_size": 4, "stride": 3},
    "rise": {"masks": 60, "cells": 4},
    "lime": {"segments": "grid", "samples": 60},
    "kernel_shap": {"segments": "grid", "samples": 60},
    "meaningful_perturbation": {"steps": 4},
    "extremal_perturbation": {"steps": 4},
    "mask_estimation": {"steps": 6, "chains": 3, "grid": 4},
    "iterative_masks": {"options": IterativeOptions(iterations=4, mask_size=8)},
    "trained_masker": lambda: {"masker": small_masker()},
}


def cheap(name):
    """The options of a method in the tests of all methods."""
    options = CHEAP.get(name, {})
    return options() if callable(options) else options
