"""Nothing here needs the network: every test runs without (`offline/`)."""

import contextlib
import os
import socket

import pytest

from tests.commands import start


@pytest.fixture
def own_log(tmp_path, monkeypatch):
    """A file for the looks of these tests, which do not make the session fail."""
    path = tmp_path / "looks"
    monkeypatch.setenv("OFFLINE_LOG", str(path))
    return path


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "storage.example"])
def test_no_test_reaches_another_machine(host, own_log):
    with pytest.raises(ConnectionRefusedError, match="no test may leave here"):
        socket.create_connection((host, 80), timeout=1)
    (line,) = own_log.read_text().splitlines()
    assert "test_no_test_reaches_another_machine" in line and host in line


@pytest.mark.parametrize(
    "look",
    [
        lambda own: own.connect(("192.0.2.1", 80)),
        lambda own: own.connect_ex(("192.0.2.1", 80)),
        lambda own: own.sendto(b"here", ("192.0.2.1", 80)),
        lambda own: own.sendmsg([b"here"], [], 0, ("192.0.2.1", 80)),
        lambda _: socket.gethostbyname("storage.example"),
        lambda _: socket.gethostbyname_ex("storage.example"),
        lambda _: socket.gethostbyaddr("192.0.2.1"),
        lambda _: socket.getnameinfo(("192.0.2.1", 80), 0),
    ],
)
def test_a_look_whose_error_is_swallowed_is_written_down(look, own_log):
    with socket.socket(type=socket.SOCK_DGRAM) as own:
        with contextlib.suppress(OSError):
            look(own)
    assert len(own_log.read_text().splitlines()) == 1


def test_nor_does_a_process_that_a_test_starts(own_log):
    program = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    _, errors = start("-c", program).communicate(timeout=60)
    assert "no test may leave here" in errors
    assert "no test may leave here" in own_log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_session_with_a_look_fails_at_its_end(workers, tmp_path):
    path = tmp_path / "test_swallowed.py"
    path.write_text(
        "import contextlib, socket\n"
        "def test_swallowed():\n"
        "    with contextlib.suppress(OSError):\n"
        "        socket.gethostbyname('storage.example')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OFFLINE_LOG"}
    session = ("-m", "pytest", "-p", "tests.conftest", "-n", workers, path)
    process = start(*session, environment=environment)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "1 passed" in out
    assert "test_swallowed (call): socket.gethostbyname of 'storage.example'" in out


def test_processes_of_this_machine_meet():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=10).close()
