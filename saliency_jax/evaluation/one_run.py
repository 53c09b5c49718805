"""One run's masker, judged by itself: what `evaluate.py --workdir RUN` does."""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from saliency_jax.data import pipeline, sources
from saliency_jax.environment import environment
from saliency_jax.errors import InputError
from saliency_jax.evaluation import judging, rules, table
from saliency_jax.evaluation.asking import measure_selectivity
from saliency_jax.evaluation.classes import check_classes, training_classes
from saliency_jax.evaluation.drawing import draw_pictures
from saliency_jax.evaluation.explainers import iterative, iterative_options, trained
from saliency_jax.evaluation.judges import Judge, load_judge, load_judges, origins
from saliency_jax.evaluation.runs import Run, load_beside, load_run, with_confidence
from saliency_jax.report.results import (
    ROW_NAMES,
    describe,
    describe_judges,
    describe_selectivity,
    write_results,
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
    beside: Sequence[str] = (),
    iterations: int | None = None,
    judges: Sequence[str] = (),
    crop_classifier: str | None = None,
    confidence: float | None = None,
    variant: str = "author",
) -> None:
    """Evaluates a run, prints the table and writes it and the pictures.

    Args:
      workdir: of a run of stage casm or black_box.
      data: name of the data set; the run's own if None.
      data_dir: folder of prepared data sets; the run's own if None.
      split: of the data set; "validation", or else "test", if None.
      out: where to write; if None `<workdir>/evaluation`, unless the results of more
        images are there.
      batch_size: images in a batch; the run's own if None.
      limit: evaluate only the first so many images.
      checkpoint: "last", "best", or the step of a kept one.
      beside: workdirs of further runs, for rows of their own; each is shown the same
        images at its own size.
      iterations: of the descent for each image of the row "iterative", see
        `evaluation.explainers.iterative_options`; no such row if None.
      judges: classifiers that judge the masks, see `evaluation.judges.load_judges`.
      crop_classifier: what answers to the crops of the saliency metric, as one of
        `judges`; the run's own classifier if None.
      confidence: of a black-box masker, see `FeatureFilter`; the run's own if None.
      variant: of the rules, one of `metrics.localisation.VARIANTS`.

    Raises:
      InputError: if any of these does not exist or does not fit the others.
    """
    run = load_run(workdir, checkpoint)
    if confidence is not None:
        run = with_confidence(run, confidence)
    config, stage, size = run.config, run.stage, run.image_size
    out_is_named = out is not None
    out = Path(out) if out_is_named else run.workdir / "evaluation"
    trained_on, filed_dir = config["data"]["name"], config["data"]["data_dir"]
    data = data or trained_on
    data_dir = data_dir or filed_dir
    split = split or sources.evaluation_split(data, data_dir)
    source = sources.open_source(data, data_dir, split)
    check_classes(run.workdir, config, source)
    count = min(limit or len(source), len(source))
    if not out_is_named:
        _check_not_lost(out / "results.json", count)
    runs = {stage: run, **load_beside(beside, source, ROW_NAMES)}
    explainers = {
        name: trained(other.masker, other.image_size) for name, other in runs.items()
    }
    if iterations is not None:
        descent = iterative_options(config, iterations)
        explainers["iterative"] = iterative(
            run.masker.classifier, size, descent, config["seed"]
        )
    loaded = load_judges(judges, source, size)
    crop_judge = Judge(run.workdir, run.masker.classifier, size, run.step)
    if crop_classifier:
        crop_judge = load_judge(crop_classifier, source, size, "--crop_classifier")
    make_writable(out)

    batch_size = batch_size or config["data"]["batch_size"]
    batches = functools.partial(
        pipeline.eval_batches,
        source,
        batch_size=batch_size,
        num_threads=config["data"]["num_threads"],
        limit=count,
    )
    measurements = table.measure(
        explainers, crop_judge, batches, count, batch_size, variant=variant
    )
    own = measurements.outcomes[stage]
    known = training_classes(config, data_dir if data == trained_on else filed_dir)
    groups = table.groups(own.labels, known)
    tables = {
        name: table.tabulate(measurements, counted) for name, counted in groups.items()
    }
    scores = own.measured[stage].scores
    pairs = {}
    if "other_mask" in next(batches(image_size=size)):
        pairs = {
            name: measure_selectivity(
                other.masker, batches(image_size=other.image_size)
            )
            for name, other in runs.items()
        }
    pictures = draw_pictures(run, source, scores, variant, out)
    how = {
        **environment(),
        "opencv": cv2.__version__,
        **describe_run(run),
        "data": source.name,
        "split": source.split,
        "images": count,
        "images_without_box": count - int(scores.scored.sum()),
        "images_by_class": {name: int(group.sum()) for name, group in groups.items()},
        "training_classes": None if known is None else int(known.sum()),
        "batch_size": batch_size,
        "variant": variant,
        "rule": rules.localisation(variant),
        "saliency_metric_rule": rules.SALIENCY_METRIC,
        "crop_classifier": {
            "path": str(crop_judge.path),
            "step": crop_judge.step,
            "image_size": crop_judge.image_size,
        },
        "beside": {
            name: describe_run(other) | measurements.outcomes[name].seconds
            for name, other in runs.items()
            if name != stage
        },
        "pictures": [path.name for path in pictures],
        **own.seconds,
        "crop_seconds": measurements.crop_seconds,
    }
    if iterations is not None:
        how["iterative"] = {
            "rule": rules.ITERATIVE,
            "seed": config["seed"],
            **dataclasses.asdict(descent),
            **measurements.outcomes["iterative"].seconds,
        }
    judged = {}
    if loaded:
        how["judging_rule"] = rules.JUDGING
        answers = judging.judge_masks(
            run.masker,
            loaded,
            batches(image_size=size),
            count,
            batch_size,
            variant=variant,
            row=stage,
            mean=run.mean,
        )
        how |= answers.seconds
        judged = summarise_judges(loaded, answers, run.workdir, source.num_classes)
    write_results(out / "results.json", tables, judged, pairs, how)
    print(describe(tables, how))
    if pairs:
        print(f"\n{describe_selectivity(pairs)}")
    if judged:
        print(f"\n{describe_judges(judged, how)}")
    print("\n".join(map(str, [out / "results.json", *pictures])))


def _check_not_lost(path: Path, count: int) -> None:
    """Refuses to write a trial's results over those of more images.

    Raises:
      InputError: there are such results.
    """
    try:
        there = json.loads(path.read_text())["how"]["images"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if isinstance(there, int) and there > count:
        raise InputError(
            f"{path} has the results of {there} images: give --out for those of "
            f"{count}, or remove it"
        )


def describe_run(run: Run) -> dict[str, Any]:
    """Returns of a run what `results.json` has of it."""
    return {
        "workdir": str(run.workdir),
        "checkpoint": run.step,
        "stage": run.stage,
        "trained_on": run.config["data"]["name"],
        run.stage: run.config[run.stage],
        "output": run.masker.classifier.output,
        "confidence": float(run.masker.confidence),
        "image_size": run.image_size,
    }


def summarise_judges(
    judges: Mapping[str, Judge], judged: judging.Judged, workdir: Path, num_classes: int
) -> dict[str, Any]:
    """Returns of each judge what `results.json` has of it."""
    own = origins(workdir)
    pictures = judging.tabulate(judged, num_classes)
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
