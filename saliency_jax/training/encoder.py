"""The pretrained encoder of the stage `black_box`, described by a section of its own.

`config.encoder` has the fields of `config.classifier` that make a network, and the
normalisation of its input. What is known of classifiers, and checked of them, holds for
encoders too: `as_classifier` shows one to that code.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from saliency_jax.errors import InputError
from saliency_jax.models import create
from saliency_jax.models.weights import count_classes
from saliency_jax.run_config import read_run_config
from saliency_jax.training import run_folder, start
from saliency_jax.training.checkpoints import saved_steps
from saliency_jax.types import PyTree

COPIED = ("network", *create.OPTIONS, "dtype", "init", "num_classes")


def as_classifier(config: ConfigDict) -> ConfigDict:
    """A config of the stage `classifier`, whose classifier is this one's encoder."""
    encoder = config.encoder.to_dict()
    mean, std = encoder.pop("mean"), encoder.pop("std")
    data = {**config.data.to_dict(), "mean": mean, "std": std, "class_names": ()}
    if Path(encoder["init"]).is_dir() and encoder["init"]:
        names = read_run_config(encoder["init"])["data"]["class_names"]
        data["class_names"] = tuple(names)
    return ConfigDict(
        {
            "stage": "classifier",
            "seed": config.seed,
            "form": config.form,
            "model": {"factory": ""},
            "data": data,
            "classifier": encoder,
        }
    )


def resolve_encoder(config: ConfigDict, workdir: Path) -> None:
    """Fills in what the encoder's weights decide, in place; after `run_folder.resolve`.

    Without a network of its own it is a copy of the black box.

    Raises:
      InputError: the encoder cannot be made or what is said of it does not agree.
    """
    encoder = config.encoder
    if not encoder.network:
        if config.classifier.function:
            raise InputError(
                "config.encoder.network is empty, and a function has no maps to copy: "
                "name the encoder's network and set --config.encoder.init to its "
                "weights"
            )
        _check_is_copy(config)
        encoder.update({name: config.classifier[name] for name in COPIED})
        encoder.mean, encoder.std = config.data.mean, config.data.std
        return
    with _speaking_of_the_encoder():
        filed = ConfigDict()
        if saved_steps(workdir, "last"):
            filed = ConfigDict(read_run_config(workdir))
        if "encoder" in filed:
            encoder.num_classes = filed.encoder.num_classes
            known = start.known_of_config(
                f"run {workdir}", as_classifier(filed), as_classifier(config)
            )
        else:
            encoder.num_classes = _classes_of_init(encoder)
            known = start.known_network(as_classifier(config), workdir)
        view = as_classifier(config)
        run_folder.resolve_network(view, known)
    encoder.update({name: view.classifier[name] for name in create.OPTIONS})
    encoder.mean, encoder.std = view.data.mean, view.data.std


def _check_is_copy(config: ConfigDict) -> None:
    """Refuses values for an encoder that is a copy of the black box."""
    own = {name: config.classifier[name] for name in (*create.OPTIONS, "init")}
    own |= {"mean": config.data.mean, "std": config.data.std}
    for name, of_black_box in own.items():
        given = config.encoder[name]
        if given and given != of_black_box:
            raise InputError(
                f"config.encoder.{name} = {given!r}, but without a network the encoder "
                "is a copy of the black box: set --config.encoder.network as well"
            )


def initial_encoder(config: ConfigDict) -> PyTree:
    """Returns the variables of the encoder that a new run starts from.

    Raises:
      InputError: `config.encoder.init` does not exist or does not fit.
    """
    with _speaking_of_the_encoder():
        return start.initial_classifier(as_classifier(config))


def _classes_of_init(encoder: ConfigDict) -> int:
    """How many classes the last layer of the encoder's weights tells apart."""
    path = Path(encoder.init)
    if not encoder.init or not path.exists():
        what = f"{path} does not exist" if encoder.init else "is empty"
        raise InputError(
            f"config.encoder.init {what}: name pretrained weights of "
            f"{encoder.network} (.pth, .safetensors) or a classifier run, or set "
            "--config.encoder.network= to use a copy of the black box"
        )
    if path.is_dir():
        return read_run_config(path)["classifier"]["num_classes"]
    options: dict[str, Any] = {**encoder.to_dict(), "num_classes": 1}
    return count_classes(path, create.create_classifier(options))


@contextlib.contextmanager
def _speaking_of_the_encoder() -> Iterator[None]:
    """Lets errors name the fields that the user knows the encoder's by."""
    try:
        yield
    except InputError as error:
        message = str(error).replace("config.data.", "config.encoder.")
        message = message.replace("config.classifier.", "config.encoder.")
        raise InputError(message) from error
