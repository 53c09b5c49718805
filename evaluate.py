r"""Evaluates a trained run: localisation by CASM's rules, mask statistics, pictures.

    python evaluate.py --workdir runs/casm_shapes
    python evaluate.py --workdir runs/casm_shapes --judges runs/other,runs/another

Prints a table and writes it, with everything needed to believe it, to `results.json`
in `--out`, beside grids of pictures. The naive baselines stand in the same table,
measured on the same images with the run's own classifier. Other classifiers judge the
masks: what they answer to the image, to what a mask keeps, to what it leaves.
"""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags

from saliency_jax.data import pipeline, sources
from saliency_jax.errors import InputError, run_command
from saliency_jax.evaluation.classes import check_classes
from saliency_jax.evaluation.judges import Judge, load_judges, origins
from saliency_jax.evaluation.judging import Judged, judge_masks, tabulate
from saliency_jax.evaluation.scoring import Outcome, score_masks
from saliency_jax.evaluation.showing import Shown, choose, show
from saliency_jax.metrics import rows
from saliency_jax.metrics.intervals import wilson_interval
from saliency_jax.metrics.localisation import VARIANTS, binarise, predicted_boxes
from saliency_jax.report.figures import localisation_grid, save_png
from saliency_jax.report.results import describe, describe_judges, write_results
from saliency_jax.run_config import read_run_config
from saliency_jax.saliency import Masker, load_masker
from saliency_jax.training import run_folder
from saliency_jax.training.checkpoints import saved_steps

GRIDS = 4
COLUMNS = 7

BINARISED = {
    "author": "mask binarised at the quantile of its mean; box of the largest "
    "4-connected component; ",
    "follow_up": "mask binarised at its mean; box of the largest 4-connected component "
    "less its last row and column; ",
}
RULE = (
    "CASM's scorer: shorter side resized to the image size and centre crop; {binarised}"
    "hit if intersection over union > 0.5 with any filed box, whose cropped-away part "
    "counts as missed; om also needs the run's own classifier to be right; f1 on the "
    "soft mask, best box of an image; f1a its mean over boxes; images without a box "
    "left out; intervals of 95 %: Wilson's for shares, Student's t for means"
)

JUDGING_RULE = (
    "masks binarised as above, rectangles as they are; removed pixels are the mean "
    "colour of the run's data, or inpainted by Telea's method, radius 3; every image, "
    "but under the ground-truth box those that have one; cross-entropy and entropy in "
    "nats; of a run the classifier of its last checkpoint, shown the size that it was "
    "trained at"
)


def define_flags() -> None:
    """Defines the flags; a program with flags of the same names may import the rest."""
    flags.DEFINE_string("workdir", None, "Folder of a run of stage casm.")
    flags.DEFINE_string("data", None, "Data set; by default the run's own.")
    flags.DEFINE_string(
        "data_dir", None, "Folder of prepared data sets; by default the run's own."
    )
    flags.DEFINE_string(
        "split", None, "Split of the data set; by default validation, or else test."
    )
    flags.DEFINE_string("out", None, "Where to write; by default WORKDIR/evaluation.")
    flags.DEFINE_integer(
        "batch_size", None, "Images in a batch; the run's own if None.", lower_bound=1
    )
    flags.DEFINE_integer(
        "limit", None, "Evaluate only the first so many images.", lower_bound=1
    )
    flags.DEFINE_string("checkpoint", "last", "last, best, or a kept step.")
    flags.DEFINE_list(
        "judges",
        [],
        "Classifiers that judge the masks, comma-separated: workdirs of runs (of stage "
        "classifier, or of stage casm for its classifier), or NETWORK=WEIGHTS_FILE.",
    )
    flags.DEFINE_enum(
        "variant",
        "author",
        VARIANTS,
        "Rules of CASM's authors (binarised at a quantile), or of the follow-up's "
        "(binarised at the mean).",
    )


def main(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: evaluate.py takes flags")
    if not values.workdir:
        raise InputError("evaluate.py needs --workdir FOLDER, of a run of train.py")
    evaluate(
        values.workdir,
        data=values.data,
        data_dir=values.data_dir,
        split=values.split,
        out=values.out,
        batch_size=values.batch_size,
        limit=values.limit,
        checkpoint=values.checkpoint,
        judges=values.judges,
        variant=values.variant,
    )


def evaluate(
    workdir: str | Path,
    *,
    data: str | None = None,
    data_dir: str | None = None,
    split: str | None = None,
    out: str | Path | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    checkpoint: str = "last",
    judges: Sequence[str] = (),
    variant: str = "author",
) -> None:
    """Evaluates a run, prints the table and writes it and the pictures.

    Args:
      workdir: of a run of stage casm.
      data: name of the data set; the run's own if None.
      data_dir: folder of prepared data sets; the run's own if None.
      split: of the data set; "validation", or else "test", if None.
      out: where to write; `<workdir>/evaluation` if None.
      batch_size: images in a batch; the run's own if None.
      limit: evaluate only the first so many images.
      checkpoint: "last", "best", or the step of a kept one.
      judges: classifiers that judge the masks, see `evaluation.judges.load_judges`.
      variant: of the rules, one of `metrics.localisation.VARIANTS`.

    Raises:
      InputError: if any of these does not exist or does not fit the others.
    """
    workdir = Path(workdir)
    out = workdir / "evaluation" if out is None else Path(out)
    config = read_run_config(workdir)
    masker, step = load(workdir, checkpoint)
    data = data or config["data"]["name"]
    data_dir = data_dir or config["data"]["data_dir"]
    split = split or sources.evaluation_split(data, data_dir)
    source = sources.open_source(data, data_dir, split)
    check_classes(workdir, config, source)
    size = config["data"]["image_size"]
    loaded = load_judges(judges, source, size)
    make_writable(out)

    batch_size = batch_size or config["data"]["batch_size"]
    count = min(limit or len(source), len(source))
    batches = functools.partial(
        pipeline.eval_batches,
        source,
        batch_size=batch_size,
        image_size=size,
        num_threads=config["data"]["num_threads"],
        limit=count,
    )
    outcome = score_masks(masker, batches(), count, batch_size, variant=variant)
    chosen = choose(outcome.measured["casm"].scores, GRIDS * COLUMNS, COLUMNS)
    names, mean = source.class_names, masker.classifier.mean
    pictures = [
        path
        for name, shown in show(masker, source, chosen, size).items()
        for path in draw(name, shown, names, mean, variant, out)
    ]

    table = summarise(outcome)
    scored = int(outcome.measured["casm"].scores.scored.sum())
    how = {
        **run_folder.environment(),
        "opencv": cv2.__version__,
        "workdir": str(workdir),
        "checkpoint": step,
        "trained_on": config["data"]["name"],
        "casm": config["casm"],
        "data": source.name,
        "split": source.split,
        "images": count,
        "images_without_box": count - scored,
        "image_size": size,
        "batch_size": batch_size,
        "variant": variant,
        "rule": RULE.format(binarised=BINARISED[variant]),
        "pictures": [path.name for path in pictures],
        **outcome.seconds,
    }
    judged = {}
    if loaded:
        how["judging_rule"] = JUDGING_RULE
        answers = judge_masks(
            masker, loaded, batches(), count, batch_size, variant=variant
        )
        how |= answers.seconds
        judged = summarise_judges(loaded, answers, workdir, source.num_classes)
    write_results(out / "results.json", table, judged, how)
    print(describe(table, how))
    if judged:
        print(f"\n{describe_judges(judged, how)}")
    print("\n".join(map(str, [out / "results.json", *pictures])))


def load(workdir: Path, checkpoint: str) -> tuple[Masker, int]:
    """Loads the masker of a checkpoint and says of which step it is.

    Raises:
      InputError: when there is no such run or checkpoint.
    """
    if checkpoint in ("last", "best"):
        steps = saved_steps(workdir, checkpoint)
        if checkpoint == "last" and steps:
            # By its number, for a run that goes on may save another meanwhile.
            return load_masker(workdir, steps[-1]), steps[-1]
        return load_masker(workdir, checkpoint), steps[-1]
    if not checkpoint.isdecimal():
        raise InputError(
            f"--checkpoint={checkpoint}: expected last, best or the step of a kept "
            "checkpoint"
        )
    return load_masker(workdir, int(checkpoint)), int(checkpoint)


def summarise(outcome: Outcome) -> dict[str, rows.Row]:
    """Returns the rows of the table; without any box there is CASM's alone."""
    table = {}
    for name, measured in outcome.measured.items():
        if name == "casm" or measured.scores.scored.any():
            table[name] = rows.summarise(measured, outcome.top_hits[:, 0])
    for name, right in (
        ("accuracy", outcome.top_hits[:, 0]),
        ("top5_accuracy", outcome.top_hits.any(axis=1)),
    ):
        table["casm"][name] = float(right.mean())
        interval = wilson_interval(int(right.sum()), len(right))
        table["casm"][f"{name}_interval"] = interval
    return table


def summarise_judges(
    judges: Mapping[str, Judge], judged: Judged, workdir: Path, num_classes: int
) -> dict[str, Any]:
    """Returns of each judge what `results.json` has of it."""
    own = origins(workdir)
    pictures = tabulate(judged, num_classes)
    return {
        name: {
            "path": str(judge.path),
            "step": judge.step,
            "image_size": judge.image_size,
            "shares_origin": not own.isdisjoint(origins(judge.path)),
            "pictures": pictures[name],
        }
        for name, judge in judges.items()
    }


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


def make_writable(out: Path) -> None:
    """Makes the output folder before the work begins.

    Raises:
      InputError: when it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror}): name another folder as --out"
        ) from error


if __name__ == "__main__":
    define_flags()
    run_command(main)
