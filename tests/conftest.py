"""Strict JAX for every test: four CPU devices, no rank promotion, no reused keys.

And no network, in the processes that tests start either (`offline/sitecustomize.py`).
"""

import os
import runpy
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The tests compile much and run little. Without LLVM's optimisation they take half the
# time, with the old emitters half of that again. Only jaxlib 0.10 is known to have the
# second flag, and a flag that XLA does not know ends the process.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).parent.parent / ".pytest_cache" / "jax"),
)

import jax
import pytest
from absl import flags

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
flags.FLAGS.mark_as_parsed()  # grain's worker options read absl flags

OFFLINE = Path(__file__).parent / "offline"
runpy.run_path(str(OFFLINE / "sitecustomize.py"))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(OFFLINE), *filter(None, [os.environ.get("PYTHONPATH")])]
)

SHARED_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and weights; skips where a checkout has none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data: {SHARED_DATA} is missing")
    return SHARED_DATA


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with `shapes/32x32`: 60 training and 25 validation scenes."""
    from saliency_jax.data.prepare import prepare

    data_dir = str(tmp_path_factory.mktemp("data"))
    prepare("shapes", data_dir, image_size=32, num_train=60, num_validation=25)
    return data_dir


@pytest.fixture(scope="session")
def classifier_run(tmp_path_factory: pytest.TempPathFactory, shapes_dir: str) -> Path:
    """A finished smoke run of the stage classifier."""
    import train
    from tests.runs import classifier_config

    workdir = tmp_path_factory.mktemp("runs") / "classifier"
    train.train(classifier_config(shapes_dir), workdir)
    return workdir


@pytest.fixture(scope="session")
def deep_classifier_run(
    tmp_path_factory: pytest.TempPathFactory, shapes_dir: str
) -> Path:
    """One of a network with the four maps that a `SelectiveMasker` reads."""
    import train
    from tests.runs import classifier_config

    workdir = tmp_path_factory.mktemp("runs") / "deep_classifier"
    config = classifier_config(shapes_dir, classifier__network="resnet10")
    train.train(config, workdir)
    return workdir


@pytest.fixture(scope="session")
def black_box_run(
    tmp_path_factory: pytest.TempPathFactory,
    shapes_dir: str,
    deep_classifier_run: Path,
) -> Path:
    """A finished smoke run of the stage black_box."""
    import train
    from tests.runs import black_box_config

    workdir = tmp_path_factory.mktemp("runs") / "black_box"
    train.train(black_box_config(shapes_dir, deep_classifier_run), workdir)
    return workdir


@pytest.fixture(scope="session")
def generator_run(tmp_path_factory: pytest.TempPathFactory, shapes_dir: str) -> Path:
    """A finished smoke run of the stage generator."""
    import train
    from tests.runs import generator_config

    workdir = tmp_path_factory.mktemp("runs") / "generator"
    train.train(generator_config(shapes_dir), workdir)
    return workdir


@pytest.fixture(scope="session")
def casm_run(
    tmp_path_factory: pytest.TempPathFactory, shapes_dir: str, classifier_run: Path
) -> Path:
    """A finished smoke run of the stage casm, with a pool that has overflowed."""
    import train
    from tests.runs import casm_config

    workdir = tmp_path_factory.mktemp("runs") / "casm"
    train.train(casm_config(shapes_dir, classifier_run), workdir)
    return workdir
