"""From a run's config to its networks; shared by training and `load_masker`."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from saliency_jax.errors import InputError, unknown
from saliency_jax.models.backbone import Backbone
from saliency_jax.models.masker import CasmMasker, EncoderMasker
from saliency_jax.models.own_network import own_backbone
from saliency_jax.models.selective_masker import SelectiveDecoder, SelectiveMasker
from saliency_jax.models.weights import names_of
from saliency_jax.types import PyTree

# A new backbone is its file in this folder, with a table `BACKBONES`, and a line here.
FILES = (
    "resnet",
    "mobilenet_v1",
    "mobilenet_v2",
    "squeezenet",
    "googlenet",
    "vgg",
    "small_cnn",
)
BACKBONES: dict[str, Backbone] = {
    name: backbone
    for file in FILES
    for name, backbone in importlib.import_module(
        f"saliency_jax.models.{file}"
    ).BACKBONES.items()
}

# The options that some backbones have, by their fields in a config's `classifier`, and
# what stands there for "as the weights say, else the backbone's default".
OPTIONS = {
    "width": 0,
    "stem": "",
    "width_multiplier": 0.0,
    "padding": "",
    "epsilon": 0.0,
}

# What a network without the option does.
WITHOUT_OPTION = {"width_multiplier": 1.0, "padding": "symmetric"}

IMAGE_SIZE = 224
"""Side in pixels where neither a network nor a user says which."""

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def find_backbone(name: str) -> Backbone:
    """Returns what is known of a network: of the registry, or `module:function`.

    Raises:
      InputError: it is unknown; the message lists those that are.
    """
    if ":" in name:
        return own_backbone(name)
    if name not in BACKBONES:
        raise InputError(unknown("network", name, BACKBONES))
    return BACKBONES[name]


def create_backbone(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Returns the network of that name, such as "resnet50".

    Args:
      name: one of `BACKBONES`.
      num_classes: K.
      **options: of this network, such as `width` of a ResNet, and `dtype`.

    Raises:
      InputError: the name is unknown.
    """
    return find_backbone(name).create(num_classes=num_classes, **options)


def create_classifier(config: Mapping[str, Any] | ConfigDict) -> nn.Module:
    """Builds the classifier of a config's `classifier` section.

    Options that are left empty, or are absent as in runs of earlier versions, take the
    backbone's defaults.

    Raises:
      InputError: for an unknown network or dtype, or an option that the network does
        not have.
    """
    if config["dtype"] not in DTYPES:
        raise InputError(
            f"config.classifier.dtype = {config['dtype']!r}: expected one of "
            f"{tuple(DTYPES)}"
        )
    name = config["network"]
    backbone = find_backbone(name)
    given = {option: config[option] for option in OPTIONS if config.get(option)}
    for option, value in given.items():
        if option not in backbone.options:
            raise InputError(unknown_option(name, option, value))
    options = {**backbone.options, **given}
    return create_backbone(
        name, config["num_classes"], dtype=DTYPES[config["dtype"]], **options
    )


def unknown_option(network: str, option: str, value: Any) -> str:
    """The message for an option of a config that its network does not have."""
    known = ", ".join(find_backbone(network).options) or "no option at all"
    return (
        f"config.classifier.{option} = {value!r}, but {network} has {known}: set it to "
        f"{OPTIONS[option]!r}"
    )


def create_masker(
    config: Mapping[str, Any] | ConfigDict, classifier: nn.Module
) -> nn.Module:
    """Builds the masker of a config's `masker` section.

    With `encoder` "shared" it reads the classifier's maps; with "own" it has an encoder
    of the classifier's architecture, which it trains.

    Raises:
      InputError: for any other `encoder`.
    """
    decoder = CasmMasker(
        taps=tuple(config["taps"]),
        features=config["features"],
        final_upsampling=config["final_upsampling"],
        dtype=classifier.dtype,
    )
    if config["encoder"] == "shared":
        return decoder
    if config["encoder"] == "own":
        return EncoderMasker(classifier.copy(), decoder)
    raise InputError(
        f"config.masker.encoder = {config['encoder']!r}: expected 'shared' or 'own'"
    )


def init_networks(
    classifier: nn.Module,
    masker: nn.Module | None,
    key: Key[Array, ""],
    image_size: int,
) -> dict[str, PyTree]:
    """Fresh variables of a run's networks, `{"classifier": ..., "masker": ...}`.

    Each has "params" and "batch_stats", the latter empty where there is no BatchNorm.
    Under `jax.eval_shape` it gives the shapes at no cost.
    """
    key_classifier, key_masker = jax.random.split(key)
    images = jnp.zeros((1, image_size, image_size, 3))
    (_, taps), variables = classifier.init_with_output(key_classifier, images, False)
    networks = {"classifier": {"batch_stats": {}, **variables}}
    if masker is not None:
        arguments = masker_arguments(masker, images, taps)
        variables = masker.init(key_masker, *arguments, False)
        networks["masker"] = {"batch_stats": {}, **variables}
    return networks


def masker_arguments(
    masker: nn.Module,
    inputs: Float[Array, "B H W 3"],
    taps: Sequence[Float[Array, "B _ _ _"]],
) -> tuple[Any, ...]:
    """What a masker is called with, before `train`.

    Args:
      masker: `EncoderMasker`, which reads images, or `CasmMasker`, which reads maps.
      inputs: normalised images.
      taps: the classifier's maps of them.
    """
    if isinstance(masker, EncoderMasker):
        return (inputs,)
    return (taps, inputs.shape[1:3])


def with_encoder(masker_variables: PyTree, classifier_variables: PyTree) -> PyTree:
    """A masker's variables with its encoder set to a trained classifier's."""
    return {
        collection: {
            name: classifier_variables[collection] if name == "encoder" else branch
            for name, branch in tree.items()
        }
        for collection, tree in masker_variables.items()
    }


def create_selective_masker(
    config: Mapping[str, Any] | ConfigDict, encoder: nn.Module, num_classes: int
) -> SelectiveMasker:
    """Builds the masker of a config's `masker` section in the stage `black_box`.

    Args:
      config: the section.
      encoder: of `create_classifier`, for the config's `encoder`.
      num_classes: of the black box.
    """
    decoder = SelectiveDecoder(
        num_classes,
        upsampling=config["upsampling"],
        base=config["base"],
        dtype=encoder.dtype,
    )
    return SelectiveMasker(encoder, decoder)


def init_selective_masker(
    masker: SelectiveMasker, key: Key[Array, ""], image_size: int
) -> PyTree:
    """Fresh variables of a masker, its encoder's included; see `with_encoder`."""
    images = jnp.zeros((1, image_size, image_size, 3))
    variables = masker.init(key, images, jnp.zeros((1,), jnp.int32), False)
    return {"batch_stats": {}, **variables}


def head_kernel(module: nn.Module, params: PyTree) -> Float[Array, "K C"]:
    """The weights of a network's last layer, a row for each class.

    Raises:
      InputError: nothing says which layer that is.
    """
    names = names_of(module)
    flat = flax.traverse_util.flatten_dict({"params": params})
    (kernel,) = (
        leaf for path, leaf in flat.items() if names.name(path) == names.head[0]
    )
    return kernel.reshape(-1, kernel.shape[-1]).T
