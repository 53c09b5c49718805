"""What `create.py` knows of a network that a config can name."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from saliency_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD


class Backbone(NamedTuple):
    """A network that a config can name.

    Attributes:
      create: called as `create(num_classes=K, dtype=..., **options)`; returns a module
        that maps (normalised images, train) to (float32 logits `[B, K]`, maps with the
        finest first) and has an attribute `dtype`.
      options: which of the options in `create.OPTIONS` it has, with their defaults.
      mean: of its input, for images in [0, 1], where neither the config nor the weights
        name another.
      std: likewise.
    """

    create: Callable[..., nn.Module]
    options: Mapping[str, Any]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
