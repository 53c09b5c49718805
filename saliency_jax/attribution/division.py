"""Division where the divisor may be zero."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def quotient(
    dividend: Float[Array, "..."], divisor: Float[Array, "..."]
) -> Float[Array, "..."]:
    """The quotient, and 0 where the divisor is 0: there the gradients are 0 too."""
    defined = divisor != 0
    # Two selections: with one the gradient of what is not selected would be NaN.
    return jnp.where(defined, dividend / jnp.where(defined, divisor, 1), 0)
