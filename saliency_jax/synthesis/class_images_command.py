r"""Makes the image that a classifier holds most of each of some classes.

    python -m saliency_jax.synthesis class_images --classes 1,130,281 \
        --classifier mobilenet_v2=mobilenet_v2_tf.safetensors --out class_images

Writes to `--out` a PNG file for each class, all of them in `class_images.png`, and
`class_images.json` with the score of every step and the probability at the end.
`--variant paper` is the method as it was published, on the logit; `--output
probability` shows why not on the probability. `--layer` makes the images of channels of
a layer instead, whose numbers are `--classes`. See
`saliency_jax.synthesis.class_image`.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
from absl import flags

from saliency_jax.attribution.layers import Unit
from saliency_jax.attribution.scores import probabilities
from saliency_jax.environment import environment
from saliency_jax.errors import InputError, unknown
from saliency_jax.explain.explanations import slug
from saliency_jax.explain.labels import check_labels, read_labels
from saliency_jax.loading import load
from saliency_jax.models.black_box import count_classes
from saliency_jax.models.create import IMAGE_SIZE
from saliency_jax.report.figures import (
    Caption,
    as_uint8,
    enlarge_smoothly,
    join,
    save_png,
    with_header,
)
from saliency_jax.report.files import make_folder, write_json
from saliency_jax.synthesis.class_image import LEGIBLE, Output, class_image

VARIANTS: dict[str, dict[str, Any]] = {"legible": LEGIBLE, "paper": {}}


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "classifier", None, "A run, NETWORK=WEIGHTS_FILE, or package.module:function."
    )
    flags.DEFINE_list(
        "classes",
        [],
        "Numbers or names of classes, comma-separated; one name of a class is enough.",
    )
    flags.DEFINE_string(
        "layer", None, "Layer whose channels --classes are; by default the classes."
    )
    flags.DEFINE_string(
        "labels", None, "File with the name of each class on a line of its own."
    )
    flags.DEFINE_enum("variant", "legible", VARIANTS, "Options that go together.")
    flags.DEFINE_enum("output", "logit", get_args(Output), "What climbs.")
    flags.DEFINE_integer("steps", None, "By default those of the variant.", 1)
    flags.DEFINE_integer(
        "image_size", None, "Side in pixels; by default the run's own, or 224.", 16
    )
    flags.DEFINE_integer("batch_size", 8, "Images at once.", 1)
    flags.DEFINE_integer("seed", 0, "Of the jitter.")
    flags.DEFINE_string("out", "class_images", "Folder for the results.")


def main(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: this command takes flags")
    if not (values.classifier and values.classes):
        raise InputError("class_images needs --classifier and --classes")
    options = dict(VARIANTS[values.variant])
    if values.steps:
        options["steps"] = values.steps
    make_class_images(
        values.classifier,
        values.classes,
        layer=values.layer,
        labels=values.labels,
        output=values.output,
        image_size=values.image_size,
        batch_size=values.batch_size,
        seed=values.seed,
        out=values.out,
        **options,
    )


def make_class_images(
    classifier: str,
    classes: Sequence[str],
    *,
    layer: str | None = None,
    labels: str | None = None,
    output: Output = "logit",
    image_size: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    out: str | Path = "class_images",
    **options: Any,
) -> dict[str, Any]:
    """Writes class images; the arguments are the command's flags.

    Returns:
      What `class_images.json` holds.

    Raises:
      InputError: for anything that is not there, or does not fit.
    """
    loaded = load(classifier, "--classifier")
    model, size = loaded.classifier, image_size or loaded.image_size or IMAGE_SIZE
    names = read_labels(Path(labels)) if labels else model.labels
    check_labels(names, count_classes(model, classifier, size))
    numbers = np.array([class_number(text, () if layer else names) for text in classes])
    kind = f"{layer} channel" if layer else "class"
    for number in numbers:
        if np.sum(numbers == number) > 1:
            raise InputError(
                f"--classes: {kind} {number} is named twice: commas separate classes, "
                "so give one name of each"
            )
    targets = Unit(numbers, layer=layer) if layer else numbers
    out = Path(out)
    make_folder(out)
    images, aux = class_image(
        model,
        targets,
        key=jax.random.key(seed),
        batch_size=batch_size,
        image_size=size,
        output=output,
        progress=True,
        return_aux=True,
        **options,
    )
    certain = np.asarray(jax.jit(probabilities)(model, images))
    pictures, entries = as_uint8(np.asarray(images)), []
    for place, number in enumerate(numbers):
        name = names[number] if names and not layer else f"{kind} {number}"
        file = f"{number}_{slug(name)}.png"
        save_png(out / file, pictures[place])
        probability = None if layer else float(certain[place, number])
        entries.append(
            {
                "number": int(number),
                "name": name,
                "file": file,
                "probability": probability,
                "scores": [float(score) for score in aux["scores"][place]],
            }
        )
    captions = [
        Caption(entry["name"], "" if layer else f"{entry['probability']:.2f}")
        for entry in entries
    ]
    strip = join([enlarge_smoothly(one) for one in pictures], axis=1)
    save_png(out / "class_images.png", with_header(strip, captions))
    how = {**environment(), "classifier": classifier, "image_size": size}
    how |= {"output": output, "seed": seed, "options": options}
    results = {"how": how, "images": entries}
    write_json(out / "class_images.json", results)
    print(f"{out / 'class_images.png'}, {out / 'class_images.json'}")
    return results


def class_number(text: str, names: Sequence[str]) -> int:
    """The number of a class that a user names.

    Args:
      text: the number, the whole name, or one of the synonyms that commas separate in
        it, in capitals or not.
      names: of all classes.

    Raises:
      InputError: there is no class of that name, or there are several.
    """
    if text.isdecimal():
        return int(text)
    if not names:
        raise InputError(
            f"--classes: {text!r} is no number, and no names are known: see --labels"
        )
    asked = text.strip().casefold()
    synonyms = [[one.strip() for one in name.split(",")] for name in names]
    whole = [n for n, name in enumerate(names) if name.strip().casefold() == asked]
    found = whole or [
        n for n, of_class in enumerate(synonyms) if asked in map(str.casefold, of_class)
    ]
    if not found:
        every = itertools.chain.from_iterable(synonyms)
        raise InputError(f"--classes: {unknown('class', text, every)}")
    if len(found) > 1:
        raise InputError(
            f"--classes: {text!r} names the classes {', '.join(map(str, found))}: name "
            "one of them by its number"
        )
    return found[0]
