"""Commands: one line and exit code 2 for a user's mistake, a traceback for ours."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from saliency_jax import errors
from saliency_jax.errors import InputError

ROOT = Path(__file__).parent.parent
COMMAND = """
from absl import flags
from ml_collections import config_flags
from saliency_jax.errors import InputError, run_command
flags.DEFINE_integer("number", 1, "A number.")
config_flags.DEFINE_config_file("config", None, "A config.")
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


CONFIG = """
from ml_collections import ConfigDict
from saliency_jax.errors import InputError
def get_config(arg=""):
    if arg == "bad":
        raise InputError("unknown 'bad': say good")
    if arg == "chained":
        try:
            int(arg)
        except ValueError as error:
            raise InputError("chained is no number") from error
    if arg == "wrong":
        raise TypeError("wrong type")
    if arg == "fault":
        1 / 0
    return ConfigDict({"field": 1, "inner": {"field": 1}})
"""


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    (folder / "good.py").write_text(CONFIG)
    (folder / "syntax.py").write_text("def get_config(:")
    (folder / "imports.py").write_text("import nothing_of_that_name")
    return folder


@pytest.mark.parametrize(
    ("config", "others", "message"),
    [
        ("good.py:bad", [], "unknown 'bad': say good"),
        ("good.py:chained", [], "chained is no number"),
        ("good.py", ["--config.nonsense=1"], "the config has no field 'nonsense'"),
        ("good.py", ["--config.inner.typo=1"], "the config has no field 'typo'"),
        ("good.py", ["--config.lambda=1"], "the config has no field 'lambda'"),
        ("good.py", ["--config.field=many"], "flag --config.field=many: invalid lit"),
        ("nope.py", [], "[Errno 2] No such file or directory: '{folder}/nope.py'"),
        ("nope.py", ["--config.field=2"], "[Errno 2] No such file or directory"),
        ("syntax.py", [], "invalid syntax (syntax.py, line 1)"),
        ("imports.py", [], "No module named 'nothing_of_that_name'"),
        (
            "good.py:wrong",
            [],
            "flag --config={folder}/good.py:wrong: Error whilst parsing config file: "
            "TypeError: wrong type\n",
        ),
    ],
)
def test_mistakes_of_a_config_are_one_line(configs, config, others, message):
    done = run(f"--config={configs / config}", *others)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: " + message.format(folder=configs))
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_a_config_that_can_be_read_is_no_mistake(configs):
    done = run(f"--config={configs / 'good.py'}", "--config.inner.field=2")
    assert (done.returncode, done.stdout) == (0, "ran with 1 []\n")


def test_a_fault_in_a_config_keeps_its_traceback(configs):
    done = run(f"--config={configs / 'good.py:fault'}")
    assert done.returncode not in (0, 2) and "ZeroDivisionError" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=nope.py"], "[Errno 2] No such file or directory: 'nope.py'"),
        (["--config=configs/casm_shapes.py:L0"], "unknown thinning strategy 'L0'"),
        (
            ["--config=configs/casm_shapes.py", "--config.nonsense=1"],
            "the config has no field 'nonsense'",
        ),
    ],
)
def test_mistakes_of_the_training_command(tmp_path, arguments, message):
    done = subprocess.run(
        [sys.executable, "train.py", f"--workdir={tmp_path}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


def test_other_exceptions_keep_their_traceback():
    done = run("--number=3")
    assert done.returncode not in (0, 2)
    assert "Traceback" in done.stderr and "a fault of ours" in done.stderr


def full_disk_of(library):
    """As Python tells of one, and as tensorstore does."""
    if library == "python":
        return OSError(errno.ENOSPC, "No space left on device", "/disk/file")
    return ValueError('Error writing local file "/disk/file": No space left on device')


def test_of_many_names_the_closest_are_told():
    few = ["tench", "goldfish"]
    assert errors.unknown("class", "goldfsh", few) == (
        "no class 'goldfsh' (did you mean goldfish?): use one of tench, goldfish"
    )
    many = [*few, *few, *(f"class {number}" for number in range(1000))]
    message = errors.unknown("class", "goldfsh", many)
    assert message.startswith("no class 'goldfsh': the closest of 1002 are goldfish, ")
    assert len(message) < 120


@pytest.mark.parametrize("library", ["python", "tensorstore"])
def test_a_full_disk_is_found_behind_other_errors(library):
    with (
        pytest.raises(InputError, match="/disk/file cannot be written .No space left"),
        errors.unwritable_told(),
    ):
        try:
            raise full_disk_of(library)
        except (OSError, ValueError) as error:
            raise RuntimeError("a thread failed") from error


def test_what_is_told_already_and_what_is_no_disks_fault_stay_as_they_are():
    told = InputError("free the disk or name another --out")
    told.__cause__ = full_disk_of("python")
    for error in (told, OSError(errno.ENOENT, "No such file"), ValueError("other")):
        with pytest.raises(type(error)) as raised, errors.unwritable_told():
            raise error
        assert raised.value is error
