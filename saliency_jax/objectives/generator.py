"""The two losses of a generative adversarial network, per example.

Goodfellow et al.: Generative adversarial networks (arXiv 1406.2661), the generator's in
the form that does not saturate. The label of real images is 0.9 (one-sided smoothing),
as in Thakur and Fischmeister's code.
"""

import optax
from jaxtyping import Array, Float

REAL_LABEL = 0.9


def discriminator_loss(
    real_logits: Float[Array, "B"],
    fake_logits: Float[Array, "B"],
    real_label: float = REAL_LABEL,
) -> Float[Array, "B"]:
    """`BCE(D(x), real_label) + BCE(D(G(z)), 0)` of each pair, in nats.

    Args:
      real_logits: of the discriminator for images of the data.
      fake_logits: for generated ones.
      real_label: the probability that is asked for of the first.
    """
    real = optax.sigmoid_binary_cross_entropy(real_logits, real_label)
    return real + optax.sigmoid_binary_cross_entropy(fake_logits, 0.0)


def generator_loss(fake_logits: Float[Array, "B"]) -> Float[Array, "B"]:
    """`BCE(D(G(z)), 1) = -log sigmoid(logit)` of each generated image, in nats."""
    return optax.sigmoid_binary_cross_entropy(fake_logits, 1.0)
