"""The conductor: every contestant through every pass, then the tables and the report.

A contestant that fails keeps its row, with the reason; the others go on. What a pass
measured is on disk before the next begins.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from saliency_jax.errors import InputError
from saliency_jax.evaluation.comparison import (
    catalogue,
    crops_pass,
    faithfulness_pass,
    judged_pass,
    localisation_pass,
    sanity_pass,
    saved,
)
from saliency_jax.evaluation.comparison.contestants import Contestant
from saliency_jax.evaluation.comparison.costs import Cost
from saliency_jax.evaluation.comparison.gallery import make_gallery
from saliency_jax.evaluation.comparison.localisation_pass import BoxRule
from saliency_jax.evaluation.comparison.passes import Setting, classify, described
from saliency_jax.evaluation.comparison.published import published
from saliency_jax.evaluation.comparison.saved import Arrays
from saliency_jax.evaluation.judges import Judge
from saliency_jax.models.classifier import Classifier
from saliency_jax.report.comparison import Comparison, ComparisonRow, Figure, Gallery

FAILURES = (InputError, jax.errors.JaxRuntimeError)
"""Of one row: the user's mistake, or too little memory."""


class Plan(NamedTuple):
    """What is measured, and where it is kept.

    Attributes:
      setting: what all rows share; its answers are filled in here.
      classifier: what the figures go back to, in words.
      metrics: names of the catalogue.
      rule: how a map becomes a box.
      asked: how many images are put to the metrics that ask the classifier again.
      crop_judge: what answers to the crops.
      judges: other classifiers, by name.
      memoriser: a classifier that was taught random labels, and what it goes back to.
      out: folder of all files.
    """

    setting: Setting
    classifier: tuple[str, ...]
    metrics: Mapping[str, Any]
    rule: BoxRule
    asked: int
    crop_judge: Judge
    judges: Mapping[str, Judge]
    memoriser: tuple[Classifier | None, tuple[str, ...]]
    out: Path

    def needs(self, name: str) -> list[str]:
        """The metrics of a pass that are wanted."""
        return [metric for metric in catalogue.PASSES[name] if metric in self.metrics]


class Measured(NamedTuple):
    """A row with figures.

    Attributes:
      row: of the table.
      localised: the arrays of its localisation pass.
      maps: of the images that were asked about again; None where none were.
      curves: of insertion and deletion, if they were measured.
    """

    row: ComparisonRow
    localised: Arrays
    maps: np.ndarray | None
    curves: Mapping[str, list[float]]


def compare(
    plan: Plan, contestants: Mapping[str, Contestant], how: Mapping[str, Any]
) -> tuple[Comparison, Gallery]:
    """Measures all rows.

    Args:
      plan: what is measured.
      contestants: by the names of their rows.
      how: what made the figures, for whoever finds them alone.

    Returns:
      The comparison, and what its report shows.

    Raises:
      InputError: the classifier diverged, no row has figures, or a file cannot be
        written.
    """
    plan = with_answers(plan)
    rows, measured = {}, {}
    for name, contestant in contestants.items():
        try:
            measured[name] = measure_row(plan, name, contestant)
            rows[name] = measured[name].row
        except FAILURES as error:
            reason = _in_one_line(error)
            print(f"{contestant.title} has no figures: {reason}", file=sys.stderr)
            rows[name] = ComparisonRow(
                contestant.title, contestant.kind, {}, error=reason
            )
    if not measured:
        raise InputError("no row has figures: see the reasons above")
    maps = {name: row.maps for name, row in measured.items() if row.maps is not None}
    agreement = None
    if "agreement" in plan.metrics and len(maps) > 1:
        matrix, means = sanity_pass.agreement(maps)
        agreement = list(maps), matrix
        for name, figure in means.items():
            figures = rows[name].figures | {"agreement": figure}
            rows[name] = rows[name]._replace(figures=figures)
    compared = Comparison(
        metrics=plan.metrics,
        rows=rows,
        curves={name: row.curves for name, row in measured.items() if row.curves},
        agreement=agreement,
        published=published(contestants, plan.metrics),
        how=how,
    )
    localised = {name: row.localised for name, row in measured.items()}
    return compared, make_gallery(plan.setting, contestants, localised)


def with_answers(plan: Plan) -> Plan:
    """The plan with the classifier's answers to the images as they are."""
    settings = {"count": plan.setting.count} | _common(plan)
    path = saved.path_of(plan.out, "classifier", "answers")
    answers = _kept(path, settings, lambda: classify(plan.setting))
    return plan._replace(setting=plan.setting._replace(answers=answers))


def _common(plan: Plan) -> dict[str, Any]:
    return {"classifier": list(plan.classifier)} | described(plan.setting)


def _kept(
    path: Path, settings: Mapping[str, Any], measure: Callable[[], Arrays]
) -> Arrays:
    """What was measured before, or else is measured and kept now."""
    arrays = saved.load(path, settings)
    if arrays is None:
        arrays = measure()
        saved.save(path, settings, arrays)
    return arrays


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def measure_row(plan: Plan, name: str, contestant: Contestant) -> Measured:
    """Takes one contestant through all passes.

    Args:
      plan: with the classifier's answers.
      name: of the row.
      contestant: that stands in it.

    Raises:
      InputError: its maps are not finite, or not one for each image.
    """
    setting, asked = plan.setting, min(plan.asked, plan.setting.count)
    common = _common(plan) | {
        "row": contestant.title,
        "origin": list(contestant.origin),
    }

    def kept(what: str, measure: Callable[[], Arrays], **settings: Any) -> Arrays:
        path = saved.path_of(plan.out, name, what)
        return _kept(path, common | settings, measure)

    localised = kept(
        "localisation",
        lambda: localisation_pass.measure(contestant, setting, plan.rule),
        **localisation_pass.settings(plan.rule, setting),
    )
    figures = localisation_pass.figures(localised, setting.answers, setting.image_size)
    notes = [localisation_pass.rule_in_words(localised, plan.rule, contestant)]
    if contestant.kind != "baseline":
        figures |= _costs(Cost(*localised["cost"].tolist()))

    def add(
        what: str,
        measure: Callable[[], Arrays],
        figures_of: Callable[[Arrays], dict[str, Figure]],
        **settings: Any,
    ) -> Arrays | None:
        """Adds a measure's figures; where it fails, the row keeps the others."""
        try:
            arrays = kept(what, measure, **settings)
        except FAILURES as error:
            reason = _in_one_line(error)
            print(f"{contestant.title}, {what}: {reason}", file=sys.stderr)
            notes.append(f"no {what}: {reason}")
            return None
        figures.update(figures_of(arrays))
        return arrays

    if plan.needs("crops"):
        boxes, _ = localisation_pass.chosen_boxes(localised)
        add(
            "crops",
            lambda: crops_pass.measure(setting, plan.crop_judge, boxes),
            lambda arrays: crops_pass.figures(arrays, localised["scored"]),
            judge=[str(plan.crop_judge.path), plan.crop_judge.step],
            boxes=boxes.tolist(),
        )
    maps, curves = None, {}
    faithful, sane = plan.needs("faithfulness"), plan.needs("sanity")
    if (faithful or sane) and not contestant.knows_truth:
        maps = kept(
            "maps",
            lambda: faithfulness_pass.maps_of_predicted(contestant, setting, asked),
            asked=asked,
        )["maps"]
        for what, measure in faithfulness_pass.measures(
            faithful, contestant, setting, maps
        ).items():
            of_measure = functools.partial(faithfulness_pass.figures, what)
            arrays = add(what, measure, of_measure, asked=asked)
            if what == faithfulness_pass.CURVES and arrays is not None:
                curves = faithfulness_pass.curves(arrays)
        memoriser, origin = plan.memoriser
        for what, measure in sanity_pass.measures(
            sane, contestant, setting, asked, memoriser
        ).items():
            of_measure = functools.partial(sanity_pass.figures, what)
            add(what, measure, of_measure, asked=asked, memoriser=list(origin))
    if plan.judges:
        add(
            "judged",
            lambda: judged_pass.measure(contestant, setting, plan.judges, asked),
            judged_pass.figures,
            asked=asked,
            judges=[[str(judge.path), judge.step] for judge in plan.judges.values()],
        )
    row = ComparisonRow(
        contestant.title,
        contestant.kind,
        {metric: figures[metric] for metric in plan.metrics if metric in figures},
        "; ".join(notes),
        competes=not contestant.knows_truth,
    )
    return Measured(row, localised, maps, curves)


def _costs(cost: Cost) -> dict[str, Figure]:
    """What maps cost; without an interval, since it is of this run."""
    found = {"first_seconds": cost.first_seconds}
    if cost.images:
        found["images_per_second"] = cost.images / cost.seconds
    if cost.peak_bytes:
        found["peak_gib"] = cost.peak_bytes / 2**30
    images = int(cost.images)
    return {name: Figure(value, None, images) for name, value in found.items()}
