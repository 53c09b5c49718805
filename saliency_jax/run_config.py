"""The resolved config that `train.py` leaves beside a run."""

import json
from pathlib import Path
from typing import Any

from saliency_jax.errors import InputError


def read_run_config(workdir: str | Path, *, any_stage: bool = False) -> dict[str, Any]:
    """Reads the resolved config that `train.py` left beside a run, of any version.

    Args:
      workdir: of the run.
      any_stage: whether it may be of the stage generator, which has no classifier.

    Raises:
      InputError: when the folder is not a run, or one without a classifier.
    """
    path = Path(workdir) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{workdir} is not a run: {path} cannot be read ({error.strerror}); name "
            "the --workdir that train.py was given"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    has_stage = isinstance(config, dict) and {"stage", "data"} <= config.keys()
    is_generator = has_stage and config["stage"] == "generator"
    if not has_stage or not (is_generator or "classifier" in config):
        raise InputError(f"{path} is damaged: it is no config of a run")
    if not is_generator:
        return _as_now(config)
    if not any_stage:
        raise InputError(
            f"{workdir} is a run of stage 'generator', which has neither a classifier "
            "nor a masker: name a run of stage classifier, casm or black_box"
        )
    return config


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
