"""A classifier: a network, its variables and the normalisation of its input."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from saliency_jax.masking import to_float
from saliency_jax.types import PyTree

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(
    images: Num[Array | np.ndarray, "... H W C"],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Float[Array, "... H W C"]:
    """Returns `(images - mean) / std` in float32.

    Args:
      images: uint8 in [0, 255] or floating in [0, 1], channels last.
      mean: of each channel, for images in [0, 1].
      std: of each channel, for images in [0, 1].

    Raises:
      InputError: the images have another integer type, whose range is unknown.
    """
    images = to_float(jnp.asarray(images))
    shape = (1,) * (images.ndim - 1) + (len(mean),)
    mean_array = np.asarray(mean, np.float32).reshape(shape)
    std_array = np.asarray(std, np.float32).reshape(shape)
    return (images.astype(jnp.float32) - mean_array) / std_array


@flax.struct.dataclass
class Classifier:
    """A classifier that is a pytree: pass it to jitted code as an argument.

    New weights of the same shapes then never recompile; `jax.tree.map`, `jax.grad`
    and sharding see the variables, the rest is static.

    Attributes:
      variables: `{"params": ..., "batch_stats": ...}` of the module.
      module: a network that returns (logits, taps), such as `resnet.ResNet`.
      mean: of each channel, for images in [0, 1].
      std: of each channel, for images in [0, 1].
    """

    variables: PyTree
    module: nn.Module = flax.struct.field(pytree_node=False)
    mean: tuple[float, ...] = flax.struct.field(
        pytree_node=False, default=IMAGENET_MEAN
    )
    std: tuple[float, ...] = flax.struct.field(pytree_node=False, default=IMAGENET_STD)

    def __call__(
        self, images: Num[Array | np.ndarray, "B H W C"]
    ) -> Float[Array, "B K"]:
        """Returns the logits of uint8 or [0, 1] images, with running statistics."""
        return self.features(images)[0]

    def features(
        self, images: Num[Array | np.ndarray, "B H W C"]
    ) -> tuple[Float[Array, "B K"], Any]:
        """Returns the logits and the module's maps, with running statistics."""
        normalised = normalise(images, self.mean, self.std)
        return self.module.apply(self.variables, normalised, False)
