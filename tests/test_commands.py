"""The programs as commands: from nothing to a table, killed runs, users' mistakes."""

import os
import shutil
import signal
import time

import numpy as np
import pytest

import train
from saliency_jax import load_masker, saliency_fn
from saliency_jax.training.checkpoints import checkpoint_folder, saved_steps
from tests.commands import start
from tests.runs import casm_config, classifier_config, lines_of


def command(*arguments, **options):
    """The environment is that of a user: one device, no settings of the tests."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return start(*arguments, environment=environment, **options)


def finished(*arguments):
    process = command(*arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_an_unknown_config_key_is_one_line_and_exit_code_2(tmp_path):
    code, out, err = finished(
        "train.py",
        "--config=configs/casm_shapes.py:smoke",
        f"--workdir={tmp_path}",
        "--config.nonsense=1",
    )
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert "nonsense" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_commands_from_nothing_to_a_table(tmp_path):
    where = [f"--data_dir={tmp_path}"]
    code, out, err = finished(
        *("-m", "saliency_jax.data", "prepare", "shapes", "--image_size=32"),
        *("--num_train=60", "--num_validation=25", *where),
    )
    assert code == 0, err
    common = [f"--config.data.data_dir={tmp_path}", "--config.data.name=shapes/32x32"]
    classifier, casm = tmp_path / "classifier", tmp_path / "casm"
    code, out, err = finished(
        "train.py",
        "--config=configs/classifier_shapes.py:smoke",
        f"--workdir={classifier}",
        *common,
    )
    assert code == 0, err
    assert "validation (25 images): accuracy" in out
    code, out, err = finished(
        "train.py",
        "--config=configs/casm_shapes.py:smoke,L2",
        f"--workdir={casm}",
        f"--config.classifier.init={classifier}",
        *common,
    )
    assert code == 0, err
    assert out.endswith(f"finished: {casm}\n") and "Traceback" not in err
    code, out, err = finished("evaluate.py", f"--workdir={casm}")
    assert code == 0, err
    assert (casm / "evaluation" / "results.json").is_file()
    assert load_masker(casm, "best") is not None


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory, shapes_dir):
    """A classifier that other processes know, too."""
    workdir = tmp_path_factory.mktemp("runs") / "smoke"
    train.train(classifier_config(shapes_dir, classifier__network="resnet10"), workdir)
    return workdir


def casm_command(shapes_dir, init, workdir, *others):
    return (
        "train.py",
        "--config=configs/casm_shapes.py:smoke,L2",
        f"--workdir={workdir}",
        f"--config.classifier.init={init}",
        f"--config.data.data_dir={shapes_dir}",
        "--config.data.name=shapes/32x32",
        *others,
    )


@pytest.mark.slow
def test_a_damaged_checkpoint_is_one_line(smoke_run, shapes_dir, tmp_path):
    """Orbax's reading threads would follow it with tracebacks of their own."""
    init = tmp_path / "damaged"
    shutil.copytree(smoke_run, init)
    networks = checkpoint_folder(init, "last") / "6" / "networks"
    for path in (networks / "d").iterdir():
        path.write_bytes(b"")
    code, _, err = finished(*casm_command(shapes_dir, init, tmp_path / "casm"))
    assert code == 2
    assert err.startswith("error: checkpoint") and err.count("\n") == 1


@pytest.fixture
def ctrl_c_is_heard():
    """Whoever starts the tests in the background may have had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)],
)
def test_a_killed_run_goes_on(
    smoke_run, shapes_dir, tmp_path, ctrl_c_is_heard, number, code
):
    arguments = casm_command(
        shapes_dir, smoke_run, tmp_path, "--config.total_steps=200"
    )
    process = command(*arguments)
    while max(saved_steps(tmp_path, "last"), default=0) < 9:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert (f"stopped by {number.name}" in out) == (number != signal.SIGKILL)
    assert saved_steps(tmp_path, "last")[-1] < 200
    # fewer checkpoints and pictures do not make it another run
    rarer = ("checkpoint.every", "log.evaluate_every", "log.picture_every")
    code, out, err = finished(*arguments, *(f"--config.{name}=100" for name in rarer))
    assert code == 0, err
    assert f"resumed {tmp_path} at step" in out
    assert saved_steps(tmp_path, "last")[-1] == 200
    steps = [line["step"] for line in lines_of(tmp_path)]
    assert steps == sorted(steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arg", "changed"),
    [
        ("F", {}),
        ("FL", {}),
        ("L2,paper,classification", {}),
        ("L2", {"masker__encoder": "own"}),
        (
            "L",
            {"classifier__dtype": "bfloat16", "masker__final_upsampling": "bilinear"},
        ),
        ("L2", {"masker__taps": (1,), "data__num_workers": 1}),
        ("L2", {"data__holdout": 0, "data__erasing_probability": 0.5}),
    ],
)
def test_every_option_trains_and_resumes(
    shapes_dir, classifier_run, tmp_path, arg, changed
):
    config = casm_config(shapes_dir, classifier_run, arg, **changed)
    train.train(config, tmp_path)
    assert saved_steps(tmp_path, "last")[-1] == 6
    assert bool(saved_steps(tmp_path, "best")) == (config.data.holdout > 0)
    train.train(config, tmp_path)  # a finished run only reads its checkpoint
    masks = saliency_fn(load_masker(tmp_path), np.zeros((2, 32, 32, 3), np.uint8))
    assert np.isfinite(masks).all()
