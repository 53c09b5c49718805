"""The adversarial losses, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.objectives.generator import discriminator_loss, generator_loss


def test_where_the_discriminator_cannot_tell():
    """Probability one half: ln 2 for each image, whatever the label."""
    zeros = jnp.zeros(2)
    np.testing.assert_allclose(discriminator_loss(zeros, zeros), 2 * np.log(2))
    np.testing.assert_allclose(generator_loss(zeros), np.log(2), rtol=1e-6)


def test_by_the_definition_of_cross_entropy():
    real, fake = np.array([2.0, -1.0]), np.array([0.5, -3.0])
    p, q = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
    expected = -(0.9 * np.log(p) + 0.1 * np.log(1 - p)) - np.log(1 - q)
    losses = discriminator_loss(jnp.float32(real), jnp.float32(fake))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(generator_loss(jnp.float32(fake)), -np.log(q), rtol=1e-5)


def test_the_smoothed_label_is_met_at_its_own_logit():
    """BCE(sigmoid(l), 0.9) is least where sigmoid(l) = 0.9, l = ln 9."""
    grid = jnp.linspace(0.0, 5.0, 501)
    losses = discriminator_loss(grid, jnp.zeros(501))
    assert float(grid[losses.argmin()]) == pytest.approx(np.log(9), abs=0.01)
    without = discriminator_loss(grid, jnp.zeros(501), 1.0)
    assert int(without.argmin()) == 500
