"""What stands in the columns of a comparison, and what has to be measured for it."""

from collections.abc import Sequence

from saliency_jax.errors import InputError, unknown
from saliency_jax.evaluation.comparison import (
    crops_pass,
    faithfulness_pass,
    localisation_pass,
    robustness_pass,
    sanity_pass,
)
from saliency_jax.report.comparison import Metric

COSTS = {
    "images_per_second": Metric(
        "images/s",
        "higher",
        "number",
        "cost",
        "maps a second, without the first batch, which compiles; padding counts",
    ),
    "first_seconds": Metric(
        "first call, s", "lower", "number", "cost", "with compilation"
    ),
    "peak_gib": Metric(
        "peak GiB",
        "lower",
        "number",
        "cost",
        "the greatest memory while maps were made: of this process on a CPU, of the "
        "device, since the program's start, on a GPU",
    ),
}

PASSES = {
    "localisation": localisation_pass.METRICS,
    "crops": crops_pass.METRICS,
    "faithfulness": faithfulness_pass.METRICS,
    "sanity": sanity_pass.METRICS,
    "robustness": robustness_pass.METRICS,
    "cost": COSTS,
}
"""The metrics of each pass."""

METRICS = {
    name: metric for metrics in PASSES.values() for name, metric in metrics.items()
}

GROUPS = tuple(dict.fromkeys(metric.group for metric in METRICS.values()))

DEFAULT = ("localisation", "maps", "cost")


def chosen(names: Sequence[str]) -> dict[str, Metric]:
    """Returns the metrics that a user names, in the order of the catalogue.

    Args:
      names: of metrics or of their groups; `DEFAULT` where there are none.

    Raises:
      InputError: there is no such metric or group; the message names the nearest.
    """
    names = names or DEFAULT
    for name in names:
        if name not in METRICS and name not in GROUPS:
            raise InputError(unknown("metric", name, (*GROUPS, *METRICS)))
    wanted = (*names, "cost")
    return {
        name: metric
        for name, metric in METRICS.items()
        if name in wanted or metric.group in wanted
    }
