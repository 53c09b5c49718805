"""From a run's config to its networks; shared by training and `load_masker`."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from saliency_jax.errors import InputError
from saliency_jax.models.masker import CasmMasker, EncoderMasker
from saliency_jax.models.resnet import ResNet, resnet
from saliency_jax.types import PyTree

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create_classifier(config: Mapping[str, Any] | ConfigDict) -> ResNet:
    """Builds the classifier of a config's `classifier` section.

    Raises:
      InputError: for an unknown network, stem or dtype.
    """
    if config["dtype"] not in DTYPES:
        raise InputError(
            f"config.classifier.dtype = {config['dtype']!r}: expected one of "
            f"{tuple(DTYPES)}"
        )
    return resnet(
        config["network"],
        config["num_classes"],
        width=config["width"],
        stem=config["stem"],
        dtype=DTYPES[config["dtype"]],
    )


def create_masker(
    config: Mapping[str, Any] | ConfigDict, classifier: ResNet
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
    classifier: ResNet, masker: nn.Module | None, key: Key[Array, ""], image_size: int
) -> dict[str, PyTree]:
    """Fresh variables of a run's networks, `{"classifier": ..., "masker": ...}`.

    Under `jax.eval_shape` it gives the shapes at no cost.
    """
    key_classifier, key_masker = jax.random.split(key)
    images = jnp.zeros((1, image_size, image_size, 3))
    (_, taps), variables = classifier.init_with_output(key_classifier, images, False)
    networks = {"classifier": variables}
    if masker is not None:
        arguments = masker_arguments(masker, images, taps)
        networks["masker"] = masker.init(key_masker, *arguments, False)
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
    """An `EncoderMasker`'s variables with its encoder set to a trained classifier's."""
    return {
        collection: {**tree, "encoder": classifier_variables[collection]}
        for collection, tree in masker_variables.items()
    }
