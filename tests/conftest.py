"""Strict JAX for every test: four CPU devices, no rank promotion, no reused keys.

And no network, in the processes that tests start either (`offline/sitecustomize.py`).
"""

import fcntl
import os
import runpy
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The tests compile much and run little. Without LLVM's optimisation they take half the
# time, with the old emitters half of that again, and in one piece a tenth less. Only
# jaxlib 0.10 is known to have the other flags, and a flag that XLA does not know ends
# the process.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        * version("jaxlib").startswith("0.10.")
    ),
)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).parent.parent / ".pytest_cache" / "jax"),
)
# A program of a tenth of a second is worth reading, too: a tenth of the tests' time.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest
from absl import flags
from ml_collections import ConfigDict

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
flags.FLAGS.mark_as_parsed()  # grain's worker options read absl flags

OFFLINE = Path(__file__).parent / "offline"
runpy.run_path(str(OFFLINE / "sitecustomize.py"))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(OFFLINE), *filter(None, [os.environ.get("PYTHONPATH")])]
)
# One file for the processes of a session: who starts the first of them makes it.
OWN_LOG = None
if "OFFLINE_LOG" not in os.environ:
    OWN_LOG = tempfile.NamedTemporaryFile("r", prefix="offline_")
    os.environ["OFFLINE_LOG"] = OWN_LOG.name


@pytest.hookimpl(trylast=True)  # the workers have ended
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and looks_for_another_machine():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if looks := looks_for_another_machine():
        terminalreporter.section("looks for another machine", red=True)
        terminalreporter.write(looks)


def looks_for_another_machine() -> str:
    """What the processes of this session have written down, for the first of them."""
    return Path(OWN_LOG.name).read_text() if OWN_LOG else ""


SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and weights; skips where a checkout has none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data: {SHARED_DATA} is missing")
    return SHARED_DATA


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """A folder that one process of the test run fills, for all of them to read."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / "made_once" / name, root / "made_once" / f"{name}.done"
    folder.parent.mkdir(exist_ok=True)
    with open(folder.with_name(f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with `shapes/32x32`: 60 training and 25 validation scenes."""
    from saliency_jax.data.prepare import prepare

    def make(folder: Path) -> None:
        prepare("shapes", str(folder), image_size=32, num_train=60, num_validation=25)

    return str(made_once(tmp_path_factory, "data", make))


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, ConfigDict], Path]:
    """The workdir of a finished run of a config, by a name."""
    import train

    return lambda name, config: made_once(
        tmp_path_factory, name, lambda workdir: train.train(config, workdir)
    )


@pytest.fixture(scope="session")
def classifier_run(trained: Callable[..., Path], shapes_dir: str) -> Path:
    """A finished smoke run of the stage classifier."""
    from tests.runs import classifier_config

    return trained("classifier", classifier_config(shapes_dir))


@pytest.fixture(scope="session")
def deep_classifier_run(trained: Callable[..., Path], shapes_dir: str) -> Path:
    """One of a network with the four maps that a `SelectiveMasker` reads."""
    from tests.runs import classifier_config

    config = classifier_config(shapes_dir, classifier__network="resnet10")
    return trained("deep_classifier", config)


@pytest.fixture(scope="session")
def black_box_run(
    trained: Callable[..., Path], shapes_dir: str, deep_classifier_run: Path
) -> Path:
    """A finished smoke run of the stage black_box."""
    from tests.runs import black_box_config

    return trained("black_box", black_box_config(shapes_dir, deep_classifier_run))


@pytest.fixture(scope="session")
def generator_run(trained: Callable[..., Path], shapes_dir: str) -> Path:
    """A finished smoke run of the stage generator."""
    from tests.runs import generator_config

    return trained("generator", generator_config(shapes_dir))


@pytest.fixture(scope="session")
def casm_run(
    trained: Callable[..., Path], shapes_dir: str, classifier_run: Path
) -> Path:
    """A finished smoke run of the stage casm, with a pool that has overflowed."""
    from tests.runs import casm_config

    return trained("casm", casm_config(shapes_dir, classifier_run))
