"""The resolved config that `train.py` leaves beside a run."""

import json
from pathlib import Path
from typing import Any

from saliency_jax.errors import InputError


def read_run_config(workdir: str | Path) -> dict[str, Any]:
    """Reads the resolved config that `train.py` left beside a run.

    Raises:
      InputError: when the folder is not a run.
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
    sections = {"stage", "data", "classifier"}
    if not isinstance(config, dict) or not sections <= config.keys():
        raise InputError(f"{path} is damaged: it is no config of a run")
    return config
