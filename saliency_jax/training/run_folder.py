"""What a run leaves beside its checkpoints: the resolved config and the environment."""

import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from saliency_jax.errors import InputError
from saliency_jax.saliency import read_run_config
from saliency_jax.training.checkpoints import saved_steps

STAGES = ("classifier", "casm")

# What may differ between a run and its continuation without making it another run.
FREE = ("checkpoint.", "log.", "data.data_dir", "data.num_threads", "classifier.init")


def resolve(config: ConfigDict, num_classes: int) -> None:
    """Fills in what the data decides, in place, and checks the values that must fit.

    Raises:
      InputError: for a value that no run can have.
    """
    if config.stage not in STAGES:
        raise InputError(f"config.stage = {config.stage!r}: expected one of {STAGES}")
    if config.classifier.num_classes not in (0, num_classes):
        raise InputError(
            f"config.classifier.num_classes = {config.classifier.num_classes}, but "
            f"{config.data.name} has {num_classes} classes: leave it at 0"
        )
    config.classifier.num_classes = num_classes
    positive = [
        "total_steps",
        "data.batch_size",
        "data.image_size",
        "checkpoint.every",
        "checkpoint.keep_last",
        "log.every",
        "log.evaluate_every",
        "log.picture_every",
    ]
    if config.stage == "casm":
        positive.append("casm.pool_slots")
    flat = flatten(config.to_dict())
    for name in positive:
        if flat[name] < 1:
            raise InputError(f"config.{name} = {flat[name]}: expected at least 1")


def prepare(workdir: Path, config: ConfigDict) -> None:
    """Makes the folder of a run, or checks that it may be continued.

    Raises:
      InputError: when it cannot be written, or holds a run of another config.
    """
    if saved_steps(workdir, "last"):
        differences = differing(read_run_config(workdir), config.to_dict())
        if differences:
            raise InputError(
                f"{workdir} holds a run of another config: {'; '.join(differences)}. "
                "Give the same values to go on with it, or another --workdir"
            )
    if jax.process_index() != 0:
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _write_json(workdir / "config.json", config.to_dict())
        _write_json(workdir / "environment.json", environment())
    except OSError as error:
        raise InputError(
            f"workdir {workdir} cannot be written ({error.strerror}): choose another "
            "--workdir"
        ) from error


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` becomes `{"a.b": 1}`."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat


def differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What a continued run may not change and does, a phrase each."""
    old, new = flatten(old), flatten(new)
    return [
        f"config.{name} was {old.get(name)!r}, now {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not name.startswith(FREE)
    ]


def environment() -> dict[str, Any]:
    """Versions, devices and the command: what a figure needs to be believed."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "command": " ".join(sys.argv),
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "devices": [str(device) for device in jax.devices()],
        "device_kind": jax.devices()[0].device_kind,
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def write_scores(workdir: Path, scores: dict[str, float]) -> None:
    """Leaves a classifier's figures on the validation set, as fractions."""
    if jax.process_index() == 0:
        _write_json(workdir / "validation.json", scores)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
