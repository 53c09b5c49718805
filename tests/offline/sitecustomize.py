"""Ends whatever looks for another machine: nothing here may, unless its user asks.

Python imports a module of this name when it starts: `tests/conftest.py` puts this
folder onto the path of every process that a test starts, and imports it into its own.
What a compiled library does by itself is not seen. Libraries may swallow the error, so
each look also becomes a line in the file that `OFFLINE_LOG` names.
"""

import ipaddress
import os
import sys
from typing import Any

_OF_A_SOCKET = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_OF_A_NAME = {
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "socket.getnameinfo",
}


def _is_here(host: Any) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _stay_here(event: str, arguments: tuple) -> None:
    if event in _OF_A_NAME:
        host = arguments[0]
    elif event in _OF_A_SOCKET:
        host = arguments[1]
        if not isinstance(host, tuple):
            return  # the name of a Unix socket, or None: connected before
    else:
        return
    if isinstance(host, tuple):  # with a port
        host = host[0]
    if _is_here(host):
        return
    words = f"{event} of {host!r}: no test may leave here"
    if path := os.environ.get("OFFLINE_LOG"):
        with open(path, "a") as log:
            log.write(f"{os.environ.get('PYTEST_CURRENT_TEST')}: {words}\n")
    raise ConnectionRefusedError(words)


sys.addaudithook(_stay_here)
