"""What a run leaves beside its checkpoints.

<workdir>/config.json        resolved, as the run began
<workdir>/environment.json   {"runs": [...]}: one `environment()` for each start
<workdir>/validation.json    a classifier's figures
<workdir>/earlier_run_<n>/   what an attempt without a checkpoint to resume left
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from saliency_jax.environment import environment
from saliency_jax.errors import InputError
from saliency_jax.models import create
from saliency_jax.models.black_box import count_classes, own_black_box
from saliency_jax.models.own_network import find_function
from saliency_jax.models.weights_metadata import Unclear
from saliency_jax.run_config import read_run_config
from saliency_jax.training.checkpoints import checkpoint_folder, saved_steps
from saliency_jax.training.config_values import STAGES, check_values
from saliency_jax.training.known import NOTHING_KNOWN, Known, network_values
from saliency_jax.whole_file import replaced

# What may differ between a run and its continuation without making it another run.
# (What a factory names is compared as `classifier.network`.)
FREE = (
    "checkpoint.",
    "log.",
    "data.data_dir",
    "data.num_threads",
    "casm.pool_memory",
    "casm.pool_split",
    "classifier.init",
    "encoder.init",
    "model.factory",
    "not_finite",
)


def place_own_network(config: ConfigDict) -> None:
    """Puts the network of `config.model.factory`, if set, into `config.classifier`.

    It takes the place of the experiment's network and of that one's options.

    Raises:
      InputError: there is no such function.
    """
    if config.model.factory:
        find_function(config.model.factory)
        config.classifier.network = config.model.factory
        config.classifier.update(create.OPTIONS)


def resolve(config: ConfigDict, num_classes: int, known: Known = NOTHING_KNOWN) -> None:
    """Fills in what the data and the network decide, in place, and checks the values.

    The classifier's options and the normalisation of its input are the config's own
    where they are set, else those of what it starts from, else the network's.

    Args:
      config: of the run.
      num_classes: of the data.
      known: from `start.known_network`.

    Raises:
      InputError: for a value that no run can have, or that contradicts what is known.
    """
    if config.stage not in STAGES:
        raise InputError(f"config.stage = {config.stage!r}: expected one of {STAGES}")
    if config.stage == "generator":
        _check_generator(config)
        return
    if config.classifier.num_classes not in (0, num_classes):
        raise InputError(
            f"config.classifier.num_classes = {config.classifier.num_classes}, but "
            f"{config.data.name} has {num_classes} classes: leave it at 0"
        )
    config.classifier.num_classes = num_classes
    if config.data.random_labels and config.stage != "classifier":
        raise InputError(
            f"config.data.random_labels is for the stage classifier, and this is stage "
            f"{config.stage}: set it to False, and name a classifier that was trained "
            "so as config.classifier.init to explain that one"
        )
    if config.stage == "black_box":
        _resolve_phases(config)
    if config.stage == "black_box" and config.classifier.function:
        _resolve_function(config)
    else:
        resolve_network(config, known)
    check_values(flatten(config.to_dict()))


def _check_generator(config: ConfigDict) -> None:
    """Checks the config of the stage that has no classifier to resolve."""
    for name, allowed in (("holdout", 0), ("random_labels", False)):
        if (value := config.data[name]) != allowed:
            raise InputError(
                f"config.data.{name} = {value!r}, but a generator has no score on "
                f"held-out images and reads no labels: leave it at {allowed!r}"
            )
    check_values(flatten(config.to_dict()))


def _resolve_phases(config: ConfigDict) -> None:
    """Sets how many steps a run of two phases has."""
    selector, decoder = config.selector.steps, config.decoder.steps
    if config.total_steps not in (0, selector + decoder):
        raise InputError(
            f"config.total_steps = {config.total_steps}, but the phases have "
            f"{selector} and {decoder} steps: set config.selector.steps and "
            "config.decoder.steps"
        )
    config.total_steps = selector + decoder
    if selector == 0 and config.masker.selector_init == "random":
        raise InputError(
            "config.selector.steps = 0 leaves a random selector as it is: give it "
            "steps, or set --config.masker.selector_init=classifier"
        )


def _resolve_function(config: ConfigDict) -> None:
    """Checks a user's function; what pictures show as removed is grey by default."""
    for section, name in (("classifier", "init"), ("model", "factory")):
        if given := config[section][name]:
            raise InputError(
                f"config.{section}.{name} = {given!r}, but the black box is "
                f"{config.classifier.function}: leave one of the two empty"
            )
    output = config.classifier.output
    classifier = own_black_box(config.classifier.function, output)
    if classifier.output != output:
        raise InputError(
            f"config.classifier.output = {output!r}, but {config.classifier.function} "
            f"is a Classifier of output {classifier.output!r}: make them agree"
        )
    counted = count_classes(
        classifier, config.classifier.function, config.data.image_size
    )
    if counted != config.classifier.num_classes:
        raise InputError(
            f"{config.classifier.function} gives {counted} logits, {config.data.name} "
            f"has {config.classifier.num_classes} classes: use data of its classes"
        )
    config.classifier.network = ""
    config.data.mean = config.data.mean or (0.5, 0.5, 0.5)
    config.data.std = config.data.std or (0.5, 0.5, 0.5)


def resolve_network(config: ConfigDict, known: Known) -> None:
    """Fills in a network's options and its input's normalisation; see `resolve`."""
    network = config.classifier.network
    values = network_values(network, known)
    fields = ["data.mean", "data.std", *(f"classifier.{o}" for o in create.OPTIONS)]
    for field in fields:
        section, name = field.split(".")
        given, told = config[section][name], known.values.get(field)
        if field not in values:
            if given:
                raise InputError(create.unknown_option(network, name, given))
        elif given:
            if told and not isinstance(told, Unclear) and not _same(told, given):
                raise InputError(
                    f"{known.source} has {field} = {told!r}, this config has "
                    f"{given!r}: make them agree, or leave it at "
                    f"{create.OPTIONS.get(name, ())!r}"
                )
        elif isinstance(told, Unclear):
            raise InputError(
                f"{known.source} describes its {told.entry} as {told.text!r}, which is "
                f"in no known form: set --config.{field}"
            )
        else:
            config[section][name] = values[field]


def _same(told: Any, given: Any) -> bool:
    """Whether two values of a field are equal, numbers up to the digits people type."""
    if isinstance(told, str) or isinstance(given, str):
        return told == given
    told, given = np.asarray(told), np.asarray(given)
    return told.shape == given.shape and np.allclose(told, given, rtol=1e-3, atol=1e-6)


def prepare(workdir: Path, config: ConfigDict) -> None:
    """Makes the folder of a run, or checks that it may be continued.

    A continued run keeps the `config.json` of its beginning. Where there is nothing to
    continue but an earlier attempt's `best`, that goes to `earlier_run_<n>`, a workdir
    of its own for `load_masker` and `evaluate.py`.

    Raises:
      InputError: when it cannot be written, or holds a run of another config.
    """
    _check_places(workdir)
    is_continued = bool(saved_steps(workdir, "last"))
    if is_continued:
        filed = read_run_config(workdir, any_stage=True)
        differences = differing(filed, config.to_dict())
        if differences:
            raise InputError(
                f"{workdir} holds a run of another config: {'; '.join(differences)}. "
                "Give the same values to go on with it, or another --workdir"
            )
    runs = [*_filed_environments(workdir), environment()]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not is_continued:
            _set_aside_best(workdir)
            _write_json(workdir / "config.json", config.to_dict())
        _write_json(workdir / "environment.json", {"runs": runs})
    except OSError as error:
        raise InputError(
            f"workdir {workdir} cannot be written ({error.strerror}): choose another "
            "--workdir"
        ) from error


def _check_places(workdir: Path) -> None:
    """Notices at the start what the end of a run would fall over."""
    kept = (f"checkpoints/{kind}" for kind in ("last", "best", "pool", "damaged"))
    for name in ("checkpoints", *kept, "pictures", "tensorboard"):
        path = workdir / name
        if path.exists() and not path.is_dir():
            raise InputError(
                f"{path} is a file, where a run has a folder: move it away, or choose "
                "another --workdir"
            )
    for name in (
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "validation.json",
    ):
        path = workdir / name
        if path.exists() and not path.is_file():
            raise InputError(
                f"{path} is no file, where a run has one: move it away, or choose "
                "another --workdir"
            )


def _filed_environments(workdir: Path) -> list[dict[str, Any]]:
    """Those of the earlier starts in this folder."""
    path = workdir / "environment.json"
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        if not isinstance(runs, list):
            raise TypeError("runs is no list")
        return runs
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as the environments of a run's starts ({error!r}): "
            "move it away to go on"
        ) from error


def _set_aside_best(workdir: Path) -> None:
    """Moves the best networks of an attempt that left no checkpoint to resume."""
    if not saved_steps(workdir, "best"):
        return
    number = 1
    while (aside := workdir / f"earlier_run_{number}").exists():
        number += 1
    moved = checkpoint_folder(aside, "best")
    moved.parent.mkdir(parents=True)
    config = workdir / "config.json"
    if config.exists():
        os.replace(config, aside / config.name)
    os.replace(checkpoint_folder(workdir, "best"), moved)
    logging.warning(
        "%s has no checkpoint to resume but a best one: kept in %s", workdir, aside
    )


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


def write_scores(workdir: Path, scores: dict[str, float]) -> None:
    """Leaves a classifier's figures on the validation set, as fractions."""
    if jax.process_index() == 0:
        _write_json(workdir / "validation.json", scores)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replaced(path) as file:
        file.write(f"{json.dumps(content, indent=2)}\n".encode())
