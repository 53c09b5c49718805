"""Classifiers that judge a masker's edited images, and where they come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from saliency_jax.data.sources import Source
from saliency_jax.evaluation import fingerprints
from saliency_jax.evaluation.classes import check_fit
from saliency_jax.evaluation.names import short_names
from saliency_jax.loading import load
from saliency_jax.models.classifier import Classifier
from saliency_jax.run_config import read_run_config


class Judge(NamedTuple):
    """A classifier that answers to edited images.

    Attributes:
      path: the run or the weights file that it comes from.
      classifier: with the normalisation of its own input.
      image_size: the side in pixels of the images that it is shown.
      step: of the run's checkpoint; None for a weights file.
    """

    path: Path
    classifier: Classifier
    image_size: int
    step: int | None = None

    def identity(self) -> list[str]:
        """What its answers go back to: those of another judge are asked for again."""
        fingerprint = fingerprints.of_classifier(self.classifier)
        return [str(self.path), str(self.step), fingerprint]


def load_judges(
    named: Sequence[str], source: Source, image_size: int
) -> dict[str, Judge]:
    """Loads the judges that a user names.

    Args:
      named: each the workdir of a run of any stage, or `NETWORK=FILE`, a network of
        `models.create.BACKBONES` and its weights.
      source: the data, whose classes the judges have to know. A weights file does not
        say which its classes are; only their number is checked.
      image_size: side of the images that a judge from a weights file is shown. One from
        a run is shown the size that it was trained at.

    Returns:
      The judges in order, by the last part of their path, or all of it where two would
      have one name.

    Raises:
      InputError: when a judge does not exist, does not fit the data, or comes twice.
    """
    judges = [load_judge(name, source, image_size) for name in named]
    names = short_names([judge.path for judge in judges])
    return dict(zip(names, judges, strict=True))


def load_judge(
    named: str, source: Source, image_size: int, flag: str = "--judges"
) -> Judge:
    """Loads one judge, that a flag names; see `load_judges`."""
    loaded = load(named, flag)
    size = loaded.image_size or image_size
    check_fit(f"{flag}={named}", loaded, source, size)
    return Judge(loaded.path, loaded.classifier, size, loaded.step)


def origins(path: Path) -> set[Path]:
    """What a classifier goes back to, as far as the folders are still there.

    Args:
      path: of a run or a weights file.

    Returns:
      It, what its classifier and its masker's encoder started from, what these started
      from, ...
    """
    found: set[Path] = set()
    left = [path]
    while left:
        path = left.pop().resolve()
        if path in found:
            continue
        found.add(path)
        if (path / "config.json").is_file():
            config = read_run_config(path)
            inits = [config.get(s, {}).get("init") for s in ("classifier", "encoder")]
            left += [Path(init) for init in inits if init]
    return found
