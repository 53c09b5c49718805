"""Networks as a user might write them, good and bad, for `package.module:function`."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from saliency_jax.models.classifier import Classifier
from saliency_jax.models.weight_names import torch_names


class Small(nn.Module):
    """Two maps of four channels."""

    num_classes: int
    norm: str = "none"
    dtype: Any = jnp.float32

    weight_names = torch_names(lambda path: ".".join(path), head="Dense_0")

    @nn.compact
    def __call__(self, images, train):
        x, maps = images, []
        for _ in range(2):
            x = nn.Conv(4, (3, 3), strides=2, dtype=self.dtype)(x)
            if self.norm == "batch":
                x = nn.BatchNorm(use_running_average=not train)(x)
            if self.norm == "group":
                x = nn.GroupNorm(num_groups=2)(x)
            x = nn.relu(x)
            maps.append(x)
        return nn.Dense(self.num_classes)(x.mean((1, 2))), tuple(maps)


def plain(num_classes):
    return Small(num_classes)


def batch_norm(num_classes):
    return Small(num_classes, "batch")


def group_norm(num_classes):
    return Small(num_classes, "group")


def any_dtype(num_classes, **options):
    return Small(num_classes, **options)


class Pooled(nn.Module):
    """Logits alone, of the colour; the attributes say what is odd about them."""

    num_classes: int
    dtype: Any = jnp.float32
    dropout: float = 0.0
    counts: bool = False
    divisor: int = 1
    sizes: Any = ()

    @nn.compact
    def __call__(self, images, train):
        x = images.mean((1, 2)) * (1 // self.divisor)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        if self.counts:
            self.variable("counters", "calls", jnp.zeros, ())
        return nn.Dense(self.num_classes, name="users_head")(x).astype(self.dtype)


def logits_alone(num_classes):
    return Pooled(num_classes)


def too_few_logits(num_classes):
    return Pooled(num_classes - 1)


def half_logits(num_classes):
    return Pooled(num_classes, jnp.bfloat16)


def dropout(num_classes):
    return Pooled(num_classes, dropout=0.5)


def other_variables(num_classes):
    return Pooled(num_classes, counts=True)


def with_a_list(num_classes):
    return Pooled(num_classes, sizes=[1, 2])


def fails_when_called(num_classes):
    return Pooled(num_classes, divisor=0)


def fails(num_classes):
    raise ZeroDivisionError(f"of {num_classes} classes")


class Other(Small):
    """The network of two maps; its answer goes through a function."""

    answer: Any = None

    def __call__(self, images, train):
        return self.answer(*super().__call__(images, train))


def three_answers(num_classes):
    return Other(num_classes, answer=lambda logits, maps: (logits, maps, maps))


def a_dictionary(num_classes):
    return Other(num_classes, answer=lambda logits, maps: {"logits": logits})


def flat_maps(num_classes):
    flat = lambda logits, maps: (logits, [x.mean((1, 2)) for x in maps])
    return Other(num_classes, answer=flat)


def no_maps(num_classes):
    return Other(num_classes, answer=lambda logits, maps: (logits, None))


def one_map(num_classes):
    return Other(num_classes, answer=lambda logits, maps: (logits, maps[1]))


def without_train(num_classes):
    return nn.Dense(num_classes)


def no_module(num_classes):
    return lambda images, train: jnp.zeros((len(images), num_classes))


def no_arguments():
    return Small(10)


NOT_A_FUNCTION = 3


def darkness(images):
    """Ten logits of images in [0, 1]: which of ten rows of cells is the darkest."""
    images = jnp.asarray(images)
    rows = jnp.array_split(1.0 - images.mean((2, 3)), 10, axis=1)
    return jnp.stack([9.0 * row.mean(axis=1) for row in rows], axis=1)


def brightness_alone(images):
    mean = images.mean((1, 2, 3))
    return jnp.stack([mean, 1 - mean], axis=1)


DARKNESS = Classifier.from_function(darkness)
