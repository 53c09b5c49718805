"""Ends whatever looks for another machine: nothing here may, unless its user asks.

Python imports a module of this name when it starts: `tests/conftest.py` puts this
folder onto the path of every process that a test starts, and imports it into its own.
What a compiled library does by itself is not seen.
"""

import ipaddress
import sys
from typing import Any

_ASKED = {
    "socket.connect",
    "socket.sendto",
    "socket.getaddrinfo",
    "socket.gethostbyname",
}


def _is_here(host: Any) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _stay_here(event: str, arguments: tuple) -> None:
    if event not in _ASKED:
        return
    address = arguments[1] if event in ("socket.connect", "socket.sendto") else None
    if address is None:
        host = arguments[0]
    elif isinstance(address, tuple):
        host = address[0]
    else:
        return  # the name of a Unix socket
    if not _is_here(host):
        raise ConnectionRefusedError(f"{event} of {host!r}: no test may leave here")


sys.addaudithook(_stay_here)
