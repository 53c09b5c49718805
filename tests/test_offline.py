"""Nothing here needs the network: every test runs without (`offline/`)."""

import socket

import pytest

from tests.commands import start


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "storage.example"])
def test_no_test_reaches_another_machine(host):
    with pytest.raises(ConnectionRefusedError, match="no test may leave here"):
        socket.create_connection((host, 80), timeout=1)


def test_nor_does_a_process_that_a_test_starts():
    program = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    _, errors = start("-c", program).communicate(timeout=60)
    assert "no test may leave here" in errors


def test_processes_of_this_machine_meet():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=10).close()
