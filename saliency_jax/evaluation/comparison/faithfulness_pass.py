"""The passes that ask the classifier again: about edited images, by a row's maps.

They look at the first images only, and at maps of the class that the classifier
predicts, right or wrong, as RISE's metric does. The maps are made once for all of them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from saliency_jax.evaluation.comparison.contestants import Contestant, maps_of
from saliency_jax.evaluation.comparison.localisation_pass import mean_figure
from saliency_jax.evaluation.comparison.passes import (
    Setting,
    mapped,
    without_padding,
)
from saliency_jax.evaluation.comparison.saved import Arrays
from saliency_jax.masking import to_float
from saliency_jax.metrics.faithfulness.confidence import confidence
from saliency_jax.metrics.faithfulness.infidelity import infidelity
from saliency_jax.metrics.faithfulness.insertion_deletion import insertion_deletion
from saliency_jax.metrics.faithfulness.max_sensitivity import max_sensitivity
from saliency_jax.metrics.faithfulness.random_subsets import (
    faithfulness_correlation,
    sensitivity_n,
)
from saliency_jax.metrics.faithfulness.road import road
from saliency_jax.report.comparison import Figure, Metric

GROUP = "faithfulness"
CURVES = "insertion_deletion"
DRAWS = 10  # of max-sensitivity, as in captum; each is as many maps as there are images

METRICS = {
    "insertion": Metric(
        "insertion",
        "higher",
        "number",
        GROUP,
        "area under the class's probability while a blurred image becomes sharp, best "
        "pixels first, 28 moves",
    ),
    "deletion": Metric(
        "deletion",
        "lower",
        "number",
        GROUP,
        "the same while the mean colour takes the place of the best pixels",
    ),
    "insertion_normalised": Metric(
        "insertion, normalised",
        "higher",
        "number",
        GROUP,
        "insertion where the blurred image counts as 0 and the whole image as 1",
    ),
    "deletion_normalised": Metric(
        "deletion, normalised",
        "lower",
        "number",
        GROUP,
        "deletion where the mean colour counts as 0 and the whole image as 1",
    ),
    "average_drop": Metric(
        "average drop %",
        "lower",
        "per_cent",
        GROUP,
        "how much of the class's probability goes when the map fades the image",
    ),
    "average_increase": Metric(
        "increase %",
        "higher",
        "per_cent",
        GROUP,
        "share of images whose class becomes more probable when the map fades them",
    ),
    "average_gain": Metric(
        "average gain %",
        "higher",
        "per_cent",
        GROUP,
        "how much of what the probability lacks is gained when the map fades the image",
    ),
    "infidelity": Metric(
        "infidelity",
        "lower",
        "number",
        GROUP,
        "mean squared difference of the map's sum in a random square and the fall of "
        "the logit without it, of the map at its best scale",
    ),
    "max_sensitivity": Metric(
        "max-sensitivity",
        "lower",
        "number",
        GROUP,
        f"greatest relative change of the map with noise of 0.2, {DRAWS} draws",
    ),
    "sensitivity_n": Metric(
        "sensitivity-n",
        "higher",
        "number",
        GROUP,
        "correlation of the map's sums in random subsets with the falls of the logit, "
        "mean over the subsets' sizes",
    ),
    "faithfulness_correlation": Metric(
        "faithfulness corr.",
        "higher",
        "number",
        GROUP,
        "the same for subsets of 224 pixels",
    ),
    "road": Metric(
        "ROAD",
        "higher",
        "number",
        GROUP,
        "half of what the probability loses more without the best pixels than without "
        "the worst, removed by noisy interpolation",
    ),
}

MEASURES: dict[str, dict[str, str]] = {
    CURVES: {name: name for name in tuple(METRICS)[:4]},
    "confidence": {
        "average_drop": "drop",
        "average_increase": "increase",
        "average_gain": "gain",
    },
    "infidelity": {"infidelity": "scaled"},
    "max_sensitivity": {"max_sensitivity": "maximum"},
    "sensitivity_n": {"sensitivity_n": "correlation"},
    "faithfulness_correlation": {"faithfulness_correlation": "correlation"},
    "road": {"road": "combined"},
}
"""Of each measure its metrics, and which of its arrays they are means of."""


def maps_of_predicted(contestant: Contestant, setting: Setting, count: int) -> Arrays:
    """Returns a contestant's maps of the first images, of the predicted classes.

    Raises:
      InputError: they are not finite, or there is not one for each image.
    """
    parts = mapped(contestant, setting, count, "predicted", "predicted class")
    return {"maps": np.concatenate([part.maps for part in parts])}


def images_of(setting: Setting, count: int) -> np.ndarray:
    """The first images, `[count, S, S, 3]`."""
    parts = setting.batches(setting.image_size, count)
    return np.concatenate([without_padding(part)["image"] for part in parts])


def measures(
    wanted: Sequence[str],
    contestant: Contestant,
    setting: Setting,
    count: int,
) -> dict[str, Callable[[Float[np.ndarray, "n S S"]], Arrays]]:
    """Returns what has to be called, with the maps, for the metrics that are wanted.

    Args:
      wanted: names of `METRICS`.
      contestant: whose maps they are.
      setting: what all share.
      count: how many maps of `maps_of_predicted` there will be.
    """
    targets = jnp.asarray(setting.answers["predicted"][:count])
    bounded = {"batch_size": setting.batch_size}

    def ask(metric: Callable[..., Any], maps: np.ndarray, **options: Any) -> Any:
        images = images_of(setting, count)
        given = setting.classifier, images, jnp.asarray(maps), targets
        return metric(*given, **bounded, **options)

    def curves(maps: np.ndarray) -> Arrays:
        both = jax.device_get(ask(insertion_deletion, maps))
        return {
            "insertion": both.insertion.auc,
            "deletion": both.deletion.auc,
            "insertion_normalised": both.insertion.normalised_auc,
            "deletion_normalised": both.deletion.normalised_auc,
            "insertion_scores": both.insertion.scores,
            "deletion_scores": both.deletion.scores,
        }

    def sensitivity(maps: np.ndarray) -> Arrays:
        explain = explaining(contestant, setting)
        images, key = images_of(setting, count), setting.key("max_sensitivity")
        found = max_sensitivity(
            explain, images, targets, key=key, draws=DRAWS, **bounded
        )
        return jax.device_get(found._asdict())

    def simple(metric: Callable[..., Any], is_random: bool) -> Callable[..., Arrays]:
        options = {"key": setting.key(metric.__name__)} if is_random else {}
        return lambda maps: jax.device_get(ask(metric, maps, **options)._asdict())

    every = {
        CURVES: curves,
        "confidence": simple(confidence, False),
        "infidelity": simple(infidelity, True),
        "max_sensitivity": sensitivity,
        "sensitivity_n": simple(sensitivity_n, True),
        "faithfulness_correlation": simple(faithfulness_correlation, True),
        "road": simple(road, True),
    }
    if not contestant.sees_images:
        # Its maps are the same whatever is done to an image: no merit.
        del every["max_sensitivity"]
    return {
        what: measure
        for what, measure in every.items()
        if not set(wanted).isdisjoint(MEASURES[what])
    }


def explaining(
    contestant: Contestant, setting: Setting, key: Array | None = None
) -> Callable[..., Float[np.ndarray, "B S S"]]:
    """A contestant as a function of images that are in no data set.

    One that is shown images of another size is shown these, resized.

    Args:
      contestant: that sees images.
      setting: what all share.
      key: of what it draws; None for that of all maps.
    """
    key = setting.key("maps") if key is None else key

    def explain(
        images: Num[Array | np.ndarray, "B S S 3"],
        targets: Int[Array | np.ndarray, "B"],
    ) -> Float[np.ndarray, "B S S"]:
        size = setting.image_size
        if contestant.image_size != size:
            images = _resized(images, contestant.image_size)
        batch = {"image": images, "label": np.asarray(targets)}
        return maps_of(contestant, setting.classifier, batch, targets, key, size)

    return explain


@functools.partial(jax.jit, static_argnames="size")
def _resized(
    images: Num[Array | np.ndarray, "B h w 3"], size: int
) -> Float[Array, "B S S 3"]:
    return jax.image.resize(to_float(images), (len(images), size, size, 3), "linear")


def figures(what: str, arrays: Arrays) -> dict[str, Figure]:
    """Returns the figures of a measure.

    Args:
      what: one of `MEASURES`.
      arrays: of it.
    """
    return {
        metric: mean_figure(np.asarray(arrays[name]))
        for metric, name in MEASURES[what].items()
    }


def curves(arrays: Arrays) -> dict[str, list[float]]:
    """Returns the mean curves; none where the classifier's answers are not finite.

    Args:
      arrays: of the measure `CURVES`.
    """
    means = {
        name: arrays[f"{name}_scores"].mean(axis=0)
        for name in ("insertion", "deletion")
    }
    return {name: m.tolist() for name, m in means.items() if np.isfinite(m).all()}
