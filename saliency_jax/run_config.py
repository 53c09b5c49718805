"""The resolved config that `train.py` leaves beside a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util

from saliency_jax.errors import InputError
from saliency_jax.training import config_values

ADVICE = "put a copy of what train.py wrote back, or train again"


class _Section(dict[str, Any]):
    """Fields of a filed config; one that is missing is told when it is looked up.

    Which fields a run needs depends on what it is loaded for.
    """

    def __init__(self, fields: Mapping[str, Any], path: Path, prefix: str = ""):
        super().__init__(
            {
                name: _Section(value, path, f"{prefix}{name}.")
                if isinstance(value, dict)
                else value
                for name, value in fields.items()
            }
        )
        self._path, self._prefix = path, prefix

    def __missing__(self, name: str) -> Any:
        field = f"{self._prefix}{name}"
        expected = config_values.expectation(field) or "a value"
        raise InputError(
            f"{self._path} is damaged: it has no {field}: expected {expected}; {ADVICE}"
        )

    def __or__(self, other: Mapping[str, Any]) -> "_Section":
        return _Section({**self, **other}, self._path, self._prefix)


def read_run_config(workdir: str | Path, *, any_stage: bool = False) -> dict[str, Any]:
    """Reads the resolved config that `train.py` left beside a run, of any version.

    Args:
      workdir: of the run.
      any_stage: whether it may be of the stage generator, which has no classifier.

    Returns:
      The config. Looking up a field that it lacks raises an `InputError`.

    Raises:
      InputError: when the folder is not a run, or one without a classifier, or a field
        has a value that no run has.
    """
    path = Path(workdir) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        wrong = _what_is_wrong(config)
    except OSError as error:
        raise InputError(
            f"{workdir} is not a run: {path} cannot be read ({error.strerror}); name "
            "the --workdir that train.py was given"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}; {ADVICE}") from error
    if wrong:
        raise InputError(f"{path} is damaged: {wrong}; {ADVICE}")
    if config["stage"] != "generator":
        return _Section(_as_now(config), path)
    if not any_stage:
        raise InputError(
            f"{workdir} is a run of stage 'generator', which has neither a classifier "
            "nor a masker: name a run of stage classifier, casm or black_box"
        )
    return _Section(config, path)


def _what_is_wrong(config: Any) -> str | None:
    """What keeps a filed config from being one; None where nothing does."""
    has_stage = isinstance(config, dict) and {"stage", "data"} <= config.keys()
    is_generator = has_stage and config["stage"] == "generator"
    if not has_stage or not (is_generator or "classifier" in config):
        return "it is no config of a run"
    for name in config_values.SECTIONS:
        if not isinstance(section := config.get(name, {}), dict):
            return f"{name} = {section!r:.80}: expected fields of its own"
    is_field = lambda path, _: config_values.expectation(".".join(path)) is not None
    values = flax.traverse_util.flatten_dict(config, is_leaf=is_field, sep=".")
    return config_values.what_is_wrong(values)


def _as_now(config: dict[str, Any]) -> dict[str, Any]:
    """Adds what runs of earlier versions have not filed, as it was for them."""
    black_box = config.get("black_box", {})
    output = black_box.pop("output", "softmax")
    added = {"classifier": {"output": output}, "data": {"random_labels": False}}
    if config["stage"] == "casm":
        added["casm"] = {"pool_dtype": "float32"}
    if config["stage"] == "black_box":
        added["masker"] = {"training_confidence": 0.0}
        added["black_box"] = {"area_offset": 0.0005}
        added["removal"] = {"blur_reach": 27 / 11}
    for section, fields in added.items():
        config[section] = {**fields, **config.get(section, {})}
    return config
