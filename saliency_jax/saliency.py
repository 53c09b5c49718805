"""A trained masker as a pytree, and the jitted function from images to maps."""

import functools
from pathlib import Path

import flax
import flax.linen as nn
import jax
from jaxtyping import Array, Float, Num

from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier, normalise
from saliency_jax.models.create import (
    create_classifier,
    create_masker,
    init_networks,
    masker_arguments,
)
from saliency_jax.run_config import read_run_config
from saliency_jax.types import Images, Logits, Masks, PyTree


@flax.struct.dataclass
class Masker:
    """A trained masker together with the classifier whose maps it reads.

    A pytree: pass it to jitted code as an argument, and other weights of the same
    architecture never recompile.

    Attributes:
      variables: of the masker.
      classifier: as trained beside it.
      module: `CasmMasker` or `EncoderMasker`.
    """

    variables: PyTree
    classifier: Classifier
    module: nn.Module = flax.struct.field(pytree_node=False)

    def __call__(self, images: Images) -> Masks:
        """Returns the masks of a batch; see `saliency_fn`."""
        return self.predict(images)[0]

    def predict(self, images: Images) -> tuple[Masks, Logits]:
        """Returns the masks and the classifier's logits, in one pass."""
        logits, taps = self.classifier.features(images)
        inputs = normalise(images, self.classifier.mean, self.classifier.std)
        arguments = masker_arguments(self.module, inputs, taps)
        return self.module.apply(self.variables, *arguments, False), logits


@jax.jit
def saliency_fn(masker: Masker, images: Num[Array, "..."]) -> Float[Array, "*B H W"]:
    """Returns saliency maps: for each pixel, how much the classification rests on it.

    Jitted, differentiable in the images (if they are floats) and in the masker, works
    under `jax.jit`, `jax.vmap`, `jax.grad` and on sharded images.

    Args:
      masker: from `load_masker`.
      images: RGB, `uint8` or floats in [0, 1]; one image `[H, W, 3]` or a batch, of any
        size (best is the size it was trained at).

    Returns:
      Masks in [0, 1], 1 = salient; `float32`.

    Raises:
      InputError: the images have another shape.
    """
    if images.ndim not in (3, 4) or images.shape[-1] != 3:
        raise InputError(
            f"images of shape {images.shape}: expected [H, W, 3] or [B, H, W, 3], RGB"
        )
    if images.ndim == 3:
        return masker(images[None])[0]
    return masker(images)


def load_masker(workdir: str | Path, checkpoint: str | int = "last") -> Masker:
    """Loads the masker of a CASM run.

    Args:
      workdir: the folder that `train.py` wrote.
      checkpoint: "last", "best" (judged on held-out training images with boxes) or the
        step of a kept checkpoint.

    Raises:
      InputError: when the folder is not a CASM run or has no such checkpoint.
    """
    config = read_run_config(workdir)
    if config["stage"] != "casm":
        raise InputError(
            f"{workdir} is a run of stage {config['stage']!r} and has no masker: train "
            f"one from it with a config of stage casm and "
            f"--config.classifier.init={workdir}"
        )
    if isinstance(checkpoint, str) and checkpoint.isdecimal():
        checkpoint = int(checkpoint)
    # Checkpoints are read only here; a program that makes maps does without orbax.
    from saliency_jax.training.checkpoints import restore_networks

    # Maps are worth more than the memory that bfloat16 spares in training.
    classifier = create_classifier(config["classifier"] | {"dtype": "float32"})
    module = create_masker(config["masker"], classifier)
    size, key = config["data"]["image_size"], jax.random.key(0)
    like = jax.eval_shape(
        functools.partial(init_networks, classifier, module, image_size=size), key
    )
    networks, _ = restore_networks(Path(workdir), checkpoint, like)
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
