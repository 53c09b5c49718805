"""Trained maskers, by the same call as the methods that need no training."""

from jaxtyping import Array, Float, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    classes_only,
    with_targets,
)
from saliency_jax.attribution.batching import in_batches
from saliency_jax.errors import InputError
from saliency_jax.models.selective_masker import SelectiveMasker
from saliency_jax.saliency import Masker, saliency_fn


def trained_masker(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    masker: Masker | None = None,
) -> Float[Array, "B H W"]:
    """The masks of a masker that was trained: one forward pass for each image.

    CASM's masks (Zolna, Geras and Cho, arXiv 1805.08249) are of no class; those of the
    real-time masker (Dabkowski and Gal, arXiv 1705.07857) show the class that is asked
    for. The classifier is not shown anything but the images: a masker looks with an
    encoder of its own, at the best of the size that it was trained at.

    Args:
      logits_fn: the classifier that is explained; it says which class is predicted.
      images: `[B, H, W, 3]`, `uint8` or floats in [0, 1].
      targets: a class, or one for each image; None for the predicted class.
      key: not used; all methods take one.
      batch_size: how many images go through the masker at once; None means all.
      masker: from `load_masker`.

    Returns:
      Masks in [0, 1], 1 = salient.

    Raises:
      InputError: there is no masker, the target is no class, or for arguments that do
        not fit each other or the classifier.
    """
    if masker is None:
        raise InputError("trained_masker needs masker, from load_masker(workdir)")
    asked = ask(logits_fn, images, targets, batch_size)
    if isinstance(masker.module, SelectiveMasker):
        asked = with_targets(asked)
    classes = classes_only("trained_masker", asked.targets)
    return in_batches(saliency_fn, asked.batch_size, masker, asked.images, classes)
