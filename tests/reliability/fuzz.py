r"""Damaged files at the doors, for so many minutes, counted.

    python -m tests.reliability.fuzz [--minutes 10]

Ends with code 1 at the first file that a reader meets with anything but an `InputError`
of one line, that takes it longer than ten seconds, or after which the process has had
more than 2 GiB; the file is kept.
"""

import collections
import re
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags
from hypothesis import HealthCheck, Phase, given, settings

from tests.reliability.doors import DOORS, damaged, is_refused

_MINUTES = flags.DEFINE_float("minutes", 10.0, "How long, over all doors.", 0.01)
_SECONDS, _GIB = 10.0, 2.0
_FILES_AT_ONCE = 500


def peak_gib() -> float:
    """The most memory that this process has had (Linux).

    `ru_maxrss` will not do: a process starts with that of the one that started it.
    """
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) / 2**20


def fuzz(name: str, folder: Path, told: collections.Counter) -> float:
    """Shows a door some hundred files; returns the seconds that the slowest took."""
    door, slowest = DOORS[name], 0.0

    @settings(
        max_examples=_FILES_AT_ONCE,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(door.files))
    def show(content: bytes) -> None:
        nonlocal slowest
        started = time.monotonic()
        try:
            refused = is_refused(door, content, folder)
            seconds = time.monotonic() - started
            assert seconds < _SECONDS, f"{seconds:.0f} s"
            assert peak_gib() < _GIB, f"{peak_gib():.1f} GiB"
        except BaseException:
            kept = Path(f"fuzz_{name.replace(' ', '_')}{door.suffix}")
            kept.write_bytes(content)
            print(f"{name}: {kept.resolve()}", file=sys.stderr)
            raise
        told["refused" if refused else "read"] += 1
        slowest = max(slowest, seconds)

    show()
    return slowest


def main(argv: list[str]) -> None:
    del argv
    counts = {name: collections.Counter() for name in DOORS}
    slowest = dict.fromkeys(DOORS, 0.0)
    end = time.monotonic() + 60 * _MINUTES.value
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            for name, count in counts.items():
                seconds = fuzz(name, Path(folder), count)
                slowest[name] = max(slowest[name], seconds)
    print("| reader | files | refused in a line | read | slowest, s |")
    print("| --- | --- | --- | --- | --- |")
    for name, count in counts.items():
        print(
            f"| {name} | {count.total()} | {count['refused']} | {count['read']} | "
            f"{slowest[name]:.2f} |"
        )
    print(f"peak memory {peak_gib():.2f} GiB")


if __name__ == "__main__":
    app.run(main)
