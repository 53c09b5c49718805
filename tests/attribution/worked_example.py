"""The network of one convolution whose attributions were worked out by hand.

From captum's tests, with further values derived in NumPy (the project's facts, section
7.3): a 4x4 image of 0 to 15, a 3x3 convolution of ones to two channels with biases -50
and -75, ReLU, a dense layer on the channels-first flattening, ReLU. Its answer is 54.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

IMAGE = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
ANSWER = 54.0


def answer_of(images):
    """Logits of one class; the layers are named conv1 and relu1."""
    convolved = jax.lax.conv_general_dilated(
        images,
        jnp.ones((3, 3, 1, 2)),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    convolved = convolved + jnp.array([-50.0, -75.0]).reshape(1, 1, 1, 2)
    activated = jax.nn.relu(checkpoint_name(convolved, "conv1"))
    activated = checkpoint_name(activated, "relu1")
    flat = jnp.transpose(activated, (0, 3, 1, 2)).reshape(len(images), -1)
    weights = jnp.array([1.0] * 5 + [-1.0] * 3)
    return jax.nn.relu(flat @ weights[:, None])
