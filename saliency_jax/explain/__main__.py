r"""Explains pictures of your own: which pixels each of the likely classes rests on.

    python -m saliency_jax.explain dog.jpg holiday/ --classifier RUN --out explained \
        --methods grad_cam,rise:masks=1000 --maskers runs/casm_imagenet --classes 3

Takes files and folders, of any format that OpenCV reads; of a folder not what this
command has written to folders in it. For each picture `--out` gets a folder with
`sheet.png` (a row for each class, a column for each method or masker) and, at the
picture's own size, each map over the picture with its box, and what the map's region
keeps and leaves. `explanations.json` has the classes with their names and
probabilities, the boxes in the picture's pixels, the names of all files, and how it was
made. A picture that cannot be read is named and left out; the exit code is then 2.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import jax
from absl import flags

from saliency_jax.attribution.named import method_of
from saliency_jax.errors import InputError, run_command
from saliency_jax.evaluation.names import short_names
from saliency_jax.explain.explanations import (
    Explainer,
    Plan,
    explain_pictures,
    masker_explainer,
)
from saliency_jax.explain.labels import read_labels
from saliency_jax.explain.pictures import RESULTS, View, find_pictures
from saliency_jax.explain.regions import rule_of
from saliency_jax.loading import load
from saliency_jax.models.create import IMAGE_SIZE
from saliency_jax.saliency import load_masker


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "classifier",
        None,
        "Classifier that is explained: a run, NETWORK=WEIGHTS_FILE, or "
        "package.module:function.",
    )
    flags.DEFINE_list(
        "methods",
        [],
        "Attribution methods, comma-separated; options follow a name: rise:masks=1000. "
        "python -m saliency_jax.attribution --list tells them. By default grad_cam, "
        "where there are no maskers either.",
    )
    flags.DEFINE_list("maskers", [], "Runs whose maskers explain too, comma-separated.")
    flags.DEFINE_integer("classes", 1, "How many of the likely classes.", 1)
    flags.DEFINE_string(
        "labels",
        None,
        "File with the names of the classes, a line for each, in their order; a first "
        "word like n01440764 is left out. By default the classifier's own names.",
    )
    flags.DEFINE_string(
        "box",
        "quantile",
        "How a map becomes a region and a box: quantile, graph_cut, grabcut, or with "
        "an alpha value:0.5, fixed:0.2, energy:0.5, mean:2.",
    )
    flags.DEFINE_enum(
        "view",
        "whole",
        get_args(View),
        "What the classifier is shown: the whole picture, pressed into a square, or "
        "its centre as in evaluation.",
    )
    flags.DEFINE_integer(
        "image_size", None, "Side in pixels; by default the run's own, or 224.", 16
    )
    flags.DEFINE_integer("batch_size", 8, "Pictures in the classifier at once.", 1)
    flags.DEFINE_integer("seed", 0, "Of what is random.")
    flags.DEFINE_string("out", "explained", "Folder for the results.")


def main(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) < 2 or not values.classifier:
        raise InputError(
            "needs pictures or folders, and --classifier RUN or NETWORK=WEIGHTS_FILE"
        )
    rule = rule_of(values.box)
    pictures = find_pictures(argv[1:], values.out)
    explainers = named_explainers(values.methods, values.maskers)
    loaded = load(values.classifier, "--classifier")
    labels = loaded.classifier.labels
    if values.labels:
        labels = read_labels(Path(values.labels))
    plan = Plan(
        classifier=loaded.classifier,
        labels=labels,
        explainers=explainers,
        classes=values.classes,
        image_size=values.image_size or loaded.image_size or IMAGE_SIZE,
        view=values.view,
        rule=rule,
        batch_size=values.batch_size,
        key=jax.random.key(values.seed),
        out=Path(values.out),
    )
    report = explain_pictures(plan, pictures)
    for picture in report["pictures"]:
        likely = ", ".join(
            f"{one['name']} {one['probability']:.2f}" for one in picture["classes"]
        )
        print(f"{picture['file']}: {likely}")
    print(plan.out / RESULTS)
    if report["skipped"]:
        sys.exit(2)


def named_explainers(
    methods: Sequence[str], maskers: Sequence[str]
) -> dict[str, Explainer]:
    """The columns that the flags name.

    Raises:
      InputError: there is no such method or masker, or one is named twice.
    """
    if not methods and not maskers:
        methods = ["grad_cam"]
    for text in methods:
        if list(methods).count(text) > 1:
            raise InputError(f"--methods: {text} is named twice, name it once")
    explainers = {text: Explainer(method_of(text)) for text in methods}
    names = short_names([Path(masker) for masker in maskers], explainers)
    return explainers | {
        name: masker_explainer(load_masker(masker))
        for name, masker in zip(names, maskers, strict=True)
    }


if __name__ == "__main__":
    define_flags()
    run_command(main)
