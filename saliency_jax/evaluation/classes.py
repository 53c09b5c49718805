"""Whether a run's classifier and the data mean the same by a class."""

from pathlib import Path
from typing import Any

from saliency_jax.data.sources import Source
from saliency_jax.errors import InputError


def check_classes(workdir: Path, config: dict[str, Any], source: Source) -> None:
    """Checks that a run's classifier knows the classes of the data, in their order.

    Args:
      workdir: of the run.
      config: of the run.
      source: the data.

    Raises:
      InputError: when the classes differ; the message says where first.
    """
    theirs = tuple(config["data"]["class_names"])
    if theirs == source.class_names:
        return
    difference = ""
    if len(theirs) == source.num_classes:
        pairs = zip(theirs, source.class_names, strict=True)
        index, (their, our) = next(
            (index, pair) for index, pair in enumerate(pairs) if pair[0] != pair[1]
        )
        difference = f" (class {index} is {their!r} there and {our!r} here)"
    raise InputError(
        f"{workdir} was trained on {config['data']['name']} with {len(theirs)} "
        f"classes, {source.name} has {source.num_classes}, and they are not the same"
        f"{difference}: its accuracy would mean nothing; use data and runs of the same "
        "classes in the same order"
    )
