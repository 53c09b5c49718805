"""The gradient's map, averaged over ten parts of an image.

Simonyan, Vedaldi and Zisserman: Deep inside convolutional networks (arXiv 1312.6034),
section 3.1.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from saliency_jax.attribution.asking import (
    GivenImages,
    GivenTargets,
    LogitsFn,
    ask,
    check_unit,
    with_targets,
)
from saliency_jax.attribution.batching import chunk_of, in_batches, over_samples
from saliency_jax.attribution.gradients.at_layers import (
    activations_shape,
    layer_gradients,
)
from saliency_jax.attribution.layers import (
    INPUT,
    AskedLayer,
    Layer,
    Targets,
    Unit,
    as_layer,
)
from saliency_jax.attribution.maps import Maps, Reduction, Upsampling, to_maps
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier

_CROPS = 10


def ten_crop_gradient(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets = None,
    *,
    key: Key[Array, ""] | None = None,
    batch_size: int | None = None,
    crop_size: int | tuple[int, int] | None = None,
    resize: bool = False,
    layer: Layer = None,
    reduction: Reduction = "max_abs",
    upsampling: Upsampling = "bilinear",
) -> Maps:
    """The mean map of the gradient over ten crops: corners and centre, and mirrored.

    Simonyan et al. (arXiv 1312.6034), section 3.1, print no more than that the maps of
    ten cropped and reflected sub-images are averaged. Here each crop has its map, which
    is mirrored back and laid where the crop was; each pixel has the mean of the crops
    that show it. No other library has it.

    Args:
      logits_fn: a `Classifier`, or a function from images in [0, 1] to logits.
      images: `[B, H, W, C]`, `uint8` or floats in [0, 1].
      targets: as for `gradient`; None for the class that is predicted for the whole
        image. The position of a `Unit` counts in the layer's maps of each crop.
      key: not used; all methods take one.
      batch_size: how many crops go through the classifier at once; None means 32, or
        all images if they are more.
      crop_size: height and width of a crop, in pixels; None means 7/8 of the image's,
        which are 224 of 256 and 196 of 224.
      resize: whether a crop is made as large as the image, bilinearly, before the
        classifier sees it. For classifiers that take images of one size only, and
        those that expect an object in one size; the others see the crop as it is.
      layer: as for `gradient`.
      reduction: as for `gradient`, of each crop.
      upsampling: of a layer's gradient to the crop's size: "bilinear" or "nearest".

    Returns:
      float32 maps, in units of `gradient`; 0 where no crop shows a pixel.

    Raises:
      InputError: for arguments that do not fit each other or the classifier.
    """
    if upsampling is None:
        raise InputError(
            "upsampling is None: maps of crops are laid on the image, so it must be "
            "'bilinear' or 'nearest'"
        )
    asked = with_targets(ask(logits_fn, images, targets, batch_size))
    size, channels = asked.images.shape[1:3], asked.images.shape[3]
    crop = _crop_of(size, crop_size)
    if isinstance(targets, Unit):
        seen = size if resize else crop
        check_unit(asked.classifier, (*seen, channels), targets)
    return in_batches(
        _of_batch,
        asked.batch_size,
        (asked.classifier, as_layer(layer or INPUT)),
        asked.images,
        asked.targets,
        crop=crop,
        at_once=asked.batch_size,
        resize=resize,
        reduction=reduction,
        upsampling=upsampling,
    )


def _crop_of(
    size: tuple[int, int], crop_size: int | tuple[int, int] | None
) -> tuple[int, int]:
    if crop_size is None:
        return tuple(max(1, round(7 * side / 8)) for side in size)
    crop = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
    if not all(1 <= part <= side for part, side in zip(crop, size, strict=True)):
        raise InputError(
            f"crop_size={crop_size}: expected 1 to {size[0]} rows and 1 to {size[1]} "
            f"columns, the image's"
        )
    return crop


def _corners(size: tuple[int, int], crop: tuple[int, int]) -> Int[np.ndarray, "5 2"]:
    """The first row and column of the corner crops and the centre crop."""
    last = np.subtract(size, crop)
    return np.stack(
        [last * (row, column) for row in (0, 1) for column in (0, 1)] + [last // 2]
    )


def _of_batch(
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    targets: Targets,
    crop: tuple[int, int],
    at_once: int,
    reduction: Reduction,
    **options: str | bool,
) -> Maps:
    size = images.shape[1:3]
    channels = () if reduction else activations_shape(asked, images)[-1:]
    sums = over_samples(
        _add_chunk,
        jnp.zeros((len(images), *size, *channels)),
        len(images),
        _CROPS,
        at_once,
        asked,
        images,
        targets,
        crop=crop,
        reduction=reduction,
        **options,
    )
    counts = np.zeros(size, np.float32)
    for row, column in _corners(size, crop):
        counts[row : row + crop[0], column : column + crop[1]] += 2
    counts = np.maximum(counts, 1).reshape(1, *size, *(1,) * len(channels))
    return sums / counts


@partial(
    jax.jit,
    static_argnames=("size", "samples", "crop", "resize", "reduction", "upsampling"),
)
def _add_chunk(
    sums: Maps,
    i: Int[Array, ""],
    asked: tuple[Classifier, AskedLayer],
    images: Float[Array, "B H W C"],
    targets: Targets,
    size: int,
    samples: int,
    crop: tuple[int, int],
    resize: bool,
    reduction: Reduction,
    upsampling: Upsampling,
) -> Maps:
    chunk = chunk_of(i, size, len(images), samples)
    corners = jnp.asarray(_corners(images.shape[1:3], crop))[chunk.samples % 5]
    mirrored = chunk.samples >= 5

    def turned(values: Array) -> Array:
        each = mirrored.reshape(-1, *(1,) * (values.ndim - 1))
        return jnp.where(each, values[:, :, ::-1], values)

    def cropped(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (*corner, 0), (*crop, image.shape[-1]))

    shown = turned(jax.vmap(cropped)(chunk.of(images), corners))
    if resize:
        shape = (size, *images.shape[1:])
        shown = jax.image.resize(shown, shape, "bilinear", antialias=False)
    classifier, layer = asked
    _, gradients = layer_gradients(classifier, shown, chunk.of(targets), layer)
    maps = turned(to_maps(gradients, crop, reduction, upsampling))

    def laid(values: Array, corner: Array) -> Array:
        blank = jnp.zeros(sums.shape[1:])
        rest = (0,) * (blank.ndim - 2)
        return jax.lax.dynamic_update_slice(blank, values, (*corner, *rest))

    return chunk.add(sums, jax.vmap(laid)(maps, corners))
