"""Published figures that a comparison shows beside its own, with their sources.

They are of other classifiers and of ImageNet's whole validation set: the order of rows
compares, the numbers do not.
"""

from collections.abc import Collection, Mapping

from saliency_jax.evaluation.comparison.contestants import Contestant

CASM = "Zolna, Geras and Cho 2018, table 1 (ResNet-50, ImageNet validation)"
BLACK_BOX = "Dabkowski and Gal 2017 (GoogLeNet, ImageNet validation)"

Published = Mapping[str, Mapping[str, tuple[float, str]]]

OF_METHODS = {
    "gradient": {"gt_known": (0.417, BLACK_BOX), "saliency_metric": (0.451, BLACK_BOX)},
    "excitation_backprop": {
        "gt_known": (0.390, BLACK_BOX),
        "saliency_metric": (0.415, BLACK_BOX),
    },
    "meaningful_perturbation": {"gt_known": (0.431, CASM)},
}
OF_MASKERS = {
    "casm": {"gt_known": (0.361, CASM)},
    "baseline": {"gt_known": (0.535, CASM)},
    "black_box": {
        "gt_known": (0.369, BLACK_BOX),
        "saliency_metric": (0.318, BLACK_BOX),
    },
}
OF_BASELINES = {
    "whole_image": {
        "gt_known": (0.597, BLACK_BOX),
        "saliency_metric": (1.366, BLACK_BOX),
    },
    "center_box": {
        "gt_known": (0.463, BLACK_BOX),
        "saliency_metric": (0.645, BLACK_BOX),
    },
    "ground_truth_box": {
        "gt_known": (0.0, BLACK_BOX),
        "saliency_metric": (0.284, BLACK_BOX),
    },
    "box_regressor": {"gt_known": (0.343, f"{CASM}, a supervised VGG")},
}


def published(
    contestants: Mapping[str, Contestant], metrics: Collection[str]
) -> Published:
    """Returns of each row what was published of its kind: `{metric: (value, source)}`.

    Args:
      contestants: by the names of their rows.
      metrics: that are in the table.
    """
    found = {}
    for name, contestant in contestants.items():
        if contestant.kind == "masker":
            figures = OF_MASKERS.get(contestant.trained_as)
        else:
            known = OF_METHODS if contestant.kind == "method" else OF_BASELINES
            figures = known.get(name.partition(":")[0])
        shown = {name: of for name, of in (figures or {}).items() if name in metrics}
        if shown:
            found[name] = shown
    return found
