"""A trained classifier, or a generator, by the name that a user gives it."""

from pathlib import Path
from typing import NamedTuple

import jax

from saliency_jax.errors import InputError
from saliency_jax.models.black_box import own_black_box
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import (
    create_backbone,
    create_classifier,
    find_backbone,
)
from saliency_jax.models.generator import Generator, create_generator, init_generator
from saliency_jax.models.weights import count_classes, load_weights, read_weights
from saliency_jax.models.weights_metadata import Unclear
from saliency_jax.run_config import read_run_config
from saliency_jax.training.known import known_of_file, network_values


class Loaded(NamedTuple):
    """A classifier and what is known of it besides.

    Attributes:
      classifier: in float32, with the normalisation of its own input.
      path: the run or the weights file that it comes from.
      image_size: side in pixels of the images that it was trained at; None for a
        weights file.
      step: of the run's checkpoint; None for a weights file.
    """

    classifier: Classifier
    path: Path
    image_size: int | None = None
    step: int | None = None


def load_classifier(named: str | Path) -> Classifier:
    """Loads a trained classifier.

    Args:
      named: the workdir of a run of any stage, whose last checkpoint is taken;
        `NETWORK=FILE`, a network of `models.create.BACKBONES` and its weights, such as
        "mobilenet_v2=mobilenet_v2_tf.safetensors"; or `package.module:function`, a
        function of yours from images in [0, 1] to logits, or a `Classifier`.

    Returns:
      The classifier, in float32. A weights file does not name its classes, so that one
      has no labels.

    Raises:
      InputError: there is no such classifier, or it cannot be read.
    """
    return load(str(named), "classifier").classifier


def load(named: str, role: str) -> Loaded:
    """Loads a classifier and what is known of it; see `load_classifier`.

    Args:
      named: as there.
      role: what a message calls it.
    """
    path = Path(named)
    network, equals, file = named.partition("=")
    if path.is_dir():
        return _of_run(path)
    if equals:
        return _of_file(network, Path(file))
    if ":" in named:
        return Loaded(own_black_box(named, flag=role), path)
    if path.is_file():
        raise InputError(
            f"{role} {named} is a file, which does not say of which network: name it "
            f"as NETWORK={named}, such as mobilenet_v2={named}"
        )
    raise InputError(
        f"{role} {named} does not exist: name the workdir of a run, NETWORK=FILE, such "
        "as mobilenet_v2=mobilenet_v2_tf.safetensors, or package.module:function"
    )


def load_generator(workdir: str | Path, checkpoint: str | int = "last") -> Generator:
    """Loads the generator of a run of the stage `generator`, with its discriminator.

    Args:
      workdir: the folder that `train.py` wrote.
      checkpoint: "last", or the step of a kept checkpoint.

    Raises:
      InputError: the folder is no such run, or has no such checkpoint.
    """
    from saliency_jax.training.checkpoints import restore_networks

    config = read_run_config(workdir, any_stage=True)
    if config["stage"] != "generator":
        raise InputError(
            f"{workdir} is a run of stage {config['stage']!r} and has no generator: "
            "train one with a config of stage generator, such as "
            "configs/generator_shapes.py"
        )
    networks = create_generator(
        config["data"]["image_size"],
        width=config["generator"]["width"],
        latent_size=config["generator"]["latent_size"],
        discriminator_width=config["discriminator"]["width"],
    )
    init = lambda key: init_generator(*networks, key)
    like = jax.eval_shape(init, jax.random.key(0))
    variables = restore_networks(Path(workdir), checkpoint, like)[0]
    return Generator(variables["generator"], variables["discriminator"], *networks)


def _of_run(workdir: Path) -> Loaded:
    # Orbax and grain take a second to import.
    from saliency_jax.training.start import restore_classifier

    config = read_run_config(workdir)
    size = config["data"]["image_size"]
    output = config["classifier"]["output"]
    if function := config["classifier"].get("function"):
        return Loaded(own_black_box(function, output), workdir, size)
    module = create_classifier(config["classifier"] | {"dtype": "float32"})
    variables, step = restore_classifier(workdir, module, size)
    data = config["data"]
    classifier = Classifier(
        variables, module, data["mean"], data["std"], data["class_names"], output
    )
    return Loaded(classifier, workdir, size, step)


def _of_file(network: str, path: Path) -> Loaded:
    backbone = find_backbone(network)
    read_weights(path)  # of a file that is missing or damaged it tells more
    values = network_values(network, known_of_file(path))
    for field, value in values.items():
        if isinstance(value, Unclear):
            raise InputError(
                f"weights file {path} describes its {value.entry} as {value.text!r}, "
                "which is in no known form: start a run of the stage classifier from "
                f"it with --config.{field}, and name that run"
            )
    options = {name: values[f"classifier.{name}"] for name in backbone.options}
    any_number = create_backbone(network, 1, **options)
    module = create_backbone(network, count_classes(path, any_number), **options)
    mean, std = values["data.mean"], values["data.std"]
    return Loaded(Classifier(load_weights(path, module), module, mean, std), path)
