"""What a start costs: imports, and a first map with programs compiled or kept.

    python -m benchmarks.start_up --classifier mobilenet_v2=mobilenet_v2_tf.safetensors
        [--rounds 3]

Every figure is of processor time in fresh processes (so other work beside disturbs it
little), as a multiple of what `import jax` takes in the same round: the median, and the
least and the most. Of imports it is what they take beyond `import jax`, of `explain`
all. That runs on a picture of noise, with `gradient` and `grad_cam`; first with an
empty folder of kept programs, then with the one it has left.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from saliency_jax.errors import InputError, run_command

_CLASSIFIER = flags.DEFINE_string("classifier", None, "As of saliency_jax.explain.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Of all starts.", 1)

_IMPORTS = {
    "import saliency_jax": "import saliency_jax",
    "saliency_fn, load_masker": "from saliency_jax import saliency_fn, load_masker",
    "saliency_jax.explain": "import saliency_jax.explain.__main__",
    "evaluate.py": "import evaluate",
    "train.py": "import train",
}


def processor_seconds(*command: str, **environment: str) -> float:
    """What a process of Python takes from its start to its end.

    Raises:
      InputError: it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"{command[:3]} ended with: {done.stderr[-300:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_round(folder: Path) -> dict[str, float]:
    """Each start's processor time, in units of that of `import jax`."""
    jax = processor_seconds("-c", "import jax")
    seconds = {
        name: processor_seconds("-c", f"import jax; {statement}") - jax
        for name, statement in _IMPORTS.items()
    }
    if _CLASSIFIER.value:
        picture = folder / "noise.png"
        noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
        cv2.imwrite(str(picture), noise)
        command = ["-m", "saliency_jax.explain", str(picture)]
        command += [f"--classifier={_CLASSIFIER.value}", "--classes=1"]
        command += ["--methods=gradient,grad_cam"]
        for name in ("explain, nothing kept", "explain, programs kept"):
            seconds[name] = processor_seconds(
                *command, f"--out={folder / name}", XDG_CACHE_HOME=str(folder)
            )
    return {name: of / jax for name, of in seconds.items()}


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    if len(argv) > 1:
        raise InputError(f"unexpected arguments {argv[1:]}: this takes flags")
    rounds = []
    for _ in range(_ROUNDS.value):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(one_round(Path(folder)))
    print("processor time, in multiples of what `import jax` takes")
    for name in rounds[0]:
        of = [found[name] for found in rounds]
        print(f"{name}: {statistics.median(of):.2f} [{min(of):.2f}, {max(of):.2f}]")


if __name__ == "__main__":
    run_command(main)
