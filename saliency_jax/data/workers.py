"""Writes shards in this process or in several."""

import contextlib
import functools
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from saliency_jax.data import plan
from saliency_jax.data.builders.recipe import Recipe
from saliency_jax.data.shards import ShardReport, write_shard
from saliency_jax.errors import InputError

_TASKS_WORTH_A_PROCESS = 2000  # a new process takes about as long to start
_SECONDS_BETWEEN_REPORTS = 0.2


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_shards(
    recipe: Recipe,
    plan_path: Path,
    pending: Sequence[plan.Shard],
    folder: Path,
    strict: bool,
    num_workers: int,
    progress: Callable[[int], None],
) -> Iterator[tuple[plan.Shard, ShardReport]]:
    """Writes shards and yields each as it is done, in any order.

    Args:
      recipe: of the data set.
      plan_path: the list of tasks.
      pending: the shards to write.
      folder: of the unfinished data set.
      strict: whether an image that cannot be read stops everything.
      num_workers: processes; 0 takes as many as there are cores and work for them, and
        1 is this process.
      progress: is told how many more tasks are done.

    Raises:
      InputError: if a builder refuses a task.
      OSError: if files cannot be read or written, or a worker process dies or meets an
        error that no builder foresaw, whose traceback it prints.
    """
    if not num_workers:
        tasks = sum(shard.stop - shard.start for shard in pending)
        num_workers = min(cores(), -(-tasks // _TASKS_WORTH_A_PROCESS))
    num_workers = min(num_workers, len(pending))
    write = functools.partial(write_shard, recipe, plan_path, folder=folder)
    if num_workers <= 1:
        for shard in pending:
            yield shard, write(shard, strict=strict, progress=progress)
        return
    yield from _in_processes(
        functools.partial(write, strict=strict), pending, num_workers, progress
    )


def _in_processes(
    write: Callable[..., ShardReport],
    pending: Sequence[plan.Shard],
    num_workers: int,
    progress: Callable[[int], None],
) -> Iterator[tuple[plan.Shard, ShardReport]]:
    # Not forked: JAX and OpenCV may have threads here, whose locks a fork copies.
    context = multiprocessing.get_context("spawn")
    remaining = iter(pending)
    workers: dict[Connection, multiprocessing.process.BaseProcess] = {}
    at_work: dict[Connection, plan.Shard] = {}
    try:
        for _ in range(num_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, write), daemon=True)
            process.start()
            theirs.close()
            workers[ours] = process
            at_work[ours] = next(remaining)
            ours.send(at_work[ours])
        while at_work:
            for connection in wait(list(at_work)):
                message = _receive(connection, workers[connection])
                if isinstance(message, int):
                    progress(message)
                    continue
                if isinstance(message, Exception):
                    raise message
                yield at_work.pop(connection), message
                shard = next(remaining, None)
                if shard is not None:
                    at_work[connection] = shard
                    connection.send(shard)
    finally:
        for process in workers.values():
            process.terminate()
        for process in workers.values():
            process.join()


def _receive(
    connection: Connection, process: multiprocessing.process.BaseProcess
) -> int | Exception | ShardReport:
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        why = ""
        if process.exitcode == -signal.SIGKILL:
            why = " (killed, perhaps for want of memory: try a smaller --num_workers)"
        raise ChildProcessError(
            f"a worker process ended with code {process.exitcode}{why}"
        ) from None


def _work(connection: Connection, write: Callable[..., ShardReport]) -> None:
    """Writes the shards that arrive, until the connection ends.

    It ends when the preparing process does, however that does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other process's
    done, told = 0, time.monotonic()

    def progress(count: int) -> None:
        nonlocal done, told
        done += count
        if time.monotonic() - told > _SECONDS_BETWEEN_REPORTS:
            connection.send(done)
            done, told = 0, time.monotonic()

    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            shard = connection.recv()
            try:
                answer = write(shard, progress=progress)
            except ConnectionError:
                raise
            except (InputError, OSError) as error:
                answer = error
            except Exception as error:
                traceback.print_exc()  # which would not survive the way
                answer = ChildProcessError(
                    f"{type(error).__name__}: {error} "
                    + " ".join(getattr(error, "__notes__", ()))
                )
            connection.send(done)
            done = 0
            connection.send(answer)
