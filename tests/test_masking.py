"""Edited images: the identities that masking must keep, and values by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.masking import (
    mask_area,
    masked_in,
    masked_out,
    mean_infill,
    to_float,
)
from saliency_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD, normalise

KEY_IMAGES, KEY_MASKS = jax.random.split(jax.random.key(0))
IMAGES = jax.random.uniform(KEY_IMAGES, (2, 4, 6, 3))
MASKS = jax.random.uniform(KEY_MASKS, (2, 4, 6))
INFILL = mean_infill(IMAGENET_MEAN)


def test_to_float_scales_uint8_and_passes_floats():
    pixels = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(to_float(pixels).ravel(), [0, 0.2, 1], rtol=1e-6)
    assert to_float(IMAGES) is IMAGES


def test_values_by_hand():
    image = jnp.full((1, 1, 1, 3), 0.8)
    mask = jnp.full((1, 1, 1), 0.25)
    infill = jnp.array([0.0, 0.4, 1.0]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(
        masked_in(image, mask, infill).ravel(), [0.2, 0.5, 0.95], rtol=1e-6
    )
    np.testing.assert_allclose(
        masked_out(image, mask, infill).ravel(), [0.6, 0.7, 0.85], rtol=1e-6
    )


def test_the_two_parts_sum_to_image_and_infill():
    both = masked_in(IMAGES, MASKS, INFILL) + masked_out(IMAGES, MASKS, INFILL)
    np.testing.assert_allclose(both, np.asarray(IMAGES) + np.asarray(INFILL), atol=1e-6)


@pytest.mark.parametrize("infill", [INFILL, IMAGES[::-1], jnp.zeros((1, 1, 1, 3))])
def test_full_and_empty_masks(infill):
    ones, zeros = jnp.ones_like(MASKS), jnp.zeros_like(MASKS)
    np.testing.assert_array_equal(masked_in(IMAGES, ones, infill), IMAGES)
    np.testing.assert_array_equal(masked_out(IMAGES, zeros, infill), IMAGES)
    filled = np.broadcast_to(infill, IMAGES.shape)
    np.testing.assert_array_equal(masked_in(IMAGES, zeros, infill), filled)
    np.testing.assert_array_equal(masked_out(IMAGES, ones, infill), filled)


def test_masked_out_with_the_mean_is_the_product_in_normalised_space():
    """casme's train.py removes by `x * (1 - m)` after normalisation."""
    hidden = normalise(masked_out(IMAGES, MASKS, INFILL), IMAGENET_MEAN, IMAGENET_STD)
    product = normalise(IMAGES) * (1 - MASKS[..., None])
    np.testing.assert_allclose(hidden, product, atol=1e-5)


def test_area_is_the_kept_share():
    mask = jnp.zeros((2, 4, 6)).at[0, :2, :3].set(1.0).at[1].set(0.5)
    np.testing.assert_allclose(mask_area(mask), [0.25, 0.5])
