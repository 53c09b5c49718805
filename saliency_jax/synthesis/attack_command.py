r"""Attacks classifiers, and tries what was made against one on all of them.

    python -m saliency_jax.synthesis attack --data imagenet_loc --data_dir data \
        --classifiers mobilenet_v2=mobilenet_v2.safetensors,squeezenet1_1=squeeze.pth \
        --epsilons 1,4 --out attacks

Writes to `--out` `attacks.json`: for every radius (in steps of 1/255) a matrix of the
share of its right answers that each classifier loses to examples made against each,
with 95 % intervals; the diagonal is the attack's own success rate. `attacks.png` shows
the first images, what was added to them, and what the classifier then says. All
classifiers are shown images of one size. The radii of `--attack pgd_l2` are L2 norms of
a whole image's change, by default 64,255, that is 0.25 and 1. With `--targeted` every
attack goes towards the wrong class that the attacked classifier holds least likely
(Kurakin et al., arXiv 1607.02533), and the share taken for that class is told too. See
`saliency_jax.synthesis.adversarial`.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jaxtyping import Float, UInt8
from tqdm import tqdm

from saliency_jax.data import pipeline, sources
from saliency_jax.environment import environment
from saliency_jax.errors import InputError
from saliency_jax.evaluation.classes import check_fit
from saliency_jax.evaluation.names import short_names
from saliency_jax.loading import load
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import IMAGE_SIZE
from saliency_jax.report.figures import as_uint8, join, save_png, with_header
from saliency_jax.report.files import make_folder, write_json
from saliency_jax.report.table import format_per_cent, format_table
from saliency_jax.synthesis.adversarial import fgsm, pgd
from saliency_jax.synthesis.transfer import Attack, rates, try_on_all

STEP = 1 / 255
EPSILONS = {"fgsm": ("1", "4"), "pgd": ("1", "4"), "pgd_l2": ("64", "255")}
SHOWN = 4  # images in the picture


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_list(
        "classifiers",
        [],
        "Runs, NETWORK=WEIGHTS_FILE, or package.module:function, comma-separated.",
    )
    flags.DEFINE_string("data", None, "Data set.")
    flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets.")
    flags.DEFINE_string("split", None, "By default validation, or else test.")
    flags.DEFINE_enum("attack", "fgsm", EPSILONS, "Which attack.")
    flags.DEFINE_list(
        "epsilons",
        [],
        "Radii in steps of 1/255, comma-separated; by default 1,4, and for pgd_l2, "
        "whose radii are L2 norms of a whole image's change, 64,255.",
    )
    flags.DEFINE_integer("steps", None, "Of pgd and pgd_l2; by default 10.", 1)
    flags.DEFINE_float(
        "step_size",
        None,
        "Of pgd and pgd_l2, in steps of 1/255; by default 2.5 radii / steps.",
    )
    flags.DEFINE_bool(
        "targeted",
        False,
        "Attack towards the wrong class that the attacked classifier holds least "
        "likely.",
    )
    flags.DEFINE_integer("limit", None, "Only the first so many images.", 1)
    flags.DEFINE_integer(
        "image_size", None, "Side in pixels; by default the first run's, or 224.", 16
    )
    flags.DEFINE_integer("batch_size", 16, "Images at once.", 1)
    flags.DEFINE_integer("seed", 0, "Of random starts.")
    flags.DEFINE_string("out", "attacks", "Folder for the results.")


def main(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: this command takes flags")
    if not (values.classifiers and values.data):
        raise InputError("attack needs --classifiers and --data")
    attack_data(
        values.classifiers,
        values.data,
        data_dir=values.data_dir,
        split=values.split,
        attack=values.attack,
        epsilons=values.epsilons,
        steps=values.steps,
        step_size=values.step_size,
        targeted=values.targeted,
        limit=values.limit,
        image_size=values.image_size,
        batch_size=values.batch_size,
        seed=values.seed,
        out=values.out,
    )


def attack_data(
    classifiers: Sequence[str],
    data: str,
    *,
    data_dir: str = "data",
    split: str | None = None,
    attack: str = "fgsm",
    epsilons: Sequence[str] = (),
    steps: int | None = None,
    step_size: float | None = None,
    targeted: bool = False,
    limit: int | None = None,
    image_size: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    out: str | Path = "attacks",
) -> dict[str, Any]:
    """Writes what attacks do; the arguments are the command's flags.

    Returns:
      What `attacks.json` holds.

    Raises:
      InputError: for anything that is not there, or does not fit.
    """
    radii = {text: STEP * radius(text) for text in epsilons or EPSILONS[attack]}
    if len(set(radii.values())) < len(epsilons or radii):
        raise InputError(f"--epsilons={','.join(epsilons)}: a radius is named twice")
    options = {"targeted": targeted} | step_options(attack, steps, step_size)
    source = sources.open_source(
        data, data_dir, split or sources.evaluation_split(data, data_dir)
    )
    loaded = [load(named, "--classifiers") for named in classifiers]
    names = short_names([one.path for one in loaded])
    sizes = [one.image_size for one in loaded if one.image_size]
    size = image_size or (sizes[0] if sizes else IMAGE_SIZE)
    for named, one in zip(classifiers, loaded, strict=True):
        check_fit(f"classifier {named}", one, source, size)
    models = [one.classifier for one in loaded]
    out = Path(out)
    make_folder(out)

    count = min(limit or len(source), len(source))
    right: list[np.ndarray] = []
    fooled: dict[str, list[np.ndarray]] = {text: [] for text in radii}
    hit: dict[str, list[np.ndarray]] = {text: [] for text in radii}
    shown: list[UInt8[np.ndarray, "P Q 3"]] = []
    batches = pipeline.eval_batches(
        source, batch_size=min(batch_size, count), image_size=size, limit=count
    )
    with tqdm(total=count * len(radii), unit="image", disable=None) as bar:
        for number, batch in enumerate(batches):
            valid = batch["valid"]
            # Of a random start: the same for an image in a batch of any size.
            start = {
                "key": jax.random.key(seed),
                "places": number * batch_size + np.arange(len(valid)),
            }
            for text, epsilon in radii.items():
                found = try_on_all(
                    models,
                    batch["image"],
                    batch["label"],
                    attacking(attack, epsilon, start, options),
                    targeted,
                )
                fooled[text].append(found.fooled[..., valid])
                if found.hit is not None:
                    hit[text].append(found.hit[..., valid])
                if number == 0:
                    some = batch["image"][:SHOWN], found.attacked[0, :SHOWN]
                    shown.append(_drawn(models[0], *some, source.class_names, text))
                bar.update(int(valid.sum()))
            right.append(found.right[:, valid])
    had = np.concatenate(right, axis=1)
    tables = {
        text: rates(
            names,
            had,
            np.concatenate(parts, axis=2),
            np.concatenate(hit[text], axis=2) if targeted else None,
        )
        for text, parts in fooled.items()
    }
    results = {
        "how": {
            **environment(),
            "classifiers": list(classifiers),
            "data": source.name,
            "split": source.split,
            "images": count,
            "image_size": size,
            "attack": attack,
            "options": options,
            "seed": seed,
        },
        "accuracy": dict(zip(names, had.mean(axis=1).tolist(), strict=True)),
        "fooled": tables,
    }
    write_json(out / "attacks.json", results)
    save_png(out / "attacks.png", join(shown, axis=0))
    print(describe(tables, attack, targeted))
    print(f"{out / 'attacks.json'}, {out / 'attacks.png'}")
    return results


def radius(text: str) -> float:
    """A radius that a user names, in steps of 1/255.

    Raises:
      InputError: it is no number above 0.
    """
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise InputError(
            f"--epsilons: {text!r} is no radius: expected a number above 0, in steps "
            "of 1/255"
        )
    return number


def step_options(
    attack: str, steps: int | None, step_size: float | None
) -> dict[str, Any]:
    """Those of an attack's options that a user gives.

    Raises:
      InputError: the attack has none, or a step goes nowhere.
    """
    given = {"steps": steps, "step_size": step_size and STEP * step_size}
    options = {name: value for name, value in given.items() if value is not None}
    if options and attack == "fgsm":
        raise InputError(
            f"--{next(iter(options))} is of pgd and pgd_l2: fgsm is one step as long "
            "as its radius"
        )
    if step_size is not None and not 0 < step_size < float("inf"):
        raise InputError(f"--step_size={step_size}: expected a number above 0")
    return options


def attacking(
    name: str, epsilon: float, start: Mapping[str, Any], options: Mapping[str, Any]
) -> Attack:
    """The attack of a name; `start` is what `pgd` draws its first points by."""
    if name == "fgsm":
        return functools.partial(fgsm, epsilon=epsilon, **options)
    norm = "l2" if name == "pgd_l2" else "linf"
    return functools.partial(pgd, epsilon=epsilon, norm=norm, **start, **options)


def describe(tables: Mapping[str, Any], attack: str, targeted: bool) -> str:
    """Returns the matrices as text."""
    parts = []
    for text, table in tables.items():
        header = [f"{attack}, {text}/255: made against", *table]
        body = [
            [
                made,
                *map(_cell, of_made.values()),
            ]
            for made, of_made in table.items()
        ]
        parts.append(format_table(header, body))
    note = "per cent of its right answers that each column's classifier loses"
    if targeted:
        note += "; after the semicolon that it takes for the target"
    return "\n\n".join((*parts, note))


def _cell(of: Mapping[str, Any]) -> str:
    if of["share"] is None:
        return "-"
    lost = format_per_cent(of["share"], of["interval"])
    if "target_share" not in of:
        return lost
    return f"{lost}; {format_per_cent(of['target_share'], of['target_interval'])}"


def _drawn(
    classifier: Classifier,
    images: UInt8[np.ndarray, "B H W 3"],
    attacked: Float[np.ndarray, "B H W 3"],
    names: Sequence[str],
    text: str,
) -> UInt8[np.ndarray, "P Q 3"]:
    """A row for each image: as it is, what was added, the sum, and its two classes."""
    before, after = (
        np.asarray(classifier(x)).argmax(axis=1) for x in (images, attacked)
    )
    moves = attacked - images / np.float32(255)
    grey = 0.5 + moves / (2 * np.abs(moves).max(initial=1e-12))
    rows = []
    for place, image in enumerate(images):
        cells = [image, as_uint8(grey[place : place + 1])[0]]
        cells.append(as_uint8(attacked[place : place + 1])[0])
        captions = [names[before[place]], f"{text}/255, amplified", names[after[place]]]
        rows.append(with_header(join(cells, axis=1), captions))
    return join(rows, axis=0)
