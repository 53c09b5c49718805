"""Quotients: 0 where the divisor is 0, and gradients without NaN."""

import jax
import jax.numpy as jnp
import numpy as np

from saliency_jax.attribution.division import quotient


def test_values_and_gradients():
    dividend, divisor = jnp.array([3.0, 3.0, 0.0]), jnp.array([-2.0, 0.0, 0.0])
    np.testing.assert_array_equal(quotient(dividend, divisor), [-1.5, 0, 0])
    of_both = jax.grad(lambda *x: jnp.sum(quotient(*x)), (0, 1))
    of_dividend, of_divisor = of_both(dividend, divisor)
    np.testing.assert_array_equal(of_dividend, [-0.5, 0, 0])
    np.testing.assert_array_equal(of_divisor, [-0.75, 0, 0])


def test_type():
    assert quotient(jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.bfloat16)).dtype == (
        jnp.bfloat16
    )
