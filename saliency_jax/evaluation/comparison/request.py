"""What a user asks of a comparison, by names: loaded, checked, measured, written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from saliency_jax.data import sources
from saliency_jax.environment import environment
from saliency_jax.errors import InputError, unknown
from saliency_jax.evaluation import fingerprints
from saliency_jax.evaluation.classes import check_fit
from saliency_jax.evaluation.comparison import catalogue, contestants, judged_pass
from saliency_jax.evaluation.comparison.box_regressor import supervised
from saliency_jax.evaluation.comparison.compare import Plan, compare
from saliency_jax.evaluation.comparison.localisation_pass import (
    CONTOURS,
    THUMBNAILS,
    BoxRule,
)
from saliency_jax.evaluation.comparison.passes import Setting
from saliency_jax.evaluation.judges import Judge, load_judge, load_judges
from saliency_jax.evaluation.runs import load_beside
from saliency_jax.loading import Loaded, load
from saliency_jax.models.black_box import count_classes
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import IMAGE_SIZE
from saliency_jax.report.comparison import Comparison, Gallery, to_json
from saliency_jax.report.comparison_tables import (
    to_csv,
    to_latex,
    to_markdown,
    to_text,
)
from saliency_jax.report.files import make_folder
from saliency_jax.report.html.page import build_page

THREADS = 4
REGRESSOR = "box_regressor"  # the name of its row


class Request(NamedTuple):
    """The flags of `evaluate.py` that a comparison reads; see there."""

    classifier: str
    maskers: Sequence[str]
    methods: Sequence[str]
    metrics: Sequence[str]
    data: str
    data_dir: str
    split: str | None
    limit: int | None
    out: str | Path
    batch_size: int
    image_size: int | None
    box: str
    convention: str
    asked: int
    judges: Sequence[str]
    crop_classifier: str | None
    memoriser: str | None
    supervised: bool
    sort: str | None
    seed: int


def answer(request: Request) -> list[Path]:
    """Compares what a user names, prints the table, and writes everything.

    Returns:
      The paths of what was written.

    Raises:
      InputError: something that was named does not exist or does not fit the rest.
    """
    metrics = catalogue.chosen(request.metrics)
    if request.memoriser is None:
        if "random_labels" in request.metrics:
            raise InputError(
                "--metrics random_labels needs --memoriser, a classifier that was "
                "taught random labels: train one with --config.data.random_labels=True"
            )
        metrics.pop("random_labels", None)
    sort = request.sort or next(iter(metrics))
    if sort not in metrics:
        raise InputError(f"--sort={sort}: {unknown('column', sort, metrics)}")
    split = request.split or sources.evaluation_split(request.data, request.data_dir)
    source = sources.open_source(request.data, request.data_dir, split)
    loaded = load(request.classifier, "--classifier")
    size = request.image_size or loaded.image_size or IMAGE_SIZE
    check_fit(f"classifier {request.classifier}", loaded, source, size)
    trivial = contestants.trivial(size, request.seed, request.convention)
    rows = contestants.methods(request.methods, size, request.batch_size)
    taken = {*rows, *trivial, REGRESSOR}
    rows |= contestants.maskers(load_beside(request.maskers, source, taken))
    rows |= trivial
    judge = Judge(loaded.path, loaded.classifier, size, loaded.step)
    if request.crop_classifier:
        judge = load_judge(request.crop_classifier, source, size, "--crop_classifier")
    judges = load_judges(request.judges, source, size)
    contours = not metrics.keys().isdisjoint(CONTOURS)
    plan = Plan(
        setting=Setting(
            classifier=loaded.classifier,
            image_size=size,
            source=source,
            count=min(request.limit or len(source), len(source)),
            batch_size=request.batch_size,
            num_threads=THREADS,
            seed=request.seed,
            answers={},
        ),
        classifier=identity(request.classifier, loaded),
        metrics=metrics | judged_pass.metrics(judges),
        rule=BoxRule(request.box, request.convention, contours),
        asked=request.asked,
        crop_judge=judge,
        judges=judges,
        memoriser=load_memoriser(request.memoriser, loaded.classifier, size),
        out=Path(request.out),
        commit=environment()["commit"],
    )
    if request.supervised:
        rows[REGRESSOR] = supervised(plan.setting, request.convention)
    if not source.has_boxes:
        print(f"no image of {source.name} {split} has a box to be scored by")
        rows.pop("ground_truth_box")
    make_folder(plan.out)
    compared, gallery = compare(plan, rows, describe(request, plan))
    if sort not in compared.metrics:
        instead = next(iter(compared.metrics))
        print(f"no row has a figure of {sort}: sorted by {instead}")
        sort = instead
    return write(compared, gallery, sort, plan.out)


def load_memoriser(
    named: str | None, classifier: Classifier, size: int
) -> tuple[Classifier | None, tuple[str, ...]]:
    """Loads a classifier that was taught random labels, if one is named.

    Raises:
      InputError: there is none, or it tells other classes apart.
    """
    if named is None:
        return None, ()
    loaded = load(named, "--memoriser")
    theirs, ours = (
        count_classes(model, named, size) for model in (loaded.classifier, classifier)
    )
    if theirs != ours:
        raise InputError(
            f"--memoriser={named} tells {theirs} classes apart, the classifier {ours}: "
            "name one that was taught random labels of the same classes"
        )
    return loaded.classifier, identity(named, loaded)


def identity(named: str, loaded: Loaded) -> tuple[str, ...]:
    """What a classifier's figures go back to: another one is measured again."""
    return named, str(loaded.step), fingerprints.of_classifier(loaded.classifier)


def describe(request: Request, plan: Plan) -> dict[str, Any]:
    """What made the figures, for whoever finds them alone."""
    setting = plan.setting
    return {
        **environment(),
        "opencv": cv2.__version__,
        "classifier": request.classifier,
        "data": setting.source.name,
        "split": setting.source.split,
        "images": setting.count,
        "images_asked": min(plan.asked, setting.count),
        "best_and_worst_of_the_first": min(THUMBNAILS, setting.count),
        "image_size": setting.image_size,
        "batch_size": setting.batch_size,
        "seed": setting.seed,
        "box": plan.rule.name,
        "box_convention": plan.rule.convention,
        "crop_classifier": str(plan.crop_judge.path),
        "judges": list(plan.judges),
        "maskers": [str(masker) for masker in request.maskers],
    }


def write(compared: Comparison, gallery: Gallery, sort: str, out: Path) -> list[Path]:
    """Prints the table, and writes it in every form.

    Raises:
      InputError: a file cannot be written.
    """
    how = compared.how
    title = f"{how['data']} {how['split']}, {Path(how['classifier']).name}"
    forms = {
        "comparison.json": to_json(compared),
        "comparison.csv": to_csv(compared, sort),
        "comparison.md": to_markdown(compared, sort),
        "comparison.tex": to_latex(compared, sort),
        "report.html": build_page(compared, gallery, title=title, sort_by=sort),
    }
    paths = [out / name for name in forms]
    try:
        for path, text in zip(paths, forms.values(), strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be written ({error.strerror})"
        ) from error
    print(to_text(compared, sort))
    return paths
