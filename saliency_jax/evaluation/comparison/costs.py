"""What a row's maps cost: images per second, compilation, the peak of memory."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

_STATUS = Path("/proc/self/status")
_FORGET_PEAK = Path("/proc/self/clear_refs")


class Cost(NamedTuple):
    """What maps took.

    Attributes:
      first_seconds: of the first call, compilation included.
      seconds: of all later calls.
      images: of all later calls.
      peak_bytes: the greatest memory during a call, of the device or, on a CPU, of this
        process; 0 where the system does not tell.
    """

    first_seconds: float = 0.0
    seconds: float = 0.0
    images: int = 0
    peak_bytes: int = 0


def _forget_peak() -> None:
    """Lets `_peak_bytes` count from here on, where the system can."""
    try:
        _FORGET_PEAK.write_text("5")
    except OSError:
        return


def _peak_bytes() -> int:
    """The greatest memory since `_forget_peak`; of a GPU since the program's start."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "peak_bytes_in_use" in statistics:
        return int(statistics["peak_bytes_in_use"])
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


def call(
    cost: Cost, function: Callable[..., Any], *arguments: Any, images: int
) -> tuple[Any, Cost]:
    """Calls what makes maps, and adds what it took.

    Args:
      cost: so far.
      function: whose result is waited for.
      *arguments: of it.
      images: how many it makes maps of, those that pad a batch too.
    """
    _forget_peak()
    start = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    taken = time.perf_counter() - start
    cost = cost._replace(peak_bytes=max(cost.peak_bytes, _peak_bytes()))
    if not cost.first_seconds:
        return result, cost._replace(first_seconds=taken)
    return result, cost._replace(
        seconds=cost.seconds + taken, images=cost.images + images
    )
