"""Insertion and deletion of mask estimation and RISE, by the number of model calls.

    python -m benchmarks.convergence --classifier mobilenet_v2=WEIGHTS.safetensors \
        --data imagenet_loc --data_dir data [--images 10] [--calls 125,250,500,1000]

Mask estimation (Thakur and Fischmeister, arXiv 2006.09504) walks, so each call depends
on the one before: as in the authors' code one chain makes all calls, and a second row
shares them among ten chains side by side. RISE's masks are independent. Each number of
calls is measured by itself, on the same images, for the classes that the classifier
predicts. Prints the mean of each curve's area and its 95 % interval over images.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from absl import flags
from jaxtyping import Array
from tqdm import tqdm

from saliency_jax.attribution.optimised_masks.mask_chain import mask_estimation
from saliency_jax.attribution.perturbation.random_grids import rise
from saliency_jax.data import pipeline, sources
from saliency_jax.errors import InputError, run_command
from saliency_jax.loading import load
from saliency_jax.metrics.faithfulness.insertion_deletion import insertion_deletion
from saliency_jax.metrics.intervals import mean_interval
from saliency_jax.models.create import IMAGE_SIZE
from saliency_jax.report.table import format_table

CHAINS = 10


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("classifier", None, "A run, or NETWORK=WEIGHTS_FILE.")
    flags.DEFINE_string("data", "imagenet_loc", "Data set.")
    flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets.")
    flags.DEFINE_integer("images", 10, "The first so many.", 1)
    flags.DEFINE_list("calls", ["125", "250", "500", "1000"], "Of the model.")
    flags.DEFINE_integer("batch_size", 32, "Images in the classifier at once.", 1)
    flags.DEFINE_integer("seed", 0, "Of the masks.")


def contestants(calls: int) -> dict[str, Callable[..., Array]]:
    """The methods, with as many calls of the model for each image."""
    shared = max(1, calls // CHAINS)
    return {
        "mask estimation, 1 chain": partial(mask_estimation, steps=calls, chains=1),
        f"mask estimation, {CHAINS} chains": partial(
            mask_estimation, steps=shared, chains=CHAINS
        ),
        "RISE": partial(rise, masks=calls),
    }


def main(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1 or not values.classifier:
        raise InputError("needs --classifier, and flags alone")
    loaded = load(values.classifier, "--classifier")
    split = sources.evaluation_split(values.data, values.data_dir)
    source = sources.open_source(values.data, values.data_dir, split)
    size = loaded.image_size or IMAGE_SIZE
    batch = next(
        pipeline.eval_batches(
            source, batch_size=values.images, image_size=size, limit=values.images
        )
    )
    images = batch["image"][batch["valid"]]
    classes = np.asarray(loaded.classifier(images)).argmax(axis=1)
    options = {"key": jax.random.key(values.seed), "batch_size": values.batch_size}
    rows = []
    for calls in tqdm([int(text) for text in values.calls], disable=None):
        for name, method in contestants(calls).items():
            maps = method(loaded.classifier, images, classes, **options)
            both = insertion_deletion(
                loaded.classifier, images, maps, classes, batch_size=values.batch_size
            )
            areas = (np.asarray(curve.auc, np.float64) for curve in both)
            rows.append([name, str(calls), *map(_with_interval, areas)])
    rows.sort(key=lambda row: row[0])
    print(format_table(["method", "calls", "insertion", "deletion"], rows))


def _with_interval(values: np.ndarray) -> str:
    low, high = mean_interval(values)
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    define_flags()
    run_command(main)
