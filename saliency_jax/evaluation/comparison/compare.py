"""The conductor: every contestant through every pass, then the tables and the report.

A contestant that fails keeps its row, with the reason; the others go on. What a pass
measured is on disk before the next begins.
"""

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
      out: folder of all files.
    """

    setting: Setting
    classifier: tuple[str, ...]
    metrics: Mapping[str, Any]
    rule: BoxRule
    asked: int
    crop_judge: Judge
    judges: Mapping[str, Judge]
    out: Path

    def needs(self, name: str) -> list[str]:
        """The metrics of a pass that are wanted."""
        return [metric for metric in catalogue.PASSES[name] if metric in self.metrics]


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
    rows, measured, curves, maps = {}, {}, {}, {}
    for name, contestant in contestants.items():
        row = ComparisonRow(contestant.title, contestant.kind, {}, "", "")
        try:
            rows[name] = _measured_row(plan, contestant, name, measured, curves, maps)
        except FAILURES as error:
            reason = " ".join(str(error).split())
            print(f"{contestant.title} has no figures: {reason}", file=sys.stderr)
            rows[name] = row._replace(error=reason)
    if not measured:
        raise InputError("no row has figures: see the reasons above")
    names = list(maps)
    agreement = None
    if "agreement" in plan.metrics and len(names) > 1:
        agreement = names, sanity_pass.agreement(maps)
    comparison = Comparison(
        metrics=plan.metrics,
        rows=rows,
        curves=curves,
        agreement=agreement,
        published=published(contestants),
        how=how,
    )
    return comparison, make_gallery(plan.setting, contestants, measured)


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


def _measured_row(
    plan: Plan,
    contestant: Contestant,
    name: str,
    measured: dict[str, Arrays],
    curves: dict[str, Mapping[str, list[float]]],
    maps: dict[str, np.ndarray],
) -> ComparisonRow:
    """Takes one contestant through all passes; adds to what the report needs."""
    setting = plan.setting
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
    if contestant.kind != "baseline":
        figures |= _costs(Cost(*localised["cost"].tolist()))
    if plan.needs("crops"):
        boxes, _ = localisation_pass.chosen_boxes(localised)
        cropped = kept(
            "crops",
            lambda: crops_pass.measure(setting, plan.crop_judge, boxes),
            judge=[str(plan.crop_judge.path), plan.crop_judge.step],
            boxes=boxes.tolist(),
        )
        figures |= crops_pass.figures(cropped, localised["scored"])
    asks_again = plan.needs("faithfulness") + plan.needs("sanity")
    if asks_again and not contestant.knows_truth:
        asked = min(plan.asked, setting.count)
        of_class = kept(
            "maps",
            lambda: faithfulness_pass.maps_of_predicted(contestant, setting, asked),
            asked=asked,
        )
        for what, measure in faithfulness_pass.measures(
            plan.needs("faithfulness"), contestant, setting, of_class["maps"]
        ).items():
            answered = kept(what, measure, asked=asked)
            figures |= faithfulness_pass.figures(what, answered)
            if what == faithfulness_pass.CURVES:
                curves[name] = faithfulness_pass.curves(answered)
        for what, measure in sanity_pass.measures(
            plan.needs("sanity"), contestant, setting, of_class["maps"]
        ).items():
            figures |= sanity_pass.figures(what, kept(what, measure, asked=asked))
        maps[name] = of_class["maps"]
    if plan.judges:
        asked = min(plan.asked, setting.count)
        judged = kept(
            "judged",
            lambda: judged_pass.measure(contestant, setting, plan.judges, asked),
            asked=asked,
            judges=[[str(judge.path), judge.step] for judge in plan.judges.values()],
        )
        figures |= judged_pass.figures(judged)
    measured[name] = localised
    return ComparisonRow(
        contestant.title,
        contestant.kind,
        {metric: figures[metric] for metric in plan.metrics if metric in figures},
        localisation_pass.rule_in_words(localised, plan.rule, contestant),
        "",
    )


def _costs(cost: Cost) -> dict[str, Figure]:
    """What maps cost; without an interval, since it is of this run."""
    found = {"first_seconds": cost.first_seconds}
    if cost.images:
        found["images_per_second"] = cost.images / cost.seconds
    if cost.peak_bytes:
        found["peak_gib"] = cost.peak_bytes / 2**30
    return {
        name: Figure(value, None, int(cost.images)) for name, value in found.items()
    }
