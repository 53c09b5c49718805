r"""Evaluates a run that trained a masker, or compares methods, maskers and baselines.

    python evaluate.py --classifier mobilenet_v2=mobilenet_v2_tf.safetensors \
        --methods gradient,grad_cam,rise:masks=500 --maskers runs/casm,runs/black_box \
        --metrics localisation,insertion,deletion --data imagenet_loc --data_dir data \
        --out comparison

compares: every row explains the one classifier, and goes through the same metrics on
the same images, beside baselines that need no model. Prints the table, and writes it as
JSON, CSV, Markdown and LaTeX, and as `report.html`, with pictures. Each row is kept in
`--out` as soon as it is measured; the same command goes on where it was stopped.

    python evaluate.py --workdir runs/casm_shapes
    python evaluate.py --workdir runs/casm_shapes --beside runs/black_box_shapes
    python evaluate.py --workdir runs/casm_shapes --judges runs/other,runs/another

evaluates one run. (With `--methods`, `--metrics` or `--maskers` it is the short form of
a comparison: the run's classifier is explained, and its masker has a row.) Prints a
table and writes it, with everything needed to believe it, to `results.json` in `--out`,
beside grids of pictures. Further runs and the naive baselines stand in the
same table, measured on the same images; the baselines with the run's own classifier. A
masker that explains a class is asked for the true one. With `--iterations 200` there
is also a row of masks that are optimised one by one, without a masker. Other
classifiers judge the masks: what they answer to the image, to what a mask keeps, to
what it leaves.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from saliency_jax.errors import InputError, run_command
from saliency_jax.evaluation import one_run
from saliency_jax.evaluation.comparison import request
from saliency_jax.evaluation.comparison.localisation_pass import RULES
from saliency_jax.evaluation.comparison.request import Request
from saliency_jax.metrics.ilsvrc import CONVENTIONS
from saliency_jax.metrics.localisation import VARIANTS
from saliency_jax.run_config import read_run_config

OF_ONE_RUN = ("checkpoint", "iterations", "confidence", "variant")
OF_A_COMPARISON = (
    "box",
    "convention",
    "asked",
    "memoriser",
    "supervised",
    "sort",
    "image_size",
    "seed",
)
"""The flags that only one of the two reads."""

BATCH_SIZE = 16  # of a comparison without a run that says its own


def define_flags() -> None:
    """Defines the flags; a program with flags of the same names may import the rest."""
    flags.DEFINE_string("workdir", None, "Folder of a run of stage casm or black_box.")
    flags.DEFINE_string("data", None, "Data set; by default the run's own.")
    flags.DEFINE_string(
        "data_dir", None, "Folder of prepared data sets; by default the run's own."
    )
    flags.DEFINE_string(
        "split", None, "Split of the data set; by default validation, or else test."
    )
    flags.DEFINE_string(
        "out",
        None,
        "Where to write; by default WORKDIR/evaluation, but not over the results of "
        "more images than --limit allows.",
    )
    flags.DEFINE_integer(
        "batch_size", None, "Images in a batch; the run's own if None.", lower_bound=1
    )
    flags.DEFINE_integer(
        "limit", None, "Evaluate only the first so many images.", lower_bound=1
    )
    flags.DEFINE_string("checkpoint", "last", "last, best, or a kept step.")
    flags.DEFINE_list(
        "beside",
        [],
        "Further runs of either stage, comma-separated, whose last checkpoints get "
        "rows of their own, each at its own image size.",
    )
    flags.DEFINE_integer(
        "iterations",
        None,
        "Adds a row of masks optimised one by one for so many iterations against the "
        "run's own classifier, without a masker (the authors' code: 200).",
        lower_bound=1,
    )
    flags.DEFINE_list(
        "judges",
        [],
        "Classifiers that judge the masks, comma-separated: workdirs of runs (of stage "
        "classifier, or of another for its classifier), or NETWORK=WEIGHTS_FILE.",
    )
    flags.DEFINE_string(
        "crop_classifier",
        None,
        "Classifier that answers to the crops of the saliency metric, named as one of "
        "--judges; by default the run's own.",
    )
    flags.DEFINE_float(
        "confidence",
        None,
        "Of a black-box masker, usually higher for less; by default the run's own.",
    )
    define_comparison_flags()
    flags.DEFINE_enum(
        "variant",
        "author",
        VARIANTS,
        "Rules of CASM's authors (binarised at a quantile), of the follow-up's "
        "(binarised at the mean), or for a real-time masker (binarised at one half).",
    )


def define_comparison_flags() -> None:
    """Defines the flags that only a comparison reads."""
    flags.DEFINE_string(
        "classifier",
        None,
        "Classifier that is explained: a run, NETWORK=WEIGHTS_FILE, or "
        "package.module:function; by default that of --workdir.",
    )
    flags.DEFINE_list(
        "methods",
        [],
        "Attribution methods, comma-separated; options follow a name: rise:masks=1000. "
        "python -m saliency_jax.attribution --list tells them.",
    )
    flags.DEFINE_list("maskers", [], "Runs whose maskers have rows, comma-separated.")
    flags.DEFINE_list(
        "metrics",
        [],
        "Metrics or groups of them, comma-separated; the groups: localisation, "
        "contours, maps, faithfulness, sanity, robustness, cost.",
    )
    flags.DEFINE_enum("box", "value", RULES, "How a map becomes a box.")
    flags.DEFINE_enum(
        "convention",
        "inclusive",
        CONVENTIONS,
        "When a box hits: inclusive edges and IoU >= 0.5, or CASM's.",
    )
    flags.DEFINE_integer(
        "asked", 100, "Images for metrics that ask the classifier again.", 1
    )
    flags.DEFINE_string(
        "memoriser",
        None,
        "Classifier that was taught random labels, for the metric random_labels.",
    )
    flags.DEFINE_boolean(
        "supervised", False, "Adds a box regressor that is taught by the boxes."
    )
    flags.DEFINE_string(
        "sort", None, "Metric by which the rows are sorted; by default the first."
    )
    flags.DEFINE_integer(
        "image_size",
        None,
        "Side of the classifier's images; by default that of its run, or 224.",
        16,
    )
    flags.DEFINE_integer("seed", 0, "Of what is random.")


def main(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: evaluate.py takes flags")
    if values.classifier or values.methods or values.maskers or values.metrics:
        refuse_flags(values, OF_ONE_RUN, "evaluates one run, not a comparison")
        paths = request.answer(comparison_request(values))
        print("\n".join(map(str, paths)))
        return
    if not values.workdir:
        raise InputError(
            "evaluate.py needs --workdir FOLDER, of a run of train.py, or --classifier "
            "and --methods or --maskers, to compare"
        )
    refuse_flags(
        values, OF_A_COMPARISON, "is of a comparison: add --metrics localisation"
    )
    one_run.evaluate(
        values.workdir,
        data=values.data,
        data_dir=values.data_dir,
        split=values.split,
        out=values.out,
        batch_size=values.batch_size,
        limit=values.limit,
        checkpoint=values.checkpoint,
        beside=values.beside,
        iterations=values.iterations,
        judges=values.judges,
        crop_classifier=values.crop_classifier,
        confidence=values.confidence,
        variant=values.variant,
    )


def refuse_flags(values: flags.FlagValues, names: Sequence[str], why: str) -> None:
    """Refuses flags that would have no effect.

    Raises:
      InputError: one of them was given.
    """
    for name in names:
        if values[name].present:
            raise InputError(f"--{name} {why}; or leave it out")


def comparison_request(values: flags.FlagValues) -> Request:
    """Puts together what is compared; a run in `--workdir` says what flags do not.

    Raises:
      InputError: neither does.
    """
    of_run: dict[str, Any] = {}
    maskers = [*values.beside, *values.maskers]
    if values.workdir:
        data = read_run_config(values.workdir)["data"]
        of_run = {
            "classifier": values.workdir,
            "data": data["name"],
            "data_dir": data["data_dir"],
            "batch_size": data["batch_size"],
            "out": Path(values.workdir) / "comparison",
        }
        maskers = [values.workdir, *maskers]
    named = {
        name: getattr(values, name) or of_run.get(name)
        for name in ("classifier", "data", "data_dir", "out")
    }
    for name, value in named.items():
        if value is None:
            raise InputError(f"a comparison needs --{name}, or a run as --workdir")
    as_given = (
        "methods",
        "metrics",
        "split",
        "limit",
        "box",
        "convention",
        "asked",
        "judges",
        "crop_classifier",
        "memoriser",
        "supervised",
        "sort",
        "image_size",
        "seed",
    )
    return Request(
        **named,
        maskers=maskers,
        batch_size=values.batch_size or of_run.get("batch_size", BATCH_SIZE),
        **{name: getattr(values, name) for name in as_given},
    )


if __name__ == "__main__":
    define_flags()
    run_command(main)
