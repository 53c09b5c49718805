"""The passes that ask whether a row's maps depend on what they should depend on.

They look at the images of the faithfulness pass, and explain the same classes.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from saliency_jax.evaluation.comparison.contestants import Contestant
from saliency_jax.evaluation.comparison.faithfulness_pass import explaining, images_of
from saliency_jax.evaluation.comparison.localisation_pass import mean_figure
from saliency_jax.evaluation.comparison.passes import Setting, in_equal_batches
from saliency_jax.evaluation.comparison.saved import Arrays
from saliency_jax.evaluation.consistency import consistency
from saliency_jax.evaluation.randomisation import (
    label_randomisation,
    parameter_randomisation,
)
from saliency_jax.metrics.agreement import agreement_matrix
from saliency_jax.models.classifier import Classifier
from saliency_jax.report.comparison import Figure, Metric

GROUP = "sanity"
STEPS = 3  # of a cascade: the last layer, one half-way down, all layers
KEYS = 3

METRICS = {
    "last_layer_random": Metric(
        "last layer random",
        "lower",
        "number",
        GROUP,
        "rank correlation with the maps of the classifier whose last layer is drawn "
        "anew",
    ),
    "all_layers_random": Metric(
        "all layers random",
        "lower",
        "number",
        GROUP,
        "rank correlation with the maps of an untrained classifier",
    ),
    "all_layers_random_absolute": Metric(
        "the same, |map|",
        "lower",
        "number",
        GROUP,
        "rank correlation of the absolute values",
    ),
    "all_layers_random_ssim": Metric(
        "the same, SSIM", "lower", "number", GROUP, "structural similarity"
    ),
    "all_layers_random_hog": Metric(
        "the same, HOG",
        "lower",
        "number",
        GROUP,
        "correlation of histograms of oriented gradients",
    ),
    "one_layer_random": Metric(
        "one layer random",
        "lower",
        "number",
        GROUP,
        "rank correlation with the maps of the classifier that has one layer drawn "
        "anew, mean over layers from the last to the first",
    ),
    "random_labels": Metric(
        "random labels",
        "lower",
        "number",
        GROUP,
        "rank correlation with the maps of a classifier that was taught random labels",
    ),
    "consistency": Metric(
        "consistency",
        "higher",
        "number",
        GROUP,
        f"mean rank correlation of the maps of {KEYS} keys, of a method that draws",
    ),
    "agreement": Metric(
        "agreement",
        "",
        "number",
        GROUP,
        "mean rank correlation with the maps of the other rows",
    ),
}

Classes = Int[np.ndarray | Array, "B"]

MEASURES: dict[str, tuple[str, ...]] = {
    "cascading": tuple(METRICS)[:5],
    "independent": ("one_layer_random",),
    "random_labels": ("random_labels",),
    "consistency": ("consistency",),
}
"""Of each measure its metrics, which are the names of its arrays."""


def measures(
    wanted: Sequence[str],
    contestant: Contestant,
    setting: Setting,
    count: int,
    memoriser: Classifier | None,
) -> dict[str, Callable[[], Arrays]]:
    """Returns what has to be called for the metrics that are wanted of a row.

    Trained maskers and baselines do not look at the classifier, so it is not changed
    for them; and only what draws is asked whether it says the same again.

    Args:
      wanted: names of `METRICS`.
      contestant: whose maps are looked at.
      setting: what all share.
      count: how many images.
      memoriser: a classifier that was taught random labels.
    """
    targets = setting.answers["predicted"][:count]

    def explain(
        classifier: Classifier, images: np.ndarray, targets: Classes
    ) -> Float[np.ndarray, "B S S"]:
        changed = setting._replace(classifier=classifier)
        again = explaining(contestant, changed)
        return in_equal_batches(again, setting.batch_size, images, targets)

    def randomised(order: str) -> list[Mapping[str, np.ndarray]]:
        steps = parameter_randomisation(
            setting.classifier,
            explain,
            images_of(setting, count),
            targets,
            setting.key("randomisation"),
            order=order,
            steps=STEPS,
        )
        return [step.similarities._asdict() for step in steps]

    def cascading() -> Arrays:
        steps = randomised("cascading")
        first, last = steps[0], steps[-1]
        return {
            "last_layer_random": first["spearman"],
            "all_layers_random": last["spearman"],
            "all_layers_random_absolute": last["spearman_absolute"],
            "all_layers_random_ssim": last["ssim"],
            "all_layers_random_hog": last["hog"],
        }

    def independent() -> Arrays:
        steps = randomised("independent")[:-1]  # the last one has all layers anew
        mean = np.mean([step["spearman"] for step in steps], axis=0)
        return {"one_layer_random": mean}

    def random_labels() -> Arrays:
        images = images_of(setting, count)
        found = label_randomisation(
            setting.classifier, memoriser, explain, images, targets
        )
        return {"random_labels": found.spearman}

    def consistent() -> Arrays:
        def under_key(
            images: np.ndarray, targets: Classes, key: Array
        ) -> Float[np.ndarray, "B S S"]:
            keyed = explaining(contestant, setting, key)
            return in_equal_batches(keyed, setting.batch_size, images, targets)

        keys = jax.random.split(setting.key("consistency"), KEYS)
        images = images_of(setting, count)
        return {"consistency": consistency(under_key, images, targets, keys)}

    every: dict[str, Callable[[], Arrays]] = {}
    if contestant.asks:
        every |= {"cascading": cascading, "independent": independent}
    if contestant.asks and memoriser is not None:
        every["random_labels"] = random_labels
    if contestant.is_random:
        every["consistency"] = consistent
    return {
        what: measure
        for what, measure in every.items()
        if not set(wanted).isdisjoint(MEASURES[what])
    }


def figures(what: str, arrays: Arrays) -> dict[str, Figure]:
    """Returns the figures of a measure.

    Args:
      what: one of `MEASURES`.
      arrays: of it.
    """
    return {name: mean_figure(arrays[name]) for name in MEASURES[what]}


def agreement(
    maps: Mapping[str, Float[np.ndarray, "n S S"]],
) -> tuple[list[list[float]], dict[str, Figure]]:
    """Returns how much rows agree: the matrix, and of each row the mean of the others.

    Args:
      maps: of every row, of the same images.
    """
    matrix = agreement_matrix(maps)
    others = (matrix.sum(axis=1) - np.diag(matrix)) / (len(matrix) - 1)
    count = len(next(iter(maps.values())))
    return matrix.tolist(), {
        name: Figure(float(value), None, count)
        for name, value in zip(maps, others, strict=True)
    }
