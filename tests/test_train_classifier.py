"""Runs of the stage classifier: interrupted, and where they write."""

import os

import jax
import pytest

import train
from saliency_jax.training.checkpoints import saved_steps
from tests.commands import start
from tests.interrupted import interrupt
from tests.runs import (
    assert_same_bits,
    classifier_config,
    figures_of,
    lines_of,
)
from tests.several import classifier_arguments


def test_an_interrupted_run_becomes_the_same_run(
    classifier_run, shapes_dir, tmp_path, monkeypatch, capsys, caplog
):
    """Bit for bit: network, optimiser, the place in the data, and the figures."""
    interrupt(classifier_config(shapes_dir), tmp_path, monkeypatch)
    assert saved_steps(tmp_path, "last") == [3]
    assert lines_of(tmp_path)[-1]["step"] == 4
    capsys.readouterr()
    with jax.log_compiles():
        train.train(classifier_config(shapes_dir), tmp_path)
    told = [line for line in caplog.messages if line.startswith("Compiling")]
    assert any("step" in line for line in told)
    assert not any("init_state" in line for line in told)
    assert f"resumed {tmp_path} at step 3" in capsys.readouterr().out
    assert_same_bits(tmp_path, classifier_run)
    assert figures_of(tmp_path) == figures_of(classifier_run)
    for name in ("validation.json", "config.json"):
        assert (tmp_path / name).read_text() == (classifier_run / name).read_text()


WRITES_TOLD = """
import os, runpy, sys
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def tell(event, arguments):
    if event == "open" and arguments[2] & WRITES:
        paths = arguments[:1]
    elif event in ("os.mkdir", "os.truncate"):
        paths = arguments[:1]
    elif event in ("os.rename", "os.link", "os.symlink"):
        paths = arguments[:2]
    else:
        return
    for path in paths:
        if not isinstance(path, int):
            os.write(2, f"WRITES {os.path.abspath(os.fsdecode(path))}\\n".encode())
sys.addaudithook(tell)
sys.argv[0] = "tests/one_of_several.py"
runpy.run_module("tests.one_of_several", run_name="__main__")
"""


@pytest.mark.slow
def test_a_run_writes_below_its_workdir_only(shapes_dir, tmp_path):
    """As far as Python sees; and nothing at all appears at home, whoever writes."""
    own = {name: tmp_path / name for name in ("home", "cache", "temporary")}
    for folder in own.values():
        folder.mkdir()
    environment = os.environ | {
        "HOME": str(own["home"]),
        "JAX_COMPILATION_CACHE_DIR": str(own["cache"]),
        "TMPDIR": str(own["temporary"]),
    }
    workdir = tmp_path / "run"
    program = ("-B", "-c", WRITES_TOLD, f"--workdir={workdir}")
    arguments = classifier_arguments(shapes_dir)
    process = start(*program, *arguments, environment=environment)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    told = [line for line in errors.splitlines() if line.startswith("WRITES ")]
    written = {line.removeprefix("WRITES ") for line in told}
    assert str(workdir / "metrics.jsonl") in written
    # The last two: what is thrown away, and the names of threads.
    allowed = [workdir, own["cache"], own["temporary"], "/dev/null", "/proc/self"]
    elsewhere = [
        path
        for path in written
        if not any(os.path.commonpath([path, one]) == str(one) for one in allowed)
    ]
    assert not elsewhere
    assert not list(own["home"].iterdir())
