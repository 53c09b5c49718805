"""A box regressor taught by filed boxes: what the classifier's own features allow.

An upper bound for maps that have seen no box, in the place of the supervised VGG of
CASM's table (arXiv 1805.08249, table 1): a linear ridge regression from the maps of the
classifier's last layer to the box of an image, in closed form.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from saliency_jax.attribution.layers import cut
from saliency_jax.errors import InputError
from saliency_jax.evaluation.comparison.contestants import Contestant, filed_boxes
from saliency_jax.evaluation.comparison.passes import Setting, without_padding
from saliency_jax.masking import to_float
from saliency_jax.metrics.baselines import ground_truth_box, rectangle_masks
from saliency_jax.metrics.localisation import is_filed
from saliency_jax.models.classifier import Classifier
from saliency_jax.types import Batch, Images

GRID = 4  # cells of the maps in each direction, which bounds the number of features
TAUGHT = 4000  # the most images that a half is taught with, which bounds the memory
PENALTIES = 10.0 ** np.arange(-4, 5)  # relative to the mean square of the features


def supervised(setting: Setting, convention: str = "inclusive") -> Contestant:
    """Returns the row of a regressor, which is taught when it is first asked.

    Then it raises an `InputError` where it cannot be taught: its row alone is without
    figures.

    Args:
      setting: what all rows share; the regressor learns from all of its images.
      convention: of filed boxes, one of `metrics.ilsvrc.CONVENTIONS`.
    """
    boxes = functools.cache(functools.partial(_taught, setting, convention))
    return Contestant(
        title="box regressor (taught)",
        kind="baseline",
        explain=functools.partial(_draw, boxes, setting.image_size),
        image_size=setting.image_size,
        is_mask=True,
        of_class=False,
        is_box=True,
        knows_truth=True,
        origin=(str(setting.count), convention),
    )


def _taught(setting: Setting, convention: str) -> Int[np.ndarray, "n 4"]:
    """Teaches a regressor with each half of the boxed images, for the other half.

    So no image is scored by a regressor that has seen its box. Images are in halves by
    turns, in their order.

    Returns:
      The boxes of all images.

    Raises:
      InputError: there are fewer than four images with boxes, or the classifier has no
        convolution.
    """
    features, boxes, boxed = [], [], []
    for batch in setting.batches(setting.image_size, setting.count):
        try:
            maps = np.asarray(_features(setting.classifier, batch["image"]))
        except InputError as error:
            raise InputError(
                "the box regressor reads the maps of the classifier's last "
                "convolution, which was not found: leave --supervised out"
            ) from error
        features.append(maps[np.asarray(batch["valid"])])
        batch = without_padding(batch)
        filed, size = filed_boxes(batch, convention), batch["original_size"]
        side = setting.image_size
        boxes.append(ground_truth_box(filed, size, side, convention))
        boxed.append(is_filed(filed).any(axis=1))
    predicted = cross_fitted(
        np.concatenate(features), np.concatenate(boxes), np.concatenate(boxed)
    )
    rounded = np.clip(np.rint(predicted), 0, setting.image_size).astype(int)
    return np.concatenate(  # a box inside out is an empty one
        [rounded[:, :2], np.maximum(rounded[:, :2], rounded[:, 2:])], axis=1
    )


def _draw(
    boxes: Callable[[], Int[np.ndarray, "n 4"]],
    size: int,
    classifier: Classifier,
    batch: Batch,
    targets: Int[Array | np.ndarray, "B"],
    key: Array,
) -> Float[np.ndarray, "B S S"]:
    return rectangle_masks(boxes()[batch["place"]], size).astype(np.float32)


@jax.jit
def _features(classifier: Classifier, images: Images) -> Float[Array, "B F"]:
    images = to_float(images)
    maps = cut(classifier, images, None).activations(images).astype(jnp.float32)
    shape = len(maps), min(GRID, maps.shape[1]), min(GRID, maps.shape[2])
    pooled = jax.image.resize(maps, (*shape, maps.shape[3]), "linear")
    return pooled.reshape(len(maps), -1)


def cross_fitted(
    features: Float[np.ndarray, "n F"],
    boxes: Int[np.ndarray, "n 4"],
    boxed: np.ndarray,
) -> Float[np.ndarray, "n 4"]:
    """Returns the box of every image, told by the other half of the boxed ones.

    Args:
      features: of all images.
      boxes: of those that have one.
      boxed: which have one, `[n]`.

    Raises:
      InputError: there are fewer than four.
    """
    with_box = np.flatnonzero(boxed)
    if len(with_box) < 4:
        raise InputError(
            f"the box regressor is taught by boxes, and {len(with_box)} images have "
            "one: evaluate at least four"
        )
    predicted = np.zeros(boxes.shape, np.float64)
    half_of = np.zeros(len(boxes), int)
    half_of[with_box[1::2]] = 1
    for half in (0, 1):
        taught = with_box[1 - half :: 2][:TAUGHT]
        ridge = fit_ridge(features[taught], boxes[taught].astype(np.float64))
        told = half_of == half
        predicted[told] = ridge(features[told])
    return predicted


class Ridge(NamedTuple):
    """A linear function, by what it was taught with.

    Attributes:
      centre: of the features.
      taught: centred features.
      weights: of each image that it was taught with.
      mean: of what it tells.
    """

    centre: Float[np.ndarray, "F"]
    taught: Float[np.ndarray, "m F"]
    weights: Float[np.ndarray, "m 4"]
    mean: Float[np.ndarray, "4"]

    def __call__(self, features: Float[np.ndarray, "n F"]) -> Float[np.ndarray, "n 4"]:
        """What it tells of other features."""
        return (features - self.centre) @ self.taught.T @ self.weights + self.mean


def fit_ridge(
    features: Float[np.ndarray, "m F"], targets: Float[np.ndarray, "m 4"]
) -> Ridge:
    """Fits the ridge regression whose penalty leave-one-out prefers.

    In the images' space, since there are more features than images; the residuals
    without each image are in closed form (Golub, Heath and Wahba, Technometrics 21,
    1979).
    """
    centre, mean = features.mean(axis=0), targets.mean(axis=0)
    taught, wanted = features - centre, targets - mean
    values, vectors = np.linalg.eigh((taught @ taught.T).astype(np.float64))
    values = np.maximum(values, 0.0)
    turned = vectors.T @ wanted
    scale = values.mean() or 1.0

    def weights(penalty: float) -> Float[np.ndarray, "m 4"]:
        return vectors @ (turned / (values + penalty * scale)[:, None])

    def left_out(penalty: float) -> float:
        own = vectors**2 @ (1 / (values + penalty * scale))
        own -= 1 / (len(own) * penalty * scale)  # the mean, which has no penalty
        return float(np.square(weights(penalty) / own[:, None]).mean())

    return Ridge(centre, taught, weights(min(PENALTIES, key=left_out)), mean)
