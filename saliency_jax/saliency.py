"""A trained masker as a pytree, and the jitted function from images to maps."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from saliency_jax.errors import InputError
from saliency_jax.models.black_box import create_black_box
from saliency_jax.models.classifier import Classifier, normalise
from saliency_jax.models.create import (
    create_classifier,
    create_masker,
    create_selective_masker,
    init_networks,
    init_selective_masker,
    masker_arguments,
)
from saliency_jax.models.selective_masker import SelectiveMasker
from saliency_jax.run_config import read_run_config
from saliency_jax.types import Images, Labels, Logits, Masks, PyTree


@flax.struct.dataclass
class Masker:
    """A trained masker together with its classifier.

    A pytree: pass it to jitted code as an argument, and other weights of the same
    architecture never recompile.

    Attributes:
      variables: of the masker.
      classifier: whose maps a CASM masker reads, as trained beside it; or the black box
        that a `SelectiveMasker` explains, which is None where nobody has it any more.
      module: `CasmMasker`, `EncoderMasker` or `SelectiveMasker`.
      confidence: a number, of a `SelectiveMasker`; see `FeatureFilter`.
      encoder_mean: of the input of a `SelectiveMasker`'s encoder, for each channel of
        images in [0, 1]. Empty: the classifier's.
      encoder_std: likewise.
    """

    variables: PyTree
    classifier: Classifier | None
    module: nn.Module = flax.struct.field(pytree_node=False)
    confidence: PyTree = 0.0
    encoder_mean: Sequence[float] = flax.struct.field(pytree_node=False, default=())
    encoder_std: Sequence[float] = flax.struct.field(pytree_node=False, default=())

    def __post_init__(self) -> None:
        for name in ("encoder_mean", "encoder_std"):  # `jax.jit` hashes what is static
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def __call__(self, images: Images, labels: Labels | None = None) -> Masks:
        """Returns the masks of a batch; see `saliency_fn`."""
        if labels is not None and isinstance(self.module, SelectiveMasker):
            return self._selective_masks(images, labels)
        return self.predict(images, labels)[0]

    def predict(
        self, images: Images, labels: Labels | None = None
    ) -> tuple[Masks, Logits]:
        """Returns the masks and the classifier's logits; see `saliency_fn`.

        Raises:
          InputError: there is no classifier.
        """
        if self.classifier is None:
            raise InputError(
                "this masker has no classifier at hand, so it cannot predict a class: "
                "pass labels, the classes to explain"
            )
        logits, taps = self.classifier.features(images)
        if isinstance(self.module, SelectiveMasker):
            labels = jnp.argmax(logits, axis=-1) if labels is None else labels
            return self._selective_masks(images, labels), logits
        inputs = normalise(images, self.classifier.mean, self.classifier.std)
        arguments = masker_arguments(self.module, inputs, taps)
        return self.module.apply(self.variables, *arguments, False), logits

    def _selective_masks(self, images: Images, labels: Labels) -> Masks:
        mean = self.encoder_mean or self.classifier.mean
        std = self.encoder_std or self.classifier.std
        inputs = normalise(images, mean, std)
        masks, _ = self.module.apply(
            self.variables, inputs, labels, False, self.confidence
        )
        return masks


def saliency_fn(
    masker: Masker,
    images: Num[Array | np.ndarray, "..."],
    labels: int | Int[Array | np.ndarray, "*B"] | None = None,
) -> Float[Array, "*B H W"]:
    """Returns saliency maps: for each pixel, how much the classification rests on it.

    Jitted, differentiable in the images (if they are floats) and in the masker, works
    under `jax.jit`, `jax.vmap`, `jax.grad` and on sharded images.

    Args:
      masker: from `load_masker`.
      images: RGB, `uint8` or floats in [0, 1]; one image `[H, W, 3]` or a batch, of any
        size (best is the size it was trained at).
      labels: the class that each map explains, or one class for all. None: the class
        that the masker's classifier predicts. A CASM masker's maps are of no class, and
        it ignores them.

    Returns:
      Masks in [0, 1], 1 = salient; `float32`.

    Raises:
      InputError: the images or the labels have another shape, the masker does not know
        such a class, or it needs labels and there are none.
    """
    if images.ndim not in (3, 4) or images.shape[-1] != 3:
        raise InputError(
            f"images of shape {images.shape}: expected [H, W, 3] or [B, H, W, 3], RGB"
        )
    if labels is None:
        return _jitted(masker, jnp.asarray(images), None)
    shape = images.shape[:-3]
    if jnp.shape(labels) not in ((), shape):
        raise InputError(
            f"labels of shape {jnp.shape(labels)} for images of shape {images.shape}: "
            f"expected one class for each image, {shape}, or one number"
        )
    if isinstance(masker.module, SelectiveMasker):
        _check_classes(labels, masker.module.decoder.num_classes)
    labels = jnp.broadcast_to(jnp.asarray(labels), shape)
    return _jitted(masker, jnp.asarray(images), labels)


def _check_classes(labels: Any, num_classes: int) -> None:
    """Refuses unknown classes, which indexing would silently clip."""
    if isinstance(labels, jax.core.Tracer):
        return  # inside somebody's jit: not known yet
    labels = np.atleast_1d(labels)
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise InputError(
            f"label {wrong[0]}: the masker knows classes 0 to {num_classes - 1}"
        )


@jax.jit
def _jitted(
    masker: Masker, images: Num[Array, "*B H W 3"], labels: Int[Array, "*B"] | None
) -> Float[Array, "*B H W"]:
    if images.ndim == 4:
        return masker(images, labels)
    return masker(images[None], None if labels is None else labels[None])[0]


def load_masker(workdir: str | Path, checkpoint: str | int = "last") -> Masker:
    """Loads the masker of a run.

    Args:
      workdir: the folder that `train.py` wrote, of stage casm or black_box.
      checkpoint: "last", "best" (judged on held-out training images with boxes) or the
        step of a kept checkpoint.

    Returns:
      The masker with its classifier. A black box that was a function of the user's own
      is imported again; where it cannot be, there is none, and `saliency_fn` needs
      labels.

    Raises:
      InputError: when the folder is no run with a masker or has no such checkpoint.
    """
    config = read_run_config(workdir)
    if config["stage"] not in _LOADERS:
        raise InputError(
            f"{workdir} is a run of stage {config['stage']!r} and has no masker: train "
            f"one from it with a config of stage casm or black_box and "
            f"--config.classifier.init={workdir}, or evaluate methods on it with "
            "evaluate.py --classifier"
        )
    if isinstance(checkpoint, str) and checkpoint.isdecimal():
        checkpoint = int(checkpoint)
    # Maps are worth more than the memory that bfloat16 spares in training.
    for section in ("classifier", "encoder"):
        if section in config:
            config[section] |= {"dtype": "float32"}
    return _LOADERS[config["stage"]](config, Path(workdir), checkpoint)


def _load_casm(config: dict[str, Any], workdir: Path, checkpoint: str | int) -> Masker:
    classifier = create_classifier(config["classifier"])
    module = create_masker(config["masker"], classifier)
    init = functools.partial(init_networks, classifier, module)
    networks = _restore(workdir, checkpoint, config, init)
    data = config["data"]
    return Masker(
        variables=networks["masker"],
        classifier=Classifier(
            networks["classifier"],
            classifier,
            data["mean"],
            data["std"],
            data["class_names"],
        ),
        module=module,
    )


def _load_black_box(
    config: dict[str, Any], workdir: Path, checkpoint: str | int
) -> Masker:
    encoder, function = config["encoder"], config["classifier"]["function"]
    module = create_selective_masker(
        config["masker"],
        create_classifier(encoder),
        config["classifier"]["num_classes"],
    )
    try:
        black_box = create_black_box(config)
    except InputError:
        if not function:
            raise
        black_box = None

    def init(key: Key[Array, ""], image_size: int) -> PyTree:
        networks = {"masker": init_selective_masker(module, key, image_size)}
        if not function:
            networks |= init_networks(black_box.module, None, key, image_size)
        return networks

    networks = _restore(workdir, checkpoint, config, init)
    if not function:
        black_box = black_box.replace(variables=networks["classifier"])
    return Masker(
        variables=networks["masker"],
        classifier=black_box,
        module=module,
        confidence=config["masker"]["confidence"],
        encoder_mean=encoder["mean"],
        encoder_std=encoder["std"],
    )


def _restore(
    workdir: Path,
    checkpoint: str | int,
    config: dict[str, Any],
    init: Callable[..., PyTree],
) -> PyTree:
    # Checkpoints are read only here; a program that makes maps does without orbax.
    from saliency_jax.training.checkpoints import restore_networks

    init = functools.partial(init, image_size=config["data"]["image_size"])
    like = jax.eval_shape(init, jax.random.key(0))
    return restore_networks(workdir, checkpoint, like)[0]


_LOADERS = {"casm": _load_casm, "black_box": _load_black_box}
