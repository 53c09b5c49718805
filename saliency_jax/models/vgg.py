"""VGG with torchvision's geometry and names, with and without BatchNorm.

Simonyan and Zisserman: Very deep convolutional networks for large-scale image
recognition (arXiv 1409.1556), columns A, B, D and E. The two dropouts of the head are
left out, so that a training step needs no random key for them.
"""

from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from saliency_jax.models.backbone import Backbone
from saliency_jax.models.layers import (
    batch_norm,
    check_size,
    conv_layer,
    he_normal_fan_out,
    max_pool_2x2,
    normal_hundredth,
)
from saliency_jax.models.weight_names import WeightNames, torch_names

CELLS = 7  # of a side, that the head reads
SMALLEST = 32  # pixels: five poolings halve them


def layer_name(path: tuple[str, ...]) -> str:
    """Returns torchvision's name of a layer: "features_28" is "features.28"."""
    return path[0].replace("_", ".")


def cell_weights(side: int, cells: int) -> Float[np.ndarray, "cells side"]:
    """Returns the weights of a side's places in PyTorch's adaptive average pooling.

    Cell i is the mean of the places from floor(i side / cells) up to, and without,
    ceil((i + 1) side / cells). The windows overlap where the division leaves a rest,
    and repeat places where there are more cells than those.
    """
    weights = np.zeros((cells, side), np.float32)
    for cell in range(cells):
        start, end = cell * side // cells, -(-(cell + 1) * side // cells)
        weights[cell, start:end] = 1 / (end - start)
    return weights


def adaptive_mean(x: Float[Array, "B h w C"], cells: int) -> Float[Array, "B C D"]:
    """Returns the means of D = `cells * cells` windows, channels first.

    PyTorch flattens maps in this order, so what comes next has its weights as they are.
    There is no map of the size of the cells in between: attribution would take that for
    the last maps of the network, although it may be a blown-up copy of smaller ones.
    """
    size = x.shape[1:3]
    pixels = x.reshape(x.shape[0], -1, x.shape[-1])
    if size == (cells, cells):
        return pixels.swapaxes(1, 2)
    rows, columns = (cell_weights(side, cells) for side in size)
    weights = jnp.asarray(np.kron(rows, columns), x.dtype)
    return jnp.einsum("bpc,dp->bcd", pixels, weights)


class VGG(nn.Module):
    """A VGG over images of any size from 32 pixels.

    Attributes:
      blocks: how many convolutions come before each of the five poolings.
      norm: whether BatchNorm follows each of them.
      num_classes: K.
      width: channels of the first block; later ones have up to eight times that, the
        hidden layers of the head 64 times.
      epsilon: of BatchNorm.
      dtype: of the computation; parameters, batch statistics and logits stay float32.
    """

    blocks: tuple[int, ...]
    norm: bool
    num_classes: int
    width: int = 64
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    weight_names: ClassVar[WeightNames] = torch_names(layer_name, head="classifier.6")

    @nn.compact
    def __call__(
        self, images_normalised: Float[Array, "B H W 3"], train: bool
    ) -> tuple[Float[Array, "B K"], tuple[Float[Array, "B h w C"], ...]]:
        """Returns the logits and five maps.

        Args:
          images_normalised: images after `classifier.normalise`.
          train: normalise with the batch's statistics and update the running ones
            (pass `mutable=["batch_stats"]`), if there are any.

        Returns:
          float32 logits `[B, K]`, and the maps after the second pooling (at 1/4 of the
          image), the last activations of blocks 3 (1/4), 4 (1/8) and 5 (1/16), and
          after the fifth pooling (1/32), in `dtype`.

        Raises:
          InputError: the images are smaller than 32 pixels.
        """
        check_size(images_normalised, SMALLEST, "a VGG")
        x, taps = images_normalised, []
        number = 0  # torchvision counts ReLU and pooling too
        for block, convolutions in enumerate(self.blocks, start=1):
            for _ in range(convolutions):
                x = conv_layer(train)(
                    self.width * min(2 ** (block - 1), 8),
                    (3, 3),
                    padding=1,
                    dtype=self.dtype,
                    kernel_init=he_normal_fan_out,
                    name=f"features_{number}",
                )(x)
                if self.norm:
                    number += 1
                    norm = batch_norm(
                        f"features_{number}", train, self.dtype, self.epsilon
                    )
                    x = norm(x)
                x = nn.relu(x)
                number += 2
            if block > 2:
                taps.append(x)
            x = max_pool_2x2(x, train)
            number += 1
            if block in (2, 5):
                taps.append(x)

        dense = partial(nn.Dense, kernel_init=normal_hundredth)
        x = adaptive_mean(x, CELLS).reshape(x.shape[0], -1)
        for name in ("classifier_0", "classifier_3"):
            x = nn.relu(dense(64 * self.width, dtype=self.dtype, name=name)(x))
        logits = dense(self.num_classes, name="classifier_6")(x.astype(jnp.float32))
        return logits, tuple(taps)


BLOCKS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
OPTIONS = {"": {"width": 64}, "_bn": {"width": 64, "epsilon": 1e-5}}


BACKBONES = {
    f"{name}{suffix}": Backbone(partial(VGG, blocks, suffix == "_bn"), options=options)
    for name, blocks in BLOCKS.items()
    for suffix, options in OPTIONS.items()
}
