"""One program in several processes: how they meet, agree, and end together.

Each process has its own devices, and reads and evaluates its own share of the images.
Arrays of the state lie on all devices of all processes, so that every process has to
take the same steps: whatever one of them alone can know (a file, a signal) is told to
the others before anything is done about it.
"""

import collections
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Shaped

from saliency_jax.errors import InputError, report, unwritable_told
from saliency_jax.training.sharding import by_batch, replicated

T = TypeVar("T")

BY_CLUSTER = "auto"
HEARTBEAT_SECONDS = 20
"""After so long without a sign of life a process counts as dead, and all others end."""

STEPS_UNTIL_AGREED = 2
"""A signal stops all processes so many steps after one has received it: enough that the
host need not wait for the device at every step."""


@contextlib.contextmanager
def joined(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Iterator[None]:
    """Makes this process one of several, for as long as the context lasts.

    An error ends the process at once and not by an exception: at the end of the
    interpreter JAX would wait minutes for the others, which wait for this one.

    Args:
      coordinator: HOST:PORT of process 0, `BY_CLUSTER` where Slurm, Open MPI 4 or
        Kubernetes (to the package `kubernetes`) tell all three, None for a process that
        is alone.
      num_processes: how many there are.
      process_id: which of them this one is, from 0.

    Raises:
      InputError: the three do not go together, or the others are not found.
    """
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise InputError(
                "--num_processes and --process_id are of one process of several: give "
                f"--coordinator HOST:PORT of process 0 too, or --coordinator "
                f"{BY_CLUSTER} alone"
            )
        yield
        return
    _initialise(coordinator, num_processes, process_id)
    if jax.process_index() > 0:  # one log is enough
        sys.stdout = open(os.devnull, "w")
    own = f"process {jax.process_index()} of {jax.process_count()}"
    try:
        with unwritable_told():
            yield
    except InputError as error:
        report(error)
        _leave(2)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        print(
            f"error: {own} cannot go on, most likely since another one ended; start "
            "all of them again with the same command to go on from the last "
            f"checkpoint ({reason:.300})",
            file=sys.stderr,
        )
        _leave(1)
    except KeyboardInterrupt:
        print(f"{own} is stopped by Ctrl-C", file=sys.stderr)
        _leave(130)
    except Exception:
        traceback.print_exc()
        print(f"{own} failed", file=sys.stderr)
        _leave(1)
    jax.distributed.shutdown()


def _initialise(
    coordinator: str, num_processes: int | None, process_id: int | None
) -> None:
    by_cluster = coordinator == BY_CLUSTER
    if not by_cluster:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise InputError(
                f"--coordinator {coordinator} is neither HOST:PORT nor {BY_CLUSTER}: "
                "name the machine of process 0 and a port that is free there"
            )
        if num_processes is None or process_id is None:
            raise InputError(
                "--coordinator HOST:PORT needs --num_processes and --process_id"
            )
        if not 0 <= process_id < num_processes:
            raise InputError(
                f"--process_id {process_id} is not one of --num_processes "
                f"{num_processes}: they are counted from 0"
            )
    # Process 0 alone writes what is kept. Where others do not find it, they would
    # compile, and on GPUs perhaps choose other algorithms, while it does not.
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_enable_compilation_cache", False)
    # SIGTERM is for `stopping`, which ends after a step in all processes.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            None if by_cluster else coordinator,
            num_processes,
            process_id,
            cluster_detection_method=None if by_cluster else "deactivate",
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"no group of processes was found with --coordinator {coordinator} "
            f"({str(error).strip():.200}): start all of them within five minutes, or "
            "give --coordinator HOST:PORT, --num_processes and --process_id"
        ) from error


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def by_first(action: Callable[[], T]) -> T:
    """Has process 0 do something while the others wait.

    Args:
      action: returns what JSON can hold.

    Returns:
      What it returned, in every process.

    Raises:
      InputError: the action did, in every process.
    """
    if jax.process_count() == 1:
        return action()
    outcome = None
    if jax.process_index() == 0:
        try:
            outcome = {"value": action()}
        except InputError as error:
            outcome = {"error": str(error)}
    encoded = np.frombuffer(json.dumps(outcome).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(encoded))))
    encoded = np.resize(encoded, length)
    told = json.loads(bytes(multihost_utils.broadcast_one_to_all(encoded)))
    if "error" in told:
        raise InputError(told["error"])
    return told["value"]


def gathered(values: Shaped[np.ndarray, "N ..."]) -> Shaped[np.ndarray, "M ..."]:
    """The values of all processes, one after the other, bit for bit.

    Args:
      values: of this process; the number may differ between processes.
    """
    if jax.process_count() == 1:
        return values
    rows = np.asarray(multihost_utils.process_allgather(np.int32(len(values))))
    padded = np.zeros((int(rows.max()), *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    # As bytes: JAX would make float32 of float64.
    as_bytes = np.frombuffer(padded.tobytes(), np.uint8)
    everyone = np.asarray(multihost_utils.process_allgather(as_bytes))
    parts = [
        np.frombuffer(one.tobytes(), values.dtype).reshape(padded.shape)[:count]
        for one, count in zip(everyone, rows, strict=True)
    ]
    return np.concatenate(parts)


def any_signal(received: signal.Signals | None) -> signal.Signals | None:
    """A signal that any of the processes has got, to be asked by all of them."""
    number = int(gathered(np.array([received or 0], np.int32)).max())
    return signal.Signals(number) if number else None


def agreed(
    mesh: Mesh, received: Callable[[], signal.Signals | None]
) -> Callable[[], signal.Signals | None]:
    """Makes a signal that any process received one that all know, at the same step.

    Args:
      mesh: of all devices.
      received: tells which signal this process has got, None so far.

    Returns:
      A function to be called once a step in every process. It answers what was known
      `STEPS_UNTIL_AGREED` calls ago, so that no step waits for it.
    """
    if jax.process_count() == 1:
        return received
    highest = jax.jit(jnp.max, out_shardings=replicated(mesh))
    devices = len(mesh.local_devices)
    pending: collections.deque[jax.Array] = collections.deque()

    def known() -> signal.Signals | None:
        own = np.full(devices, received() or 0, np.int32)
        numbers = jax.make_array_from_process_local_data(by_batch(mesh), own)
        pending.append(highest(numbers))
        if len(pending) <= STEPS_UNTIL_AGREED:
            return None
        number = int(pending.popleft())
        return signal.Signals(number) if number else None

    return known
