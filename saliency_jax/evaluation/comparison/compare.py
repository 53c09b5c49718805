"""The conductor: every contestant through every pass, then the tables and the report.

A contestant that fails keeps its row, with the reason; the others go on. What a pass
measured is on disk before the next begins.
"""

import functools
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from saliency_jax.errors import InputError
from saliency_jax.evaluation.comparison import (
    catalogue,
    crops_pass,
    faithfulness_pass,
    judged_pass,
    localisation_pass,
    robustness_pass,
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
from saliency_jax.report.comparison import (
    Comparison,
    ComparisonRow,
    Figure,
    Gallery,
    Metric,
)


class Plan(NamedTuple):
    """What is measured, and where it is kept.

    Attributes:
      setting: what all rows share; its answers are filled in here.
      classifier: what the figures go back to, in words.
      metrics: the columns, by name.
      rule: how a map becomes a box.
      asked: how many images are put to the metrics that ask the classifier again.
      crop_judge: what answers to the crops.
      judges: other classifiers, by name.
      memoriser: a classifier that was taught random labels, and what it goes back to.
      out: folder of all files.
      commit: of the code; "" if it is not known.
      attacked: the images under attack, where they are wanted; filled in here.
    """

    setting: Setting
    classifier: tuple[str, ...]
    metrics: Mapping[str, Metric]
    rule: BoxRule
    asked: int
    crop_judge: Judge
    judges: Mapping[str, Judge]
    memoriser: tuple[Classifier | None, tuple[str, ...]]
    out: Path
    commit: str = ""
    attacked: np.ndarray | None = None

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
    if plan.needs("robustness"):
        plan, success = under_attack(plan)
        how = {**how, "attack_success": success}
    rows, measured = {}, {}
    for name, contestant in contestants.items():
        try:
            measured[name] = measure_row(plan, name, contestant)
            rows[name] = measured[name].row
        except Exception as error:
            reason = _told(error, f"{contestant.title} has no figures")
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
    found = {name for row in rows.values() for name in row.figures}
    compared = Comparison(
        metrics={name: plan.metrics[name] for name in plan.metrics if name in found},
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
    answers = _kept(path, settings, lambda: classify(plan.setting), plan.commit)
    return plan._replace(setting=plan.setting._replace(answers=answers))


def under_attack(plan: Plan) -> tuple[Plan, float]:
    """The plan with the images under attack, and how often that succeeded."""
    asked = min(plan.asked, plan.setting.count)
    path = saved.path_of(plan.out, "classifier", "attack")
    arrays = _kept(
        path,
        {"asked": asked} | _common(plan),
        lambda: robustness_pass.attack(plan.setting, asked),
        plan.commit,
    )
    return plan._replace(attacked=arrays["images"]), float(arrays["success"].mean())


def _common(plan: Plan) -> dict[str, Any]:
    return {"classifier": list(plan.classifier)} | described(plan.setting)


def _kept(
    path: Path,
    settings: Mapping[str, Any],
    measure: Callable[[], Arrays],
    commit: str,
) -> Arrays:
    """What was measured before, or else is measured and kept now."""
    arrays = saved.load(path, settings)
    if arrays is None:
        arrays = measure()
        saved.save(path, settings, arrays, commit)
    return arrays


def _told(error: Exception, what: str) -> str:
    """Tells why something of one row failed, and returns the reason in one line.

    Of what is no user's mistake, nor too little memory, with the traceback: it may be a
    fault of a method, which is no reason to lose the other rows.
    """
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, InputError | jax.errors.JaxRuntimeError):
        traceback.print_exception(error)
        reason = f"{type(error).__name__}: {reason}"
    tqdm.write(f"{what}: {reason}", file=sys.stderr)
    return reason


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
    figures: dict[str, Figure] = {}
    notes: list[str] = []

    def kept(what: str, measure: Callable[[], Arrays], **settings: Any) -> Arrays:
        bar.set_postfix_str(what)
        path = saved.path_of(plan.out, name, what)
        arrays = _kept(path, common | settings, measure, plan.commit)
        if (commit := saved.commit_of(path)) != plan.commit:
            notes.append(f"{what} measured at commit {commit[:7] or 'unknown'}")
        bar.update()
        return arrays

    def attempt(
        what: str, measure: Callable[[], Arrays], **settings: Any
    ) -> Arrays | None:
        """Measures; where that fails, the row keeps its other figures."""
        try:
            return kept(what, measure, **settings)
        except Exception as error:
            reason = _told(error, f"{contestant.title}, {what}")
            notes.append(f"no {what}: {reason}")
            return None

    def add(found: Mapping[str, Figure]) -> None:
        """Adds figures; one that is not finite is left out, and told of."""
        finite = {n: f for n, f in found.items() if math.isfinite(f.value)}
        figures.update(finite)
        notes.extend(f"no {n}: not finite" for n in found.keys() - finite.keys())

    faithful, sane = plan.needs("faithfulness"), plan.needs("sanity")
    attacked = plan.attacked if contestant.sees_images else None
    asks = faithful or sane or attacked is not None
    asks = asks and not contestant.knows_truth
    memoriser, memoriser_origin = plan.memoriser
    of_sanity = sanity_pass.measures(sane, contestant, setting, asked, memoriser)
    of_maps = faithfulness_pass.measures(faithful, contestant, setting, asked)
    steps = [1, bool(plan.needs("crops")), bool(plan.judges)]
    again = 1 + len(of_maps) + len(of_sanity) + (attacked is not None)
    steps += [again] if asks else []
    maps, curves = None, {}
    with tqdm(total=sum(steps), disable=None, unit="pass") as bar:
        bar.set_description(contestant.title)
        localised = kept(
            "localisation",
            lambda: localisation_pass.measure(contestant, setting, plan.rule),
            **localisation_pass.settings(plan.rule, setting),
        )
        notes.append(localisation_pass.rule_in_words(localised, plan.rule, contestant))
        add(localisation_pass.figures(localised, setting.answers, setting.image_size))
        if contestant.kind != "baseline":
            cost = Cost(*localised["cost"].tolist())
            add(_costs(cost, setting.count))
            if not cost.images:
                notes.append("no images/s: one batch, whose time is compilation's too")
        if plan.needs("crops"):
            boxes, _ = localisation_pass.chosen_boxes(localised)
            crops = attempt(
                "crops",
                lambda: crops_pass.measure(setting, plan.crop_judge, boxes),
                judge=plan.crop_judge.identity(),
                boxes=boxes.tolist(),
            )
            if crops is not None:
                add(crops_pass.figures(crops, localised["scored"]))
        of_predicted = asks and attempt(
            "maps",
            lambda: faithfulness_pass.maps_of_predicted(contestant, setting, asked),
            asked=asked,
        )
        if of_predicted:
            maps = of_predicted["maps"]
            for what, measure in of_maps.items():
                arrays = attempt(what, functools.partial(measure, maps), asked=asked)
                if arrays is None:
                    continue
                add(faithfulness_pass.figures(what, arrays))
                if what == faithfulness_pass.CURVES:
                    curves = faithfulness_pass.curves(arrays)
            for what, measure in of_sanity.items():
                origin = {"memoriser": list(memoriser_origin)}
                arrays = attempt(what, measure, asked=asked, **origin)
                if arrays is not None:
                    add(sanity_pass.figures(what, arrays))
            if attacked is not None:
                robust = attempt(
                    "robustness",
                    lambda: robustness_pass.measure(
                        contestant, setting, maps, attacked
                    ),
                    asked=asked,
                )
                if robust is not None:
                    add(robustness_pass.figures(robust))
        if plan.judges:
            judged = attempt(
                "judged",
                lambda: judged_pass.measure(contestant, setting, plan.judges, asked),
                asked=asked,
                judges=[judge.identity() for judge in plan.judges.values()],
            )
            if judged is not None:
                add(judged_pass.figures(judged))
    row = ComparisonRow(
        contestant.title,
        contestant.kind,
        {metric: figures[metric] for metric in plan.metrics if metric in figures},
        "; ".join(notes),
        competes=not contestant.knows_truth,
    )
    return Measured(row, localised, maps, curves)


def _costs(cost: Cost, count: int) -> dict[str, Figure]:
    """What maps of so many images cost; no interval, since it is of this run."""
    found = {"first_seconds": Figure(cost.first_seconds, None, count)}
    if cost.images:
        pace = cost.images / cost.seconds
        found["images_per_second"] = Figure(pace, None, int(cost.images))
    if cost.peak_bytes:
        found["peak_gib"] = Figure(cost.peak_bytes / 2**30, None, count)
    return found
