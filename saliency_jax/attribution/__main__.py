r"""Maps of any methods on pictures of your own, in one figure.

    python -m saliency_jax.attribution --list
    python -m saliency_jax.attribution --classifier mobilenet_v2=WEIGHTS.safetensors \
        --images dog.jpg,cat.jpg --methods grad_cam,rise:masks=1000 --out maps

Writes `maps.png` and the raw maps as `maps.npz` (an array `[B, H, W]` for each method)
to `--out`. The classifier is shown the centre of each picture, as in evaluation;
`--view whole` presses all of it into a square. A method that these classifiers or
options do not allow is named and left out; the exit code is then 2. `--masker` names a
run of train.py, whose masker then stands in the figure too. `--beside RUN,RUN` explains
further classifiers on the same pictures, each in rows of its own; the arrays of
`maps.npz` are then named `CLASSIFIER/METHOD`. `--randomise 3` draws the last three
layers of each classifier anew and tells how much each method's maps still are the same
(Adebayo et al.: a map that stays does not explain the classifier).
"""

import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

import jax
import numpy as np
from absl import flags
from jaxtyping import Float, Int, UInt8

from saliency_jax import attribution
from saliency_jax.attribution.batching import in_batches
from saliency_jax.attribution.named import masker_method, method_of
from saliency_jax.attribution.registry import Method
from saliency_jax.attribution.scores import probabilities as probabilities_of
from saliency_jax.errors import InputError, report, run_command
from saliency_jax.evaluation.names import short_names
from saliency_jax.evaluation.randomisation import layers_from_the_top, randomise
from saliency_jax.explain.pictures import View, read_picture, shown
from saliency_jax.loading import load
from saliency_jax.metrics.agreement import rank_correlation
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import IMAGE_SIZE
from saliency_jax.report.figures import Caption, save_png
from saliency_jax.report.files import make_folder
from saliency_jax.report.heat import heat_grid


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_boolean("list", False, "Only list the methods and their options.")
    flags.DEFINE_string(
        "classifier", None, "Workdir of a run, or NETWORK=WEIGHTS_FILE."
    )
    flags.DEFINE_list(
        "beside",
        [],
        "Further classifiers, named in the same way, that are shown the same pictures "
        "and have rows of their own.",
    )
    flags.DEFINE_list("images", [], "Files of pictures, comma-separated.")
    flags.DEFINE_list(
        "methods",
        ["gradient", "grad_cam"],
        "Names, comma-separated; options follow a name: rise:masks=1000:cells=8.",
    )
    flags.DEFINE_string("masker", None, "Workdir of a run whose masker is shown too.")
    flags.DEFINE_list(
        "targets", [], "The class of each picture; by default the predicted one."
    )
    flags.DEFINE_enum(
        "view",
        "centre",
        get_args(View),
        "What the classifiers are shown of a picture: its centre as in evaluation, or "
        "the whole, pressed into a square.",
    )
    flags.DEFINE_integer(
        "image_size", None, "Side in pixels; by default the run's own, or 224.", 16
    )
    flags.DEFINE_integer("batch_size", 8, "Images in the classifier at once.", 1)
    flags.DEFINE_integer("seed", 0, "Of what is random.")
    flags.DEFINE_integer(
        "randomise", 0, "How many of the last layers to draw anew, to compare.", 0
    )
    flags.DEFINE_string("out", "maps", "Folder for the results.")


def main(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: this command takes flags")
    if values.list:
        for method in attribution.methods().values():
            print(_description(method))
        return
    if not values.classifier or not values.images:
        raise InputError("needs --classifier RUN or NETWORK=FILE, and --images FILES")
    left_out = explain_files(
        values.classifier,
        values.images,
        values.methods,
        beside=values.beside,
        masker=values.masker,
        targets=values.targets,
        view=values.view,
        image_size=values.image_size,
        batch_size=values.batch_size,
        seed=values.seed,
        randomised_layers=values.randomise,
        out=values.out,
    )
    if left_out:
        sys.exit(2)


def explain_files(
    classifier: str,
    images: Sequence[str],
    methods: Sequence[str],
    *,
    beside: Sequence[str] = (),
    masker: str | None = None,
    targets: Sequence[str] = (),
    view: View = "centre",
    image_size: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    randomised_layers: int = 0,
    out: str | Path = "maps",
) -> list[str]:
    """Writes the maps of methods on pictures; the arguments are the command's flags.

    Returns:
      The methods that failed, each of which was told.

    Raises:
      InputError: for anything that is not there, or does not fit, and where no method
        gives maps.
    """
    if not methods and not masker:
        raise InputError("--methods names none: see --list")
    functions = {text: method_of(text) for text in methods}
    if masker:
        functions[Path(masker).name] = masker_method(masker)
    first = load(classifier, "classifier")
    loaded = [first, *(load(named, "--beside") for named in beside)]
    models = dict(
        zip(
            short_names([one.path for one in loaded]),
            [one.classifier for one in loaded],
            strict=True,
        )
    )
    size = image_size or first.image_size or IMAGE_SIZE
    pictures = np.stack(
        [shown(read_picture(Path(name)).pixels, size, view)[0] for name in images]
    )
    out = Path(out)
    make_folder(out)

    key = jax.random.key(seed)
    left_out = []

    def explain(
        model: Classifier, classes: Int[np.ndarray, "B"], names: Iterable[str]
    ) -> dict[str, Float[np.ndarray, "B S S"]]:
        found = {}
        for name in [name for name in names if name not in left_out]:
            asked = {"key": key, "batch_size": batch_size}
            try:
                maps = functions[name](model, pictures, classes, **asked)
            except InputError as error:
                left_out.append(name)
                if len(left_out) == len(functions):
                    raise InputError(f"{name}: {error}") from error
                report(InputError(f"{name} is left out: {error}"))
                continue
            found[name] = np.asarray(maps)
        return found

    asked, captions, maps = {}, {}, {}
    for known_as, model in models.items():
        prefix = f"{known_as}: " if beside else ""
        asked[known_as], told = _explained(model, pictures, targets, batch_size)
        captions[known_as] = [
            caption._replace(name=prefix + caption.name) for caption in told
        ]
        for name, caption in zip(images, captions[known_as], strict=True):
            print(f"{name}: {' '.join(caption)}")
        maps[known_as] = explain(model, asked[known_as], functions)
    maps = {
        known_as: {name: of_model[name] for name in of_model if name not in left_out}
        for known_as, of_model in maps.items()
    }
    save_png(out / "maps.png", _figure(pictures, maps, captions))
    arrays = {
        f"{known_as}/{name}" if beside else name: of_method
        for known_as, of_model in maps.items()
        for name, of_method in of_model.items()
    }
    np.savez_compressed(out / "maps.npz", **arrays)
    print(f"maps: {out / 'maps.png'}, raw: {out / 'maps.npz'}")
    if randomised_layers:
        for known_as, model in models.items():
            layers = layers_from_the_top(model, pictures)[:randomised_layers]
            print(
                f"{known_as}: rank correlation with the maps after drawing "
                f"{', '.join(layers)} anew:"
            )
            drawn = randomise(model, layers, pictures, key)
            others = explain(drawn, asked[known_as], maps[known_as])
            for name, of_method in others.items():
                mean = rank_correlation(maps[known_as][name], of_method).mean()
                print(f"  {name:32} {mean:6.2f}")
    return left_out


def _figure(
    pictures: UInt8[np.ndarray, "B S S 3"],
    maps: Mapping[str, Mapping[str, Float[np.ndarray, "B S S"]]],
    captions: Mapping[str, Sequence[Caption]],
) -> UInt8[np.ndarray, "P Q 3"]:
    """Rows of all classifiers for the first picture, then for the next."""
    interleaved = lambda arrays: np.stack(arrays, axis=1).reshape(
        -1, *pictures.shape[1:3]
    )
    names = next(iter(maps.values()))
    return heat_grid(
        np.repeat(pictures, len(maps), axis=0),
        {name: interleaved([of[name] for of in maps.values()]) for name in names},
        [
            each
            for of_picture in zip(*captions.values(), strict=True)
            for each in of_picture
        ],
    )


def _explained(
    classifier: Classifier,
    images: UInt8[np.ndarray, "B H W 3"],
    asked: Sequence[str],
    batch_size: int,
) -> tuple[np.ndarray, list[Caption]]:
    """The class of each picture, and what a reader is told of it."""
    probabilities = np.asarray(
        in_batches(jax.jit(probabilities_of), batch_size, classifier, images)
    )
    targets = probabilities.argmax(axis=1)
    if asked:
        try:
            targets = np.array([int(text) for text in asked])
        except ValueError as error:
            text = ",".join(asked)
            raise InputError(
                f"--targets={text}: expected numbers of classes"
            ) from error
        if len(targets) != len(images):
            raise InputError(
                f"--targets names {len(targets)} classes for {len(images)} pictures"
            )
        if targets.min() < 0 or targets.max() >= probabilities.shape[1]:
            raise InputError(
                f"--targets={','.join(asked)}: the classifier knows classes 0 to "
                f"{probabilities.shape[1] - 1}"
            )
    names = classifier.labels or [f"class {i}" for i in range(probabilities.shape[1])]
    return targets, [
        Caption(names[target], f"{row[target]:.2f}")
        for target, row in zip(targets, probabilities, strict=True)
    ]


def _description(method: Method) -> str:
    lines = [f"{method.name} ({method.family}): {method.summary}"]
    for name, option in method.options.items():
        required = option.default is inspect.Parameter.empty
        text = "needed" if required else f"default {option.default!r}"
        if option.choices:
            text += f", one of {', '.join(map(repr, option.choices))}"
        lines.append(f"    {name}: {text}")
    return "\n".join(lines)


if __name__ == "__main__":
    define_flags()
    run_command(main)
