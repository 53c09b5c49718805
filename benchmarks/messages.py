"""Messages between devices, as a compiled program has them."""

import collections
import math
import re

_COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute)(?:-start)?\("
)
_ARRAY = re.compile(r"(?P<type>[a-z]+)(?P<bits>\d+)\[(?P<shape>[\d,]*)\]")


def messages_of(program: str) -> dict[str, tuple[int, int]]:
    """Counts the messages of a compiled program.

    Args:
      program: its text.

    Returns:
      By kind, how many there are and the bytes of their results.
    """
    counts, sizes = collections.Counter(), collections.Counter()
    for line in program.splitlines():
        if found := _COLLECTIVE.search(line):
            counts[found["kind"]] += 1
            for array in _ARRAY.finditer(found["shapes"]):
                lengths = map(int, filter(None, array["shape"].split(",")))
                size = math.prod(lengths) * int(array["bits"]) // 8
                sizes[found["kind"]] += size
    return {kind: (counts[kind], sizes[kind]) for kind in sorted(counts)}
