"""Commands keep what JAX compiles, in a folder that nobody else may write to."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax
from saliency_jax.errors import run_command
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
def main(argv):
    jax.jit(lambda x: x * 2 + 1)(1.0)
    print(found.count("/jax/compilation_cache/cache_hits"))
run_command(main)
"""


def hits(caches, **settings):
    """How many programs a command finds among those that are kept."""
    ours = ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {k: v for k, v in os.environ.items() if k not in ours}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment
        | {"XDG_CACHE_HOME": str(caches), "XLA_FLAGS": ""}
        | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return int(done.stdout)


def kept(caches):
    return [path for path in caches.rglob("*-cache") if path.is_file()]


def test_the_next_command_compiles_nothing(tmp_path):
    assert hits(tmp_path) == 0
    (folder,) = (tmp_path / "saliency_jax").iterdir()
    assert kept(folder) and folder.stat().st_mode & 0o777 == 0o700
    assert hits(tmp_path) == len(kept(tmp_path))


def test_what_others_may_write_is_not_run(tmp_path):
    hits(tmp_path)
    (folder,) = (tmp_path / "saliency_jax").iterdir()
    folder.chmod(0o770)
    before = len(kept(folder))
    assert hits(tmp_path) == 0 and len(kept(folder)) == before


@pytest.mark.parametrize(
    "settings",
    [
        {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        {"JAX_COMPILATION_CACHE_DIR": "other"},
        {"XDG_CACHE_HOME": "/dev/null/none"},
        {"XDG_CACHE_HOME": "", "HOME": "/dev/null"},
        {"XDG_CACHE_HOME": "/tmp/\udcff"},
    ],
)
def test_what_the_user_sets_comes_first(settings, tmp_path):
    (tmp_path / "caches").mkdir()
    if "JAX_COMPILATION_CACHE_DIR" in settings:
        settings = {name: str(tmp_path / value) for name, value in settings.items()}
    assert hits(tmp_path / "caches", **settings) == 0
    assert not kept(tmp_path / "caches")
    assert bool(kept(tmp_path)) == ("JAX_COMPILATION_CACHE_DIR" in settings)
