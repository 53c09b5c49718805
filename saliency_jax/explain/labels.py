"""Names of classes from a file."""

from collections.abc import Sequence
from pathlib import Path

from saliency_jax.errors import InputError


def read_labels(path: Path) -> tuple[str, ...]:
    """The names of the classes from a file with a line for each.

    A line may begin with a WordNet number, as ImageNet's own `LOC_synset_mapping.txt`
    has it.

    Raises:
      InputError: it cannot be read, or has no line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--labels={path} cannot be read ({error}): expected a text file with the "
            "name of a class on each line"
        ) from error
    names = []
    for line in lines:
        first, _, rest = line.strip().partition(" ")
        is_number = len(first) == 9 and first[0] == "n" and first[1:].isdecimal()
        names.append(rest if is_number and rest else line.strip())
    if not names:
        raise InputError(
            f"--labels={path} is empty: expected the name of a class on each line"
        )
    return tuple(names)


def check_labels(labels: Sequence[str], classes: int) -> None:
    """Checks that there are no names, or one for each class of a classifier.

    Raises:
      InputError: there are more or fewer.
    """
    if labels and len(labels) != classes:
        raise InputError(
            f"{len(labels)} labels for {classes} classes: name every class of the "
            "classifier, in order"
        )
