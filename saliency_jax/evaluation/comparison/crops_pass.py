"""The pass that shows a row's boxes to the classifier: the saliency metric."""

import numpy as np
from jaxtyping import Bool, Int

from saliency_jax.evaluation.comparison.localisation_pass import mean_figure
from saliency_jax.evaluation.comparison.passes import Setting
from saliency_jax.evaluation.comparison.saved import Arrays
from saliency_jax.evaluation.cropping import Boxes, judge_crops
from saliency_jax.evaluation.judges import Judge
from saliency_jax.metrics.saliency_metric import SaliencyMetric
from saliency_jax.report.comparison import Figure, Metric

METRICS = {
    "saliency_metric": Metric(
        "saliency metric",
        "lower",
        "number",
        "localisation",
        "log(max(area of the predicted box, 0.05)) - log(probability of the true class "
        "in its crop), in nats",
    ),
    "crop_accuracy": Metric(
        "crops right %",
        "higher",
        "per_cent",
        "localisation",
        "share of crops whose class the classifier has right",
    ),
}


def measure(setting: Setting, judge: Judge, boxes: Int[np.ndarray, "n 4"]) -> Arrays:
    """Shows the crops of all images to a classifier.

    Args:
      setting: what all share.
      judge: the classifier.
      boxes: of each image.

    Raises:
      InputError: its answers are not finite.
    """
    count = len(boxes)
    of_row = {"crops": Boxes(boxes, setting.image_size)}
    images = setting.batches(judge.image_size, count)
    metric, _ = judge_crops(judge, of_row, images, count, setting.batch_size)
    return metric["crops"]._asdict()


def figures(arrays: Arrays, scored: Bool[np.ndarray, "n"]) -> dict[str, Figure]:
    """Returns the figures of a row, of the images with a box; if none has, of all.

    Args:
      arrays: of `measure`.
      scored: which images have one.
    """
    if not scored.any():
        scored = np.ones_like(scored)
    metric = SaliencyMetric(**arrays)
    return {
        "saliency_metric": mean_figure(metric.score[scored]),
        "crop_accuracy": mean_figure(metric.correct[scored]),
    }
