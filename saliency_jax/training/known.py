"""What is known of a network before a run, or anyone else, starts from it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from saliency_jax.errors import InputError
from saliency_jax.models import create
from saliency_jax.models.weights_metadata import (
    Unclear,
    read_metadata,
    told_by_metadata,
)


class Known(NamedTuple):
    """What is known of the network that a run starts from.

    Attributes:
      source: what knows it, for messages: "weights file PATH" or the like.
      values: by the names of a config's fields, such as "classifier.padding"; `Unclear`
        where there is something to know that nobody understands.
    """

    source: str = ""
    values: Mapping[str, Any] = {}


NOTHING_KNOWN = Known()


def known_of_file(path: Path) -> Known:
    """What a weights file's metadata tell of its network.

    Raises:
      InputError: it is not a readable safetensors file.
    """
    return Known(f"weights file {path}", told_by_metadata(read_metadata(path)))


def network_values(network: str, known: Known) -> dict[str, Any]:
    """A network's options and normalisation: what is known, else the network's own.

    Args:
      network: one of `create.BACKBONES`.
      known: of what the network's weights are taken from.

    Returns:
      By the names of a config's fields, those that the network has; `Unclear` where
      `known` is.

    Raises:
      InputError: the network is unknown, or what is known is of another network.
    """
    backbone = create.find_backbone(network)
    values = {"data.mean": backbone.mean, "data.std": backbone.std}
    values |= {f"classifier.{name}": v for name, v in backbone.options.items()}
    for field, told in known.values.items():
        name = field.partition(".")[2]
        if field in values:
            values[field] = told
        elif isinstance(told, Unclear):
            raise InputError(
                f"{known.source} describes its {told.entry} as {told.text!r}, which is "
                f"in no known form: mend that entry of its metadata, or remove it"
            )
        elif told != create.WITHOUT_OPTION.get(name):
            raise InputError(
                f"{known.source} is of a network with {name} = {told!r}, an option "
                f"that {network} does not have: name the network that it is of "
                "instead, or remove that entry of the file's metadata"
            )
    return values
