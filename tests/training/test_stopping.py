"""What signals do to a loop that asks after them."""

import os
import signal
import threading

import pytest

from saliency_jax.training.stopping import exit_code, stop_signals


@pytest.fixture(autouse=True)
def handlers():
    """The handlers of a command at a terminal, whatever started the tests."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_the_first_one_is_told_of(number, code, capfd):
    with stop_signals() as stopped_by:
        assert stopped_by() is None
        os.kill(os.getpid(), number)
        assert stopped_by() is number
        assert exit_code(stopped_by()) == code
    assert f"{number.name}: the run stops after this step" in capfd.readouterr().err


def test_the_second_one_does_what_it_always_does():
    with pytest.raises(KeyboardInterrupt), stop_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_afterwards_all_is_as_before():
    with stop_signals():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_what_a_shell_has_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_signals() as stopped_by:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped_by() is None


def test_in_another_thread_nothing_is_caught():
    told = []

    def run():
        with stop_signals() as stopped_by:
            told.append(stopped_by())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert told == [None]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
