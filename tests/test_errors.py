"""Commands: one line and exit code 2 for a user's mistake, a traceback for ours."""

import subprocess
import sys

import pytest

from saliency_jax.errors import InputError

COMMAND = """
from absl import flags
from saliency_jax.errors import InputError, run_command
flags.DEFINE_integer("number", 1, "A number.")
def main(argv):
    number = flags.FLAGS.number
    if number == 2:
        raise InputError("two\\nis too many:   say one")
    if number == 3:
        raise ValueError("a fault of ours")
    print("ran with", number, argv[1:])
run_command(main)
"""


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_input_error_is_a_value_error():
    with pytest.raises(ValueError, match="such"):
        raise InputError("no such file")


def test_success_leaves_arguments_and_output_alone():
    done = run("--number=4", "rest")
    assert (done.returncode, done.stdout) == (0, "ran with 4 ['rest']\n")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--number=2"], "error: two is too many: say one\n"),
        (["--number=many"], "error: flag --number=many"),
        (["--nonsense=1"], "error: Unknown command line flag 'nonsense'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_other_exceptions_keep_their_traceback():
    done = run("--number=3")
    assert done.returncode not in (0, 2)
    assert "Traceback" in done.stderr and "a fault of ours" in done.stderr
