"""CASM's step on growing numbers of a CPU's virtual devices.

They share the cores, so what is counted is work: the processor time of all devices
together. A step of the same global batch would ideally cost the same on any number.
"""

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from benchmarks import casm
from benchmarks.growth.curves import Curve, Measured, measure
from benchmarks.growth.step import SLOTS, WHAT, Setting, two_steps
from benchmarks.messages import messages_of
from saliency_jax.compilation_cache import use_compilation_cache
from saliency_jax.training import sharding

PER_DEVICE = 2
"""Images on each device, where the batch grows with them."""


def over_devices(
    setting: Setting, numbers: Sequence[int], rounds: int, seconds: float
) -> list[Measured]:
    """Over the devices; in a process of its own, which has as many."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as child:
        return child.submit(_in_child, setting, numbers, rounds, seconds).result()


def _in_child(
    setting: Setting, numbers: Sequence[int], rounds: int, seconds: float
) -> list[Measured]:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(numbers))
    use_compilation_cache()
    images = PER_DEVICE * max(numbers)
    all_images = setting._replace(batch_size=images)
    curves = [
        Curve(
            f"{WHAT}, {images} images in all",
            {n: two_steps(all_images, _mesh(n)) for n in numbers},
        ),
        Curve(
            f"the same, {PER_DEVICE} images on each device",
            {
                n: two_steps(setting._replace(batch_size=PER_DEVICE * n), _mesh(n))
                for n in numbers
            },
        ),
        Curve("a classifier's gradient summed", {n: _sum(setting, n) for n in numbers}),
    ]
    measured = measure(curves, clock="processor", rounds=rounds, seconds=seconds)
    return measured + _messages(setting, [n for n in numbers if n > 1])


def _sum(setting: Setting, number: int) -> Callable[[], object]:
    """The largest message alone: what of a step's growth is the CPU's way to sum."""
    mesh = _mesh(number)
    _, _, state = casm.contestant(
        setting.network, setting.image_size, mesh, classes=setting.classes
    )
    summed = jax.jit(
        jax.shard_map(
            lambda tree: jax.lax.psum(tree, "data"),
            mesh=mesh,
            in_specs=P("data"),
            out_specs=P("data"),
        )
    )
    gradients = jax.tree.map(
        lambda leaf: jnp.zeros((number, *leaf.shape)), state.classifier.params
    )
    gradients = jax.device_put(gradients, sharding.by_batch(mesh))
    return lambda: jax.block_until_ready(summed(gradients))


def _messages(setting: Setting, numbers: Sequence[int]) -> list[Measured]:
    """What the devices of a step against the current critic tell each other."""
    if len(numbers) < 2:
        return []
    counts, sizes = [], []
    for number in numbers:
        mesh = _mesh(number)
        step, _, state = casm.contestant(
            setting.network,
            setting.image_size,
            mesh,
            classes=setting.classes,
            slots=SLOTS,
        )
        size, side = PER_DEVICE * number, setting.image_size
        batch = {
            "image": jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((size,), jnp.int32),
        }
        with jax.set_mesh(mesh):
            compiled = step.lower(state, batch, False).compile()
        messages = messages_of(compiled.as_text()).values()
        counts.append(float(sum(count for count, _ in messages)))
        sizes.append(sum(size for _, size in messages) / 1e6)
    return [
        Measured("messages of a step", "", numbers, [counts]),
        Measured("their results", "MB", numbers, [sizes]),
    ]


def _mesh(number: int) -> jax.sharding.Mesh:
    return sharding.data_mesh(jax.devices()[:number])
