"""Versions, devices, commit and command, which stand beside every figure."""

import datetime
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax


def environment() -> dict[str, Any]:
    """Versions, devices and the command: what a figure needs to be believed."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {
        "command": " ".join(sys.argv),
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
        "commit": commit_of(Path(__file__).resolve().parents[1]),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "devices": [str(device) for device in jax.devices()],
        "device_kind": jax.devices()[0].device_kind,
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def commit_of(folder: Path) -> str:
    """The commit of the git repository whose root is `folder`.

    Ends in "-dirty" when a tracked file was edited. Empty without git, and where
    `folder` is no root: an installed package may lie in a repository of another thing.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    try:
        if git("rev-parse", "--show-toplevel") != str(folder):
            return ""
        commit = git("rev-parse", "--verify", "HEAD")
        edited = git("status", "--porcelain", "--untracked-files=no")
    except OSError:
        return ""
    return f"{commit}-dirty" if commit and edited else commit
