"""The pass that attacks the classifier, and looks at what becomes of a row's maps.

The attack moves each image by little, so that the classifier no longer answers with the
class that it predicted (Madry et al., arXiv 1706.06083). A row's map of that class is
compared before and after: a person sees the same picture. (Ghorbani, Abid and Zou,
arXiv 1710.10547, attack the map itself; here it is the answer.)
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from saliency_jax.evaluation.comparison.contestants import Contestant
from saliency_jax.evaluation.comparison.faithfulness_pass import explaining, images_of
from saliency_jax.evaluation.comparison.localisation_pass import mean_figure
from saliency_jax.evaluation.comparison.passes import Setting, in_equal_batches
from saliency_jax.evaluation.comparison.saved import Arrays
from saliency_jax.metrics.agreement import rank_correlation, structural_similarity
from saliency_jax.models.classifier import Classifier
from saliency_jax.report.comparison import Figure, Metric
from saliency_jax.synthesis.adversarial import pgd

GROUP = "robustness"
EPSILON = 4 / 255
STEPS = 10

METRICS = {
    "attacked_rank": Metric(
        "under attack, rank",
        "higher",
        "number",
        GROUP,
        "rank correlation of the map with that of the same class in the image under "
        "attack (PGD, 4/255, 10 steps)",
    ),
    "attacked_ssim": Metric(
        "the same, SSIM", "higher", "number", GROUP, "structural similarity"
    ),
}


def attack(setting: Setting, count: int) -> Arrays:
    """Attacks the first images, away from the classes that the classifier predicts.

    Returns:
      The "images" under attack, `[count, S, S, 3]` in [0, 1], and whether the attack
      was a "success": whether the classifier predicts another class now.
    """
    predicted = setting.answers["predicted"][:count]

    def of_batch(
        images: UInt8[np.ndarray, "B S S 3"], labels: np.ndarray, places: np.ndarray
    ) -> Float[np.ndarray, "B S S 3"]:
        return np.asarray(
            pgd(
                setting.classifier,
                images,
                jnp.asarray(labels),
                key=setting.key("attack"),
                places=places,
                epsilon=EPSILON,
                steps=STEPS,
            )
        )

    images = in_equal_batches(
        of_batch,
        setting.batch_size,
        images_of(setting, count),
        predicted,
        np.arange(count),
    )
    answer = functools.partial(_predicted, setting.classifier)
    answers = in_equal_batches(answer, setting.batch_size, images)
    return {"images": images, "success": answers != predicted}


@jax.jit
def _predicted(
    classifier: Classifier, images: Float[Array | np.ndarray, "B S S 3"]
) -> Int[Array, "B"]:
    return jnp.argmax(classifier(images), axis=-1)


def measure(
    contestant: Contestant,
    setting: Setting,
    maps: Float[np.ndarray, "n S S"],
    attacked: Float[np.ndarray, "n S S 3"],
) -> Arrays:
    """Compares the maps of images with those of the images under attack.

    Args:
      contestant: that sees images.
      setting: what all share.
      maps: of the predicted classes.
      attacked: of `attack`.

    Raises:
      InputError: the maps are not finite.
    """
    predicted = setting.answers["predicted"][: len(maps)]

    def explain(images: np.ndarray) -> Float[np.ndarray, "n S S"]:
        asked = setting.batch_size, images, predicted
        return in_equal_batches(explaining(contestant, setting), *asked)

    if contestant.image_size != setting.image_size:
        # Those were made of pictures of that size: resizing alone is not to count.
        maps = explain(images_of(setting, len(maps)))
    again = explain(attacked)
    return {
        "attacked_rank": rank_correlation(maps, again),
        "attacked_ssim": structural_similarity(maps, again),
    }


def figures(arrays: Arrays) -> dict[str, Figure]:
    """Returns the figures of a row.

    Args:
      arrays: of `measure`.
    """
    return {name: mean_figure(arrays[name]) for name in METRICS}
