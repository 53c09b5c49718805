"""How long the parts of a pass take."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the wall time of a block to `seconds[name]`."""
    start = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - start


def call_timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Calls a function; also returns the processor seconds that this thread took."""
    start = time.thread_time()
    result = function(*arguments)
    return result, time.thread_time() - start
