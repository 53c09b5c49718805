"""The pictures of an evaluation: masks of random, good and bad images, as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from saliency_jax.data.sources import Source
from saliency_jax.evaluation.asking import Asked, ask_for_classes
from saliency_jax.evaluation.runs import Run
from saliency_jax.evaluation.showing import Shown, choose, show
from saliency_jax.metrics.localisation import (
    LocalisationScores,
    binarise,
    predicted_boxes,
)
from saliency_jax.report.figures import class_grid, localisation_grid, save_png

GRIDS = 4
COLUMNS = 7
ROWS, CLASSES = 8, 5  # of the picture of several classes


def draw_pictures(
    run: Run,
    source: Source,
    scores: LocalisationScores,
    variant: str,
    out: Path,
) -> list[Path]:
    """Writes the pictures of a run's masks, and returns their paths.

    Args:
      run: of either stage; of a black box also what it sees of several classes.
      source: whose first images the scores are of.
      scores: of the run's masks.
      variant: of the rules, one of `metrics.localisation.VARIANTS`.
      out: folder to write to.
    """
    chosen = choose(scores, GRIDS * COLUMNS, COLUMNS)
    names, mean, size = source.class_names, run.mean, run.image_size
    pictures = [
        path
        for name, shown in show(run.masker, source, chosen, size).items()
        for path in draw(name, shown, names, mean, variant, out)
    ]
    if run.stage == "black_box":
        first = chosen["grid"][:ROWS]
        asked = ask_for_classes(run.masker, source, first, size, CLASSES)
        pictures.append(out / "classes.png")
        save_png(pictures[-1], draw_classes(asked, names, mean))
    return pictures


def draw(
    name: str,
    shown: Sequence[Shown],
    class_names: Sequence[str],
    mean: Sequence[float],
    variant: str,
    out: Path,
) -> list[Path]:
    """Writes the grids of pictures, `<name>_<number>.png`, and returns their paths."""
    paths = []
    for first in range(0, len(shown), COLUMNS):
        group = shown[first : first + COLUMNS]
        masks = np.stack([one.mask for one in group])
        picture = localisation_grid(
            np.stack([one.image for one in group]),
            binarise(masks, variant),
            predicted_boxes(masks, variant),
            [one.boxes for one in group],
            [class_names[one.label] for one in group],
            mean,
        )
        paths.append(out / f"{name}_{first // COLUMNS}.png")
        save_png(paths[-1], picture)
    return paths


def draw_classes(
    shown: Sequence[Asked], class_names: Sequence[str], mean: Sequence[float]
) -> UInt8[np.ndarray, "P Q 3"]:
    """Draws what the masks of each image keep when asked for several classes."""
    return class_grid(
        [one.image for one in shown],
        [one.masks for one in shown],
        [
            [
                class_names[label] + " (true)" * (number == 0)
                for number, label in enumerate(one.labels)
            ]
            for one in shown
        ],
        mean,
    )
