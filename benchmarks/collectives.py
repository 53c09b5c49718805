r"""What the devices of one CASM step have to tell each other: messages and their bytes.

    python -m benchmarks.collectives [--devices 2,4,8] [--network resnet50] \
        [--image_size 224] [--batch_size 8]

Of the compiled program on so many virtual devices of a CPU; nothing is run. The pool is
once on every device and once split over them, and the step is one against a past
critic. Bytes are those of the results; a ring sends each of an all-reduce nearly twice.
A compiler for another device may join messages, but not those of BatchNorm, which wait
for each other. What a device needs while it takes the step, beside the state, is the
CPU compiler's count, of float32.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks import casm
from benchmarks.messages import messages_of
from saliency_jax.models import create
from saliency_jax.training import sharding

_DEVICES = flags.DEFINE_list("devices", ["2", "4", "8"], "Numbers of devices.")
_NETWORK = flags.DEFINE_enum(
    "network", "resnet50", sorted(create.BACKBONES), "The classifier."
)
_SIZE = flags.DEFINE_integer("image_size", 224, "Side of the images.", 1)
_BATCH = flags.DEFINE_integer("batch_size", 8, "Images on each device.", 1)


def main(argv: Sequence[str]) -> None:
    del argv
    numbers = [int(number) for number in _DEVICES.value]
    jax.config.update("jax_num_cpu_devices", max(numbers))
    print(f"jax {jax.__version__}, {_NETWORK.value}, {_SIZE.value} pixels")
    print("devices  pool        held of it, MB  for the step, MB   messages")
    for number in numbers:
        mesh = sharding.data_mesh(jax.devices()[:number])
        for split in (False, True):
            step, _, state = casm.contestant(
                _NETWORK.value, _SIZE.value, mesh, classes=1000, pool_split=split
            )
            size, side = number * _BATCH.value, _SIZE.value
            batch = {
                "image": jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8),
                "label": jax.ShapeDtypeStruct((size,), jnp.int32),
            }
            with jax.set_mesh(mesh):
                compiled = step.lower(state, batch, True).compile()
            held = sum(
                leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
                for leaf in jax.tree.leaves([state.pool.params, state.pool.batch_stats])
            )
            told = "; ".join(
                f"{count} {kind}, {size / 1e6:.1f} MB"
                for kind, (count, size) in messages_of(compiled.as_text()).items()
            )
            needed = compiled.memory_analysis().temp_size_in_bytes
            place = "split" if split else "everywhere"
            print(
                f"{number:7}  {place:10}  {held / 1e6:14.1f}  {needed / 1e6:16.1f}   "
                f"{told}",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
