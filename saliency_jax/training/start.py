"""Where a run's classifier comes from: a finished run, or an imported weights file."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import grain
import jax
from ml_collections import ConfigDict

from saliency_jax import prng
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import (
    OPTIONS,
    create_classifier,
    find_backbone,
    init_networks,
)
from saliency_jax.models.unfold import is_folded, unfold
from saliency_jax.models.weights import load_weights
from saliency_jax.run_config import read_run_config
from saliency_jax.training.checkpoints import restore_networks, saved_steps
from saliency_jax.training.known import NOTHING_KNOWN, Known, known_of_file
from saliency_jax.types import Batch, PyTree

UNFOLDING_IMAGES = 512

MUST_AGREE = (
    ("classifier", "network"),
    *(("classifier", option) for option in OPTIONS),
    ("classifier", "num_classes"),
    ("data", "mean"),
    ("data", "std"),
    ("data", "class_names"),
)


def known_network(config: ConfigDict, workdir: Path) -> Known:
    """What `run_folder.resolve` may fill in of the network that the run starts from.

    A resumed run starts from itself, any other from `config.classifier.init`: a
    weights file, of whose network the metadata tell, or a run.

    Raises:
      InputError: what is named cannot be read. It may be absent, though:
        `initial_classifier` says so.
    """
    if saved_steps(workdir, "last"):
        known = _known_of_run(workdir, config)
        # What the config sets besides is for `run_folder.prepare` to compare.
        fields = {f: v for f, v in known.values.items() if not _field(config, f)}
        return known._replace(values=fields)
    path = Path(config.classifier.init)
    if not config.classifier.init or not path.exists():
        return NOTHING_KNOWN
    if path.is_dir():
        return _known_of_run(path, config)
    return known_of_file(path)


def _known_of_run(workdir: Path, config: ConfigDict) -> Known:
    return known_of_config(
        f"classifier run {workdir}", read_run_config(workdir), config
    )


def known_of_config(
    source: str, other: Mapping[str, Any] | ConfigDict, config: ConfigDict
) -> Known:
    """What a resolved config of the same network tells, `source` says whose it is."""
    if other["classifier"]["network"] != config.classifier.network:
        return NOTHING_KNOWN  # reported where the runs are compared
    values = {f"data.{name}": tuple(other["data"][name]) for name in ("mean", "std")}
    values |= {f"classifier.{o}": other["classifier"].get(o) for o in OPTIONS}
    values = {field: value for field, value in values.items() if value}
    return Known(source, values)


def _field(config: ConfigDict, field: str) -> Any:
    section, name = field.split(".")
    return config[section][name]


def initial_classifier(config: ConfigDict) -> PyTree | None:
    """Returns the variables that `config.classifier.init` names, None for fresh ones.

    Raises:
      InputError: when another stage than `classifier` names none, or what is named does
        not fit.
    """
    init = config.classifier.init
    if not init:
        if config.stage != "classifier":
            # The form "mini" is for weights; no experiment trains its classifier.
            is_mini = config.form == "mini"
            maker = "" if is_mini else f"; this makes one: {classifier_command(config)}"
            raise InputError(
                f"the stage {config.stage} starts from a trained classifier: set "
                "--config.classifier.init to a classifier run or to a weights file "
                f"(.pth, .safetensors) of {config.classifier.network}{maker}"
            )
        if config.classifier.get("new_head", False):
            raise InputError(
                "config.classifier.new_head is the last layer on top of a weights "
                "file: set --config.classifier.init to a .pth or .safetensors file"
            )
        return None
    path = Path(init)
    if not path.exists():
        raise InputError(
            f"config.classifier.init = {init} does not exist: name a classifier run or "
            "a weights file"
        )
    wants_new_head = config.classifier.get("new_head", False)
    module = create_classifier(config.classifier)
    size = config.data.image_size
    if path.is_file():
        key = prng.stream_key(jax.random.key(config.seed), "new_head")
        return load_weights(
            path, module, (size, size, 3), key if wants_new_head else None
        )
    if wants_new_head:
        raise InputError(
            f"config.classifier.new_head is for weights files, and {init} is a run: "
            "leave it at False"
        )
    other, own = read_run_config(path), config.to_dict()
    # Runs of earlier versions have not filed every option.
    unfiled = OPTIONS | find_backbone(config.classifier.network).options
    # A classifier may go on with other labels, and an encoder does not answer.
    asked = config.stage != "classifier" and "output" in own["classifier"]
    for section, name in (*MUST_AGREE, *[("classifier", "output")] * asked):
        theirs, ours = other[section].get(name, unfiled.get(name)), own[section][name]
        if theirs != (list(ours) if isinstance(ours, tuple) else ours):
            raise InputError(
                f"classifier run {init} has {section}.{name} = {shorten(theirs)}, this "
                f"config has {shorten(ours)}: make them agree"
            )
    return restore_classifier(path, module, size)[0]


def initial_networks(config: ConfigDict) -> dict[str, PyTree]:
    """The classifier that a new run starts from, by its name; empty for a fresh one."""
    variables = initial_classifier(config)
    return {} if variables is None else {"classifier": variables}


def restore_classifier(
    workdir: Path, module: nn.Module, image_size: int
) -> tuple[PyTree, int]:
    """The variables of the classifier in a run's last checkpoint, and its step.

    Args:
      workdir: of a run of either stage.
      module: of the run's classifier.
      image_size: side of its images in pixels.

    Raises:
      InputError: when there is no checkpoint, or it does not fit.
    """
    like = jax.eval_shape(
        lambda key: init_networks(module, None, key, image_size), jax.random.key(0)
    )
    networks, step = restore_networks(workdir, "last", like)
    return networks["classifier"], step


def with_live_batch_norm(
    initial: PyTree, config: ConfigDict, data: grain.DatasetIterator[Batch]
) -> PyTree:
    """The classifier to start from, fit for training.

    That is as it is, unless its file has BatchNorm folded away: then the statistics of
    some training batches are put in; see `models.unfold`.

    Args:
      initial: from `initial_classifier`.
      config: resolved.
      data: the training iterator; it is put back to where it was.
    """
    if not is_folded(initial):
        return initial
    classifier = Classifier(
        initial,
        create_classifier(config.classifier),
        tuple(config.data.mean),
        tuple(config.data.std),
    )
    beginning = data.get_state()
    count = -(-UNFOLDING_IMAGES // config.data.batch_size)
    print(
        f"{config.classifier.init} has BatchNorm folded into the convolutions: its "
        f"statistics are measured on {count * config.data.batch_size} training images"
    )
    variables = unfold(classifier, (next(data)["image"] for _ in range(count)))
    data.set_state(beginning)
    return variables


def shorten(value: Any) -> str:
    """A value for a message; a list of a thousand classes is cut."""
    return textwrap.shorten(repr(value), 80)


def classifier_command(config: ConfigDict) -> str:
    """The command that trains a classifier on the config's data."""
    name = config.data.name
    base = name.partition("/")[0]
    # Data sets without experiments of their own go by those of the most similar one.
    experiments = {
        "shapes": "shapes",
        "shapes_pairs": "shapes",
        "tiny_imagenet": "tiny_imagenet",
        # CASM has no experiment for it either.
        "cifar10": "cifar10" if config.stage == "black_box" else "tiny_imagenet",
    }
    experiment = f"classifier_{experiments.get(base, 'imagenet')}"
    form = f":{config.form}" if config.form else ""
    command = f"python train.py --config configs/{experiment}.py{form}"
    if name not in ("shapes", "tiny_imagenet", "imagenet_loc", experiments.get(name)):
        command += f" --config.data.name={name}"
    if config.model.factory:
        command += f" --config.model.factory={config.model.factory}"
    if config.form == "pretrained":
        command += " --config.classifier.init=WEIGHTS_FILE"
    if config.data.data_dir != "data":
        command += f" --config.data.data_dir={config.data.data_dir}"
    return f"{command} --workdir runs/{experiment}"
