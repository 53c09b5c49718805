"""Which classes a run knows, and whether the data mean the same by them."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from saliency_jax.data import sources
from saliency_jax.data.sources import Source
from saliency_jax.errors import InputError
from saliency_jax.loading import Loaded
from saliency_jax.models.black_box import count_classes
from saliency_jax.run_config import read_run_config


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


def check_fit(named: str, loaded: Loaded, source: Source, size: int) -> None:
    """Checks that a classifier tells as many classes apart as the data have.

    Args:
      named: as the user names it, for messages.
      loaded: the classifier. That of a run has to know the same classes; a weights file
        does not say which its classes are.
      source: the data.
      size: side of the images that it is shown.

    Raises:
      InputError: it does not, or it gives no logits.
    """
    if loaded.path.is_dir():
        check_classes(loaded.path, read_run_config(loaded.path), source)
    classes = count_classes(loaded.classifier, named, size)
    if classes != source.num_classes:
        raise InputError(
            f"{named} tells {classes} classes apart, {source.name} has "
            f"{source.num_classes}: name one that was trained on these classes, or "
            "train a last layer for them in the stage classifier, with "
            "--config.classifier.new_head=True, and name that run"
        )


def training_classes(
    config: dict[str, Any], data_dir: str
) -> Bool[np.ndarray, "K"] | None:
    """Returns which classes have an image in the training split of a run's data.

    Reads labels only, at random and no more of them than it takes to meet every class.

    Args:
      config: of the run.
      data_dir: the folder where its data set was prepared.

    Returns:
      None where the training split is not there (any more).
    """
    try:
        source = sources.open_source(config["data"]["name"], data_dir, "train")
    except InputError:
        return None
    present = np.zeros(source.num_classes, bool)
    for position in np.random.default_rng(0).permutation(len(source)).tolist():
        present[source[position]["label"]] = True
        if present.all():
            break
    return present
