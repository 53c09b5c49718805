"""The results of an evaluation, as `results.json` and as text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saliency_jax.errors import InputError
from saliency_jax.report.table import format_per_cent, format_table

ROW_NAMES = {
    "casm": "CASM",
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

Rows = Mapping[str, Mapping[str, Any]]


def write_results(path: Path, rows: Rows, how: Mapping[str, Any]) -> None:
    """Writes `{"rows": rows, "how": how}`, the whole file or nothing.

    Args:
      path: of the JSON file.
      rows: of each row its figures, as fractions; `metrics.rows.summarise` names them.
      how: what made the figures: command, data, rule, versions, device, times.

    Raises:
      InputError: when the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    text = json.dumps({"rows": rows, "how": how}, indent=2, allow_nan=False)
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror})") from error


def describe(rows: Rows, how: Mapping[str, Any]) -> str:
    """Returns the table in per cent, under what was evaluated and over the times."""

    def cell(row: Mapping[str, Any], name: str) -> str:
        if name not in row:
            return "-"
        return format_per_cent(row[name], row.get(f"{name}_interval"))

    def table(columns: Mapping[str, str]) -> str:
        body = [
            [ROW_NAMES[name], *(cell(row, key) for key in columns)]
            for name, row in rows.items()
        ]
        return format_table(["", *columns.values()], body)

    casm, without = rows["casm"], how["images_without_box"]
    what = (
        f"{how['workdir']}, checkpoint {how['checkpoint']}, on {how['images']} images "
        f"of {how['data']} {how['split']} at {how['image_size']} pixels"
    )
    if without:
        what += f"; {without} without a box are not in the table"
    notes = (
        "[low, high]: 95 % intervals\n"
        f"classifier: top-1 accuracy {cell(casm, 'accuracy')} %, "
        f"top-5 {cell(casm, 'top5_accuracy')} %\n"
        f"network {how['network_seconds']:.2f} s, metrics {how['metric_seconds']:.2f} "
        f"processor s in {how['metric_threads']} threads beside it, compilation "
        f"{how['compile_seconds']:.1f} s, all together {how['wall_seconds']:.1f} s"
    )
    return "\n\n".join((what, table(SCORE_NAMES), table(MASK_NAMES), notes))
