"""Explains pictures, a few at a time, and writes what was found beside each other."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from tqdm import tqdm

from saliency_jax import attribution
from saliency_jax.attribution.scores import probabilities
from saliency_jax.environment import environment
from saliency_jax.errors import InputError
from saliency_jax.explain.labels import check_labels
from saliency_jax.explain.pictures import (
    RESULTS,
    Picture,
    View,
    Window,
    box_in_picture,
    enlarged,
    read_picture,
    shown,
)
from saliency_jax.explain.regions import Rule, region_and_box
from saliency_jax.metrics.map_boxes import NO_BOX
from saliency_jax.models.black_box import count_classes
from saliency_jax.models.classifier import Classifier, mean_colour
from saliency_jax.models.selective_masker import SelectiveMasker
from saliency_jax.report.figures import (
    PREDICTED,
    Caption,
    draw_boxes,
    masked_pair,
    save_png,
)
from saliency_jax.report.files import make_folder, write_json
from saliency_jax.report.heat import heat_grid, overlay
from saliency_jax.saliency import Masker

Explain = Callable[..., Float[np.ndarray, "B S S"]]
"""Called as `explain(classifier, images, classes, key=..., batch_size=...)`."""

LINE_SHARE = 200  # the box's line is as thick as this part of the shorter side


class Explainer(NamedTuple):
    """What stands in one column.

    Attributes:
      explain: gives the maps.
      of_class: whether they depend on the class that is asked for.
      is_mask: whether they are masks in [0, 1], used as they are.
    """

    explain: Explain
    of_class: bool = True
    is_mask: bool = False


class Plan(NamedTuple):
    """What is done with every picture.

    Attributes:
      classifier: that is explained.
      labels: the names of its classes.
      explainers: by name.
      classes: how many of the most likely classes are explained.
      image_size: side in pixels of what the classifier is shown.
      view: what it is shown of a picture.
      rule: how a map becomes a region and a box.
      batch_size: pictures in the classifier at once.
      key: of what is random.
      out: folder of the results.
    """

    classifier: Classifier
    labels: Sequence[str]
    explainers: Mapping[str, Explainer]
    classes: int
    image_size: int
    view: View
    rule: Rule
    batch_size: int
    key: jax.Array
    out: Path


def masker_explainer(masker: Masker) -> Explainer:
    """The column of a trained masker."""
    method = attribution.get("trained_masker")
    of_class = isinstance(masker.module, SelectiveMasker)
    return Explainer(partial(method, masker=masker), of_class, is_mask=True)


def explain_pictures(plan: Plan, paths: Sequence[Path]) -> dict[str, Any]:
    """Explains pictures and writes all of it to the plan's folder.

    A picture that cannot be read is named on stderr and left out. After every batch
    `explanations.json` is whole, so that a stopped run leaves what it has done.

    Args:
      plan: what is done.
      paths: of the pictures' files.

    Returns:
      What `explanations.json` holds: "how", "pictures" and "skipped".

    Raises:
      InputError: none can be read, the classifier tells fewer classes apart than are
        asked for or other ones than are named, or something cannot be written.
    """
    known = count_classes(plan.classifier, "the classifier", plan.image_size)
    if plan.classes > known:
        raise InputError(
            f"--classes={plan.classes}: the classifier tells {known} classes apart"
        )
    check_labels(plan.labels, known)
    answer = jax.jit(probabilities)
    report: dict[str, Any] = {"how": describe(plan), "pictures": [], "skipped": []}
    folders = folder_names(paths)
    make_folder(plan.out)
    told = 0
    for start in tqdm(
        range(0, len(paths), plan.batch_size), unit="batch", disable=None
    ):
        batch = []
        for path in paths[start : start + plan.batch_size]:
            try:
                batch.append(read_picture(path))
            except InputError as error:
                report["skipped"].append({"file": str(path), "why": str(error)})
        # Where all are, the error at the end is enough.
        if batch or report["pictures"]:
            for left_out in report["skipped"][told:]:
                tqdm.write(f"left out: {left_out['why']}", file=sys.stderr)
            told = len(report["skipped"])
        if batch:
            report["pictures"] += _explain_batch(plan, answer, batch, folders)
            write_json(plan.out / RESULTS, report)
    if not report["pictures"]:
        raise InputError(
            f"none of the {len(paths)} files is a picture that can be explained, the "
            f"first because {report['skipped'][0]['why']}"
        )
    return report


def _explain_batch(
    plan: Plan,
    answer: Callable[..., Float[jax.Array, "B K"]],
    batch: Sequence[Picture],
    folders: Mapping[Path, str],
) -> list[dict[str, Any]]:
    views = [shown(one.pixels, plan.image_size, plan.view) for one in batch]
    squares = np.stack([square for square, _ in views])
    probability = np.asarray(answer(plan.classifier, squares))
    # Of equally likely classes the first comes first.
    ranked = np.argsort(-probability, axis=1, kind="stable")[:, : plan.classes]
    maps = {name: _maps(plan, name, squares, ranked) for name in plan.explainers}
    return [
        _write_picture(
            plan,
            picture,
            plan.out / folders[picture.path],
            squares[number],
            window,
            ranked[number],
            probability[number],
            {name: of_all[number] for name, of_all in maps.items()},
        )
        for number, (picture, (_, window)) in enumerate(zip(batch, views, strict=True))
    ]


def _maps(
    plan: Plan,
    name: str,
    squares: UInt8[np.ndarray, "B S S 3"],
    ranked: Int[np.ndarray, "B R"],
) -> Float[np.ndarray, "B R S S"]:
    """Of each picture and class; of what asks for no class, one for all of them.

    Raises:
      InputError: the explainer of that name does not allow this.
    """
    explainer = plan.explainers[name]
    options = {"key": plan.key, "batch_size": plan.batch_size}
    asked = ranked.T if explainer.of_class else ranked.T[:1]
    try:
        maps = [
            np.asarray(explainer.explain(plan.classifier, squares, classes, **options))
            for classes in asked
        ]
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return np.broadcast_to(np.stack(maps, axis=1), (*ranked.shape, *squares.shape[1:3]))


def _write_picture(
    plan: Plan,
    picture: Picture,
    folder: Path,
    square: UInt8[np.ndarray, "S S 3"],
    window: Window,
    classes: Int[np.ndarray, "R"],
    probability: Float[np.ndarray, "K"],
    maps: Mapping[str, Float[np.ndarray, "R S S"]],
) -> dict[str, Any]:
    """Writes what was found of a picture; returns its entry in the JSON."""
    make_folder(folder)
    names = [plan.labels[c] if plan.labels else f"class {c}" for c in classes]
    captions = [
        Caption(name, f"{probability[number]:.2f}")
        for name, number in zip(names, classes, strict=True)
    ]
    sheet = heat_grid(np.repeat(square[None], len(classes), axis=0), maps, captions)
    save_png(folder / "sheet.png", sheet)
    explained = []
    for rank, (name, number) in enumerate(zip(names, classes, strict=True)):
        entry = {
            "class": int(number),
            "name": name,
            "probability": float(probability[number]),
            "methods": {},
        }
        for method, of_classes in maps.items():
            explainer = plan.explainers[method]
            region, box = region_and_box(
                square, of_classes[rank], plan.rule, explainer.is_mask
            )
            stem = f"{rank + 1}_{slug(name)}_{slug(method)}"
            files = _write_pictures(
                plan, picture, folder / stem, window, of_classes[rank], region, box
            )
            found = not np.array_equal(box, NO_BOX)
            entry["methods"][method] = {
                "box": box_in_picture(box, plan.image_size, window) if found else None,
                "area": float(region.mean()),
                "files": {
                    kind: f"{folder.name}/{file}" for kind, file in files.items()
                },
            }
        explained.append(entry)
    height, width = picture.pixels.shape[:2]
    return {
        "file": str(picture.path),
        "size": [width, height],
        "notes": picture.notes,
        "window": window._asdict(),
        "sheet": f"{folder.name}/sheet.png",
        "classes": explained,
    }


def _write_pictures(
    plan: Plan,
    picture: Picture,
    stem: Path,
    window: Window,
    values: Float[np.ndarray, "S S"],
    region: Bool[np.ndarray, "S S"],
    box: Int[np.ndarray, "4"],
) -> dict[str, str]:
    """Writes the map over the picture, and what its region keeps and leaves."""
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    # What the classifier was not shown is darkened, and belongs to no region.
    heat = picture.pixels // 3
    heat[rows, columns] = overlay(
        picture.pixels[rows, columns], enlarged(values, window)
    )
    if not np.array_equal(box, NO_BOX):
        ymin, xmin, ymax, xmax = box_in_picture(box, plan.image_size, window)
        thickness = max(1, min(heat.shape[:2]) // LINE_SHARE)
        heat = draw_boxes(heat, [((xmin, ymin, xmax, ymax), PREDICTED)], thickness)
    kept = np.zeros(picture.pixels.shape[:2], np.float32)
    kept[rows, columns] = enlarged(region.astype(np.float32), window)
    masked_in, masked_out = masked_pair(
        picture.pixels, kept, mean_colour(plan.classifier)
    )
    files = {}
    for kind, pixels in (
        ("overlay", heat),
        ("masked_in", masked_in),
        ("masked_out", masked_out),
    ):
        files[kind] = f"{stem.name}_{kind}.png"
        save_png(stem.with_name(files[kind]), pixels)
    return files


def describe(plan: Plan) -> dict[str, Any]:
    """What made the explanations, for whoever finds them alone."""
    return {
        **environment(),
        "methods": list(plan.explainers),
        "image_size": plan.image_size,
        "view": plan.view,
        "box": plan.rule._asdict(),
        "boxes": "ymin, xmin, ymax, xmax in the picture's pixels, half-open",
    }


def folder_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A folder for each picture: its name, with a number where two have the same."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name = base = slug(path.stem)
        number = 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        names[path] = name
    return names


def slug(text: str) -> str:
    """A text as part of a file's name: letters and digits of any alphabet."""
    return re.sub(r"[^\w.=-]+", "_", text.split(",")[0]).strip("_.")[:60] or "picture"
