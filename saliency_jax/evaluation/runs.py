"""Finished runs with a masker, as `evaluate.py` needs them."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saliency_jax.data.sources import Source
from saliency_jax.errors import InputError
from saliency_jax.evaluation.classes import check_classes
from saliency_jax.evaluation.names import short_names
from saliency_jax.run_config import read_run_config
from saliency_jax.saliency import Masker, load_masker
from saliency_jax.training.checkpoints import saved_steps


class Run(NamedTuple):
    """A run of a stage that trains a masker.

    Attributes:
      workdir: its folder.
      config: as it was filed.
      masker: of the checkpoint.
      step: of the checkpoint.
    """

    workdir: Path
    config: dict[str, Any]
    masker: Masker
    step: int

    @property
    def stage(self) -> str:
        """What it trained, which also names its row: "casm" or "black_box"."""
        return self.config["stage"]

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that it was trained at."""
        return self.config["data"]["image_size"]

    @property
    def mean(self) -> tuple[float, ...]:
        """The colour in [0, 1] that stands for removed pixels."""
        return tuple(self.config["data"]["mean"])


def load_run(workdir: str | Path, checkpoint: str = "last") -> Run:
    """Loads a run that has a masker.

    Args:
      workdir: of the run.
      checkpoint: "last", "best", or the step of a kept one.

    Raises:
      InputError: when there is no such run or checkpoint, or when the classifier that
        it explains is gone.
    """
    workdir = Path(workdir)
    config = read_run_config(workdir)
    masker, step = load_checkpoint(workdir, checkpoint)
    if masker.classifier is None:
        raise InputError(
            f"{workdir} has no classifier at hand, and its evaluation needs the one "
            f"that it explains: bring {config['classifier']['function']} back, which "
            "its config.json names as classifier.function"
        )
    return Run(workdir, config, masker, step)


def with_confidence(run: Run, confidence: float) -> Run:
    """The run with another confidence of its masker.

    Raises:
      InputError: CASM's masks have none.
    """
    if run.stage != "black_box":
        raise InputError(
            f"--confidence={confidence} is for runs of stage black_box, and "
            f"{run.workdir} is of stage {run.stage}: leave it out"
        )
    return run._replace(masker=run.masker.replace(confidence=confidence))


def load_checkpoint(workdir: Path, checkpoint: str) -> tuple[Masker, int]:
    """Loads the masker of a checkpoint and says of which step it is.

    Raises:
      InputError: when there is no such run or checkpoint.
    """
    if checkpoint in ("last", "best"):
        steps = saved_steps(workdir, checkpoint)
        if checkpoint == "last" and steps:
            # By its number, for a run that goes on may save another meanwhile.
            return load_masker(workdir, steps[-1]), steps[-1]
        return load_masker(workdir, checkpoint), steps[-1]
    if not checkpoint.isdecimal():
        raise InputError(
            f"--checkpoint={checkpoint}: expected last, best or the step of a kept "
            "checkpoint"
        )
    return load_masker(workdir, int(checkpoint)), int(checkpoint)


def load_beside(
    named: Sequence[str], source: Source, taken: Container[str]
) -> dict[str, Run]:
    """Loads the last checkpoints of further runs, for rows in the same table.

    Args:
      named: their workdirs.
      source: the data, whose classes they have to know.
      taken: names of other rows.

    Returns:
      The runs in order, by the names of their folders, or by all of their paths where a
      name is taken or two would have the same.

    Raises:
      InputError: when there is no such run, or it does not fit the data.
    """
    runs = [load_run(workdir) for workdir in named]
    for run in runs:
        check_classes(run.workdir, run.config, source)
    names = short_names([run.workdir for run in runs], taken)
    return dict(zip(names, runs, strict=True))
