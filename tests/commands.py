"""The package's commands, run as a user runs them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def start(*arguments, environment=None, **options):
    """Starts Python with these arguments, in this process's environment by default."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_module(module, *arguments):
    """Runs `python -m module` to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
