"""CASM's step and its pool at growing sizes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks import casm
from benchmarks.growth.curves import Curve
from saliency_jax import pool as pools
from saliency_jax.models import create
from saliency_jax.training import sharding

SLOTS = 2
"""Of the pool, where it is not what grows."""

WHAT = "two steps of CASM, against either critic"


class Setting(NamedTuple):
    """What does not grow.

    Attributes:
      network: of the classifier, by its name.
      image_size: side in pixels.
      batch_size: images in a batch.
      classes: that the classifier tells apart.
    """

    network: str
    image_size: int
    batch_size: int
    classes: int


def over_pixels(setting: Setting, sides: Sequence[int]) -> list[Curve]:
    """Over the pixels of an image, which are the square of its side."""
    takes = {side**2: two_steps(setting._replace(image_size=side)) for side in sides}
    return [Curve(WHAT, takes)]


def over_batch(setting: Setting, sizes: Sequence[int]) -> list[Curve]:
    """Over the images in a batch."""
    takes = {size: two_steps(setting._replace(batch_size=size)) for size in sizes}
    return [Curve(WHAT, takes)]


def over_classes(setting: Setting, numbers: Sequence[int]) -> list[Curve]:
    """Over the classes, which widen the last layer and every entry of the pool."""
    takes = {number: two_steps(setting._replace(classes=number)) for number in numbers}
    return [Curve(WHAT, takes)]


def over_pool(setting: Setting, slots: Sequence[int]) -> list[Curve]:
    """Over the entries that a pool has room for."""
    return [
        Curve("push and draw", {n: push_and_draw(setting, n) for n in slots}),
        Curve(WHAT, {n: two_steps(setting, slots=n) for n in slots}),
    ]


def two_steps(
    setting: Setting, mesh: Mesh | None = None, slots: int = SLOTS
) -> Callable[[], None]:
    """A call that takes a step against the current and one against a past critic.

    Args:
      setting: of the network and the batch, which is of noise.
      mesh: of the devices; by default of the first alone.
      slots: of the pool.
    """
    mesh = mesh or sharding.data_mesh(jax.devices()[:1])
    step, init, _ = casm.contestant(
        setting.network, setting.image_size, mesh, classes=setting.classes, slots=slots
    )
    # One of a list, as the step's input is donated.
    state = [init(jax.random.key(0))]
    rng = np.random.default_rng(0)
    size, side = setting.batch_size, setting.image_size
    batch = {
        "image": rng.integers(0, 256, (size, side, side, 3), np.uint8),
        "label": rng.integers(0, setting.classes, size).astype(np.int32),
    }
    batch = jax.device_put(batch, sharding.by_batch(mesh))

    def take() -> None:
        with jax.set_mesh(mesh):
            for historic in (False, True):
                state[0], metrics = step(state[0], batch, historic)
        jax.block_until_ready((state[0], metrics))

    return take


def push_and_draw(setting: Setting, slots: int) -> Callable[[], None]:
    """A call that puts a classifier into a pool and takes one out of it."""
    module = create.create_classifier(
        {
            "network": setting.network,
            "num_classes": setting.classes,
            "dtype": "float32",
        }
    )
    init = partial(create.init_networks, module, None, image_size=setting.image_size)
    networks = jax.jit(init)(jax.random.key(0))
    new = networks["classifier"]["params"], networks["classifier"]["batch_stats"]
    pool = [pools.init_pool(*new, slots)]

    @partial(jax.jit, donate_argnums=0)
    def both(pool: pools.ClassifierPool, new: tuple) -> tuple:
        to_push, to_draw = jax.random.split(jax.random.key(0))
        pool = pools.push(pool, *new, step=pool.count, key=to_push)
        return pool, pools.draw(pool, to_draw)

    def take() -> None:
        pool[0], drawn = both(pool[0], new)
        jax.block_until_ready((pool[0], drawn))

    return take
