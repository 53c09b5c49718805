"""The results of an evaluation, as `results.json` and as text."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saliency_jax.report.files import write_json
from saliency_jax.report.table import format_number, format_per_cent, format_table

ROW_NAMES = {
    "image": "image",
    "casm": "CASM",
    "black_box": "black-box masker",
    "iterative": "iterative mask",
    "whole_image": "whole image",
    "center_box": "centre box",
    "ground_truth_box": "ground-truth box",
}
SCORE_NAMES = {"le": "LE %", "om": "OM %", "f1": "F1 %", "f1a": "F1a %"}
MASK_NAMES = {
    "mask_mean": "mask area %",
    "mask_std": "its deviation %",
    "mask_entropy": "entropy %",
    "mask_total_variation": "total variation %",
}
SALIENCY_NAMES = {
    "sm": "saliency metric",
    "sm_log_area": "log area",
    "sm_log_probability": "log p",
    "sm_accuracy": "crop accuracy %",
}
SELECTIVITY_NAMES = {
    "prefers": "greater mean on it %",
    "selects": "> 1/2 of it and < 1/4 of the other %",
    "mean_asked": "mean on it %",
    "mean_other": "mean on the other %",
}
IN_NATS = ("sm", "sm_log_area", "sm_log_probability")

EDIT_NAMES = {
    "clean": "clean",
    "masked_in": "masked-in",
    "masked_out": "masked-out",
    "inpainted": "masked-out inpainted",
}

Rows = Mapping[str, Mapping[str, Any]]
Judges = Mapping[str, Mapping[str, Any]]


def write_results(
    path: Path,
    tables: Mapping[str, Rows],
    judges: Judges,
    selectivity: Rows,
    how: Mapping[str, Any],
) -> None:
    """Writes `{"rows": ..., "judges": ..., "how": ...}`, all of it or nothing.

    Args:
      path: of the JSON file.
      tables: "rows" and, of some images only, "seen" and "unseen"; of each row its
        figures, which `metrics.rows.summarise` names.
      judges: of each judge what `describe_judges` needs, and more.
      selectivity: of each run its figures, which `metrics.selectivity` names; empty
        where images have no second object.
      how: what made the figures: command, data, rule, versions, device, times.

    Raises:
      InputError: when the file cannot be written.
    """
    content = {**tables, "judges": judges, "selectivity": selectivity, "how": how}
    write_json(path, content)


def describe(tables: Mapping[str, Rows], how: Mapping[str, Any]) -> str:
    """Returns the tables, under what was evaluated and over the times.

    Args:
      tables: as for `write_results`.
      how: what made the figures.
    """
    crops, without = how["crop_classifier"], how["images_without_box"]
    what = (
        f"{how['workdir']}, checkpoint {how['checkpoint']}, on {how['images']} images "
        f"of {how['data']} {how['split']} at {how['image_size']} pixels"
    )
    if without:
        what += f"; {without} without a box are not in the table"
    parts = [what, _describe_rows(tables["rows"])]
    for name, title in (("seen", "of the"), ("unseen", "of none of the")):
        if name in tables:
            count, known = how["images_by_class"][name], how["training_classes"]
            parts.append(
                f"{count} images {title} {known} class{'es' * (known != 1)} that the "
                "run's training data have"
            )
            if count < how["images"]:
                parts.append(_describe_rows(tables[name]))
            else:
                parts[-1] += ": all of the above"
    notes = (
        "[low, high]: 95 % intervals\n"
        f"crops answered by {crops['path']} at {crops['image_size']} pixels, "
        f"in {how['crop_seconds']:.2f} s\n"
        f"network {how['network_seconds']:.2f} s, metrics {how['metric_seconds']:.2f} "
        f"processor s in {how['metric_threads']} threads beside it, compilation "
        f"{how['compile_seconds']:.1f} s, all together {how['wall_seconds']:.1f} s"
    )
    if "iterative" in how:
        optimised, images = how["iterative"], how["images"]
        notes += (
            f"\niterative masks, {optimised['iterations']} iterations each: "
            f"{images / optimised['network_seconds']:.3g} a second; the masker's "
            f"{images / how['network_seconds']:.3g}"
        )
    return "\n\n".join((*parts, notes))


def _describe_rows(rows: Rows) -> str:
    def cell(row: Mapping[str, Any], name: str) -> str:
        if name not in row:
            return "-"
        form = format_number if name in IN_NATS else format_per_cent
        return form(row[name], row.get(f"{name}_interval"))

    def table(columns: Mapping[str, str]) -> str:
        body = [
            [ROW_NAMES.get(name, name), *(cell(row, key) for key in columns)]
            for name, row in rows.items()
        ]
        return format_table(["", *columns.values()], body)

    classifiers = [
        f"classifier of {ROW_NAMES.get(name, name)}: top-1 accuracy "
        f"{cell(row, 'accuracy')} %, top-5 {cell(row, 'top5_accuracy')} %"
        for name, row in rows.items()
        if "accuracy" in row
    ]
    tables = map(table, (SCORE_NAMES, MASK_NAMES, SALIENCY_NAMES))
    return "\n\n".join((*tables, "\n".join(classifiers)))


def describe_selectivity(selectivity: Rows) -> str:
    """Returns a table of how masks tell two objects of an image apart."""
    body = [
        [
            ROW_NAMES.get(name, name),
            *(
                format_per_cent(row[key], row[f"{key}_interval"])
                for key in SELECTIVITY_NAMES
            ),
        ]
        for name, row in selectivity.items()
        if "prefers" in row
    ]
    title = "asked for one of two objects"
    return format_table([title, *SELECTIVITY_NAMES.values()], body)


def describe_judges(judges: Judges, how: Mapping[str, Any]) -> str:
    """Returns a table of each figure, a row for each picture and a column for a judge.

    Args:
      judges: of each its `pictures`, `{mask: {edit: figures}}`, whose figures
        `metrics.judgement.summarise` names, with the `mask_area` where there is a mask;
        and whether it `shares_origin` with the run's own classifier.
      how: as for `describe`.
    """
    pictures = [
        (row, edit, format_per_cent(figures["mask_area"]) if row != "image" else "-")
        for row, edits in next(iter(judges.values()))["pictures"].items()
        for edit, figures in edits.items()
    ]
    header = [
        f"{name}*" if judge["shares_origin"] else name for name, judge in judges.items()
    ]

    def table(title: str, cell: Callable[[Mapping[str, Any]], str]) -> str:
        body = [
            [
                f"{ROW_NAMES[row]}, {EDIT_NAMES[edit]}",
                area,
                *(cell(judge["pictures"][row][edit]) for judge in judges.values()),
            ]
            for row, edit, area in pictures
        ]
        return format_table([title, "mask area %", *header], body)

    notes = (
        f"pictures with binary masks, variant {how['variant']}, removed pixels in the "
        f"mean colour\njudged in {how['judging_seconds']:.1f} s; inpainting "
        f"{how['inpainting_seconds']:.2f} processor s beside it, waited for "
        f"{how['judging_waited_for_inpainting_seconds']:.2f} s"
    )
    if any(judge["shares_origin"] for judge in judges.values()):
        notes += (
            "\n* is the run's own classifier, or goes back to the same run or weights"
        )
    return "\n\n".join(
        (
            table(
                "accuracy %",
                lambda f: format_per_cent(f["accuracy"], f["accuracy_interval"]),
            ),
            table("cross-entropy, nats", lambda f: f"{f['cross_entropy']:.3f}"),
            table("entropy, nats", lambda f: f"{f['entropy']:.3f}"),
            notes,
        )
    )
