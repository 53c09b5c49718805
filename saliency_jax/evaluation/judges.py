"""Classifiers that judge a masker's edited images, and where they come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from saliency_jax.data.sources import Source
from saliency_jax.errors import InputError
from saliency_jax.evaluation.classes import check_classes
from saliency_jax.evaluation.names import short_names
from saliency_jax.models.black_box import own_black_box
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import (
    create_backbone,
    create_classifier,
    find_backbone,
)
from saliency_jax.models.weights import load_weights, read_weights
from saliency_jax.models.weights_metadata import Unclear
from saliency_jax.run_config import read_run_config
from saliency_jax.training import run_folder, start


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


def load_judge(named: str, source: Source, image_size: int) -> Judge:
    """Loads one judge; see `load_judges`."""
    path = Path(named)
    network, equals, file = named.partition("=")
    if path.is_dir():
        return _judge_from_run(path, source)
    if equals:
        return _judge_from_file(network, Path(file), source, image_size)
    if path.is_file():
        raise InputError(
            f"judge {named} is a file, which does not say of which network: name it as "
            f"NETWORK={named}, such as mobilenet_v2={named}"
        )
    raise InputError(
        f"judge {named} does not exist: name the workdir of a run, or NETWORK=FILE, "
        "such as mobilenet_v2=mobilenet_v2_tf.safetensors"
    )


def _judge_from_run(workdir: Path, source: Source) -> Judge:
    config = read_run_config(workdir)
    check_classes(workdir, config, source)
    size = config["data"]["image_size"]
    output = config["classifier"]["output"]
    if function := config["classifier"].get("function"):
        return Judge(workdir, own_black_box(function, output), size)
    module = create_classifier(config["classifier"] | {"dtype": "float32"})
    variables, step = start.restore_classifier(workdir, module, size)
    mean, std = tuple(config["data"]["mean"]), tuple(config["data"]["std"])
    classifier = Classifier(variables, module, mean, std, output=output)
    return Judge(workdir, classifier, size, step)


def _judge_from_file(
    network: str, path: Path, source: Source, image_size: int
) -> Judge:
    backbone = find_backbone(network)
    arrays = read_weights(path)
    values = run_folder.network_values(network, start.known_of_file(path))
    for field, value in values.items():
        if isinstance(value, Unclear):
            raise InputError(
                f"weights file {path} describes its {value.entry} as {value.text!r}, "
                "which is in no known form: start a run of the stage classifier from "
                f"it with --config.{field}, and name that run as the judge"
            )
    options = {name: values[f"classifier.{name}"] for name in backbone.options}
    module = create_backbone(network, source.num_classes, **options)
    bias = arrays.get(module.weight_names.head[1])
    if bias is not None and bias.size != source.num_classes:
        raise InputError(
            f"weights file {path} tells {bias.size} classes apart, {source.name} has "
            f"{source.num_classes}: train a last layer for them in the stage "
            "classifier, with --config.classifier.new_head=True, and name that run as "
            "the judge"
        )
    variables = load_weights(path, module, (image_size, image_size, 3))
    mean, std = values["data.mean"], values["data.std"]
    return Judge(path, Classifier(variables, module, mean, std), image_size)


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
