"""Ctrl-C and SIGTERM: a run ends after the step that it is in, with a checkpoint.

An evaluation that is under way is given up, and made up for when the run goes on.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from types import FrameType

from saliency_jax.types import Batch

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], signal.Signals | None]]:
    """Catches the first signal that asks this process to stop; the second one ends it.

    Schedulers send SIGTERM some time before they kill, and people press Ctrl-C: what
    was trained since the last checkpoint is kept. Python hands signals to the main
    thread alone, so in any other one they do what they always do.

    Yields:
      A function that tells which signal came, None so far.
    """
    received: list[signal.Signals] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        restore()
        print(
            f"\n{received[0].name}: the run stops after this step, with a checkpoint; "
            "a second one stops it at once",
            file=sys.stderr,
        )

    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in SIGNALS if is_main}
    # A shell has its background jobs ignore Ctrl-C.
    before = {k: v for k, v in handlers.items() if v is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, receive)
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()


def until(
    received: Callable[[], signal.Signals | None], batches: Generator[Batch]
) -> Iterator[Batch]:
    """Yields batches until a signal has come, but the first in any case."""
    with contextlib.closing(batches):
        for batch in batches:
            yield batch
            if received():
                return


def exit_code(stopped_by: signal.Signals) -> int:
    """The code with which shells and schedulers know a process that a signal ended."""
    return 128 + stopped_by
