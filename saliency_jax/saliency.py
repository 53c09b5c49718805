"""A trained masker as a pytree, and the jitted function from images to maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from saliency_jax import masker_file
from saliency_jax.errors import InputError
from saliency_jax.masking import check_one_or_more
from saliency_jax.models.black_box import create_black_box
from saliency_jax.models.classifier import Classifier, normalise
from saliency_jax.models.create import (
    IMAGE_SIZE,
    create_classifier,
    create_masker,
    create_selective_masker,
    init_networks,
    init_selective_masker,
    masker_arguments,
)
from saliency_jax.models.masker import CasmMasker, EncoderMasker
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
      image_size: side in pixels of the images that it was trained at, None if unknown.
      function: `package.module:function`, where the classifier is a function of the
        user's own: its code is not saved, but imported again by that name.
    """

    variables: PyTree
    classifier: Classifier | None
    module: nn.Module = flax.struct.field(pytree_node=False)
    confidence: PyTree = 0.0
    encoder_mean: Sequence[float] = flax.struct.field(pytree_node=False, default=())
    encoder_std: Sequence[float] = flax.struct.field(pytree_node=False, default=())
    image_size: int | None = flax.struct.field(pytree_node=False, default=None)
    function: str = flax.struct.field(pytree_node=False, default="")

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

    def save(self, path: str | Path, *, int8: bool = False) -> None:
        """Writes the masker and its classifier as one file, for `load_masker`.

        The file is read without Orbax, holds no code, and gives every bit back. A
        network of the user's own is named in it and not saved, as in a run.

        Args:
          path: of the file, which ends in ".safetensors".
          int8: store the kernels in eight bits, for a file of about a quarter of the
            size; see `masker_file.quantise`. The maps change a little.

        Raises:
          InputError: a network that has no name, or the file cannot be written.
        """
        config, networks = _config_of(self), {"masker": self.variables}
        rebuilt = _without_variables(masker_file.nested(config))
        if rebuilt.module != self.module:
            raise InputError(
                f"this {type(self.module).__name__} is not one that a file can describe"
                ": make it by create.create_masker or create_selective_masker"
            )
        if _has_variables_of_its_own(self.classifier, self.function):
            networks["classifier"] = self.classifier.variables
        masker_file.write(Path(path), config, networks, int8=int8)

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
    under `jax.jit`, `jax.vmap`, `jax.grad` and on sharded images. Floats in NumPy that
    are far from [0, 1] are warned of.

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
      InputError: the images or the labels have another shape or are not finite, the
        masker does not know such a class, or it needs labels and there are none.
    """
    if not isinstance(masker, Masker):
        raise InputError(
            f"a masker of type {type(masker).__name__}: expected one that load_masker "
            "gives"
        )
    check_one_or_more(images)
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
    """Loads the masker of a run, or one that `Masker.save` has written.

    Args:
      workdir: the folder that `train.py` wrote, of stage casm or black_box; or a file
        that ends in ".safetensors".
      checkpoint: of a run: "last", "best" (judged on held-out training images with
        boxes) or the step of a kept checkpoint.

    Returns:
      The masker with its classifier. A black box that was a function of the user's own
      is imported again; where it cannot be, there is none, and `saliency_fn` needs
      labels.

    Raises:
      InputError: when the folder is no run with a masker or has no such checkpoint, or
        the file is missing, damaged or none of a masker.
    """
    path = Path(workdir)
    if path.suffix == masker_file.SUFFIX and not path.is_dir():
        if checkpoint != "last":
            raise InputError(
                f"masker file {path} holds one masker and no checkpoint {checkpoint!r}:"
                " leave the checkpoint out, or name the workdir of a run"
            )
        return _load_file(path)
    config = read_run_config(workdir)
    if config["stage"] not in _BUILDERS:
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
    masker = _without_variables(config)
    # Checkpoints are read only here; a program that makes maps does without orbax.
    from saliency_jax.training.checkpoints import restore_networks

    return _filled(masker, restore_networks(path, checkpoint, _shapes(masker))[0])


def _load_file(path: Path) -> Masker:
    config, arrays = masker_file.read(path)
    try:
        masker = _without_variables(config)
        like = _shapes(masker)
    except InputError as error:
        raise InputError(f"masker file {path}: {error}") from error
    except (TypeError, OverflowError) as error:
        # Numbers that no network has, where the code is not the user's own.
        if any(":" in section.get("network", "") for section in config.values()):
            raise
        raise InputError(
            f"masker file {path}: its networks cannot be built ({str(error):.80}): "
            f"{masker_file.KIND.advice}"
        ) from error
    return _filled(masker, masker_file.fit(path, arrays, like))


def _without_variables(config: Mapping[str, Any]) -> Masker:
    """The masker of a run's or a file's config, its variables still empty."""
    masker = _BUILDERS[config["stage"]](config)
    return masker.replace(image_size=config["data"]["image_size"])


def _build_casm(config: Mapping[str, Any]) -> Masker:
    module, data = create_classifier(config["classifier"]), config["data"]
    classifier = Classifier(
        {},
        module,
        data["mean"],
        data["std"],
        data["class_names"],
        config["classifier"]["output"],
    )
    return Masker({}, classifier, create_masker(config["masker"], module))


def _build_black_box(config: Mapping[str, Any]) -> Masker:
    encoder, section = config["encoder"], config["classifier"]
    module = create_selective_masker(
        config["masker"], create_classifier(encoder), section["num_classes"]
    )
    black_box = None
    if section["network"] or section["function"]:
        try:
            black_box = create_black_box(config)
        except InputError:
            if not section["function"]:
                raise
    return Masker(
        {},
        black_box,
        module,
        confidence=config["masker"]["confidence"],
        encoder_mean=encoder["mean"],
        encoder_std=encoder["std"],
        function=section["function"],
    )


_BUILDERS = {"casm": _build_casm, "black_box": _build_black_box}


def _has_variables_of_its_own(classifier: Classifier | None, function: str) -> bool:
    """Whether they are saved: those of a user's function are its own business."""
    return classifier is not None and not function


def _shapes(masker: Masker) -> PyTree:
    """Shapes of the variables that are saved, `{"masker": ..., "classifier": ...}`."""
    size, module = masker.image_size or IMAGE_SIZE, masker.module

    def init(key: Key[Array, ""]) -> PyTree:
        if not isinstance(module, SelectiveMasker):
            return init_networks(masker.classifier.module, module, key, size)
        networks = {"masker": init_selective_masker(module, key, size)}
        if _has_variables_of_its_own(masker.classifier, masker.function):
            networks |= init_networks(masker.classifier.module, None, key, size)
        return networks

    return jax.eval_shape(init, jax.random.key(0))


def _filled(masker: Masker, networks: Mapping[str, PyTree]) -> Masker:
    classifier = masker.classifier
    if "classifier" in networks:
        classifier = classifier.replace(variables=networks["classifier"])
    return masker.replace(variables=networks["masker"], classifier=classifier)


def _config_of(masker: Masker) -> dict[str, Any]:
    """What `_without_variables` makes the masker of, by the whole names of fields.

    Raises:
      InputError: a network that has no name.
    """
    module, classifier = masker.module, masker.classifier
    mean, std, labels, output = masker.encoder_mean, masker.encoder_std, (), "softmax"
    network = None
    if classifier is not None:
        mean, std = classifier.mean, classifier.std
        labels, output = classifier.labels, classifier.output
    if _has_variables_of_its_own(classifier, masker.function):
        network = classifier.module
    config = {
        "data.mean": _numbers(mean),
        "data.std": _numbers(std),
        "data.class_names": list(labels),
        **masker_file.network_fields("classifier", network),
        "classifier.output": output,
    }
    if masker.image_size is not None:
        config["data.image_size"] = masker.image_size
    if isinstance(module, SelectiveMasker):
        decoder = module.decoder
        return config | {
            "stage": "black_box",
            "classifier.num_classes": decoder.num_classes,
            "classifier.function": masker.function,
            **masker_file.network_fields("encoder", module.encoder),
            "encoder.mean": _numbers(masker.encoder_mean),
            "encoder.std": _numbers(masker.encoder_std),
            "masker.upsampling": decoder.upsampling,
            "masker.base": decoder.base,
            "masker.confidence": float(masker.confidence),
        }
    decoder = module.decoder if isinstance(module, EncoderMasker) else module
    if not isinstance(decoder, CasmMasker) or network is None:
        raise InputError(
            f"a masker {type(module).__name__} with classifier {network!r:.40} cannot "
            "be saved: expected one that load_masker has loaded"
        )
    return config | {
        "stage": "casm",
        "masker.encoder": "shared" if decoder is module else "own",
        "masker.taps": list(decoder.taps),
        "masker.features": decoder.features,
        "masker.final_upsampling": decoder.final_upsampling,
    }


def _numbers(colour: Sequence[float]) -> list[float]:
    return [float(value) for value in colour]
