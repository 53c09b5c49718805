"""Named streams of keys, derived from (seed, stream, step) and never stored."""

import zlib

import jax
import numpy as np
from jaxtyping import Array, Int, Key


def stream_key(
    root: Key[Array, ""], stream: str, step: int | Int[Array, ""] = 0
) -> Key[Array, ""]:
    """Returns the key of `stream` at `step`.

    Args:
      root: the key of the run, `jax.random.key(seed)`; never consumed itself.
      stream: what the randomness is for, such as "pool_slot".
      step: the training step, so that a resumed run draws what the first would have.
    """
    named = jax.random.fold_in(root, zlib.crc32(stream.encode()) & 0x7FFFFFFF)
    return jax.random.fold_in(named, step)


def host_generator(seed: int, stream: str, step: int) -> np.random.Generator:
    """The same for a choice that the host makes, without waiting for the device."""
    return np.random.default_rng([seed, zlib.crc32(stream.encode()), step])
