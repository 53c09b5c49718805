r"""Generates the salient part of images anew, and counts what keeps its class.

    python -m saliency_jax.synthesis variations --classifier runs/classifier_shapes \
        --generator runs/generator_shapes --data shapes --data_dir data \
        --method grad_cam --limit 20 --out variations

Writes to `--out` `variations.json`, the share of all variations that the classifier
still calls what it calls the image, with its interval, and `variations.png`, the first
variations of the first images, none chosen. Beside it stand the shares of boxes whose
content nobody searched for: of what the starting points generate, and of the mean
colour. `--place random` moves each box to where no map told it to be. See
`saliency_jax.synthesis.variations`.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from absl import flags
from jaxtyping import Array, Bool, Float, Int, UInt8
from tqdm import tqdm

from saliency_jax import prng
from saliency_jax.attribution.asking import ask, with_targets
from saliency_jax.attribution.named import masker_method, method_of
from saliency_jax.data import pipeline, sources
from saliency_jax.environment import environment
from saliency_jax.errors import InputError
from saliency_jax.evaluation.classes import check_fit
from saliency_jax.loading import load, load_generator
from saliency_jax.metrics.intervals import mean_interval
from saliency_jax.metrics.map_boxes import RULES
from saliency_jax.models.classifier import Classifier, mean_colour
from saliency_jax.objectives.terms import is_correct
from saliency_jax.report.figures import save_png
from saliency_jax.report.files import make_folder, write_json
from saliency_jax.report.generated import variation_grid
from saliency_jax.synthesis.variations import (
    Variations,
    acceptable_variations,
    published_options,
    salient_regions,
)

Place = Literal["salient", "random"]

SHOWN_IMAGES, SHOWN_VARIATIONS = 8, 6


class Varied(NamedTuple):
    """An image with its variations.

    Attributes:
      image: as the classifier was shown it.
      label: its true class.
      found: its variations alone, as numpy arrays.
      unsearched: the share of those that keep the class without a search.
      filled: whether the class stays when the region is filled with the mean colour.
    """

    image: UInt8[np.ndarray, "S S 3"]
    label: int
    found: Variations
    unsearched: float
    filled: bool


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "classifier",
        None,
        "A run, NETWORK=WEIGHTS_FILE, or package.module:function.",
    )
    flags.DEFINE_string("generator", None, "Workdir of a run of stage generator.")
    flags.DEFINE_string("data", None, "Data set.")
    flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets.")
    flags.DEFINE_string("split", None, "By default validation, or else test.")
    flags.DEFINE_string(
        "method",
        "grad_cam",
        "Whose maps say what is salient; options follow a name: rise:masks=1000.",
    )
    flags.DEFINE_string("masker", None, "Workdir of a run whose masker does instead.")
    flags.DEFINE_enum("box", "quantile", RULES, "How a map becomes a box.")
    flags.DEFINE_float("alpha", 0.5, "Of the rule; quantile has none.")
    flags.DEFINE_enum(
        "place",
        "salient",
        get_args(Place),
        "Where the box stands; at random it has the same sides.",
    )
    flags.DEFINE_integer("limit", None, "Only the first so many images.", 1)
    flags.DEFINE_integer("restarts", 64, "Variations of each image.", 1)
    flags.DEFINE_integer("steps", None, "Of each search; by default as published.", 0)
    flags.DEFINE_float(
        "step_size",
        None,
        "Of each search; by default as published, of which a narrow generator's "
        "searches do not settle.",
        0.0,
    )
    flags.DEFINE_integer("batch_size", 64, "Searches, and images, at once.", 1)
    flags.DEFINE_integer("seed", 0, "Of what is random.")
    flags.DEFINE_string("out", "variations", "Folder for the results.")


def main(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}: this command takes flags")
    if not (values.classifier and values.generator and values.data):
        raise InputError("variations needs --classifier, --generator RUN and --data")
    vary(
        values.classifier,
        values.generator,
        values.data,
        data_dir=values.data_dir,
        split=values.split,
        method=values.method,
        masker=values.masker,
        box=values.box,
        alpha=values.alpha,
        place=values.place,
        limit=values.limit,
        restarts=values.restarts,
        steps=values.steps,
        step_size=values.step_size,
        batch_size=values.batch_size,
        seed=values.seed,
        out=values.out,
    )


def vary(
    classifier: str,
    generator: str,
    data: str,
    *,
    data_dir: str = "data",
    split: str | None = None,
    method: str = "grad_cam",
    masker: str | None = None,
    box: str = "quantile",
    alpha: float = 0.5,
    place: Place = "salient",
    limit: int | None = None,
    restarts: int = 64,
    steps: int | None = None,
    step_size: float | None = None,
    batch_size: int = 64,
    seed: int = 0,
    out: str | Path = "variations",
) -> dict[str, Any]:
    """Writes the variations of a data set; the arguments are the command's flags.

    Returns:
      What `variations.json` holds.

    Raises:
      InputError: for anything that is not there, or does not fit; or no image has a
        salient box that leaves some of it.
    """
    explain = masker_method(masker) if masker else method_of(method)
    source = sources.open_source(
        data, data_dir, split or sources.evaluation_split(data, data_dir)
    )
    trained = load_generator(generator)
    size = trained.module.image_size
    loaded = load(classifier, "--classifier")
    check_fit(f"classifier {classifier}", loaded, source, size)
    out = Path(out)
    make_folder(out)

    options = published_options(size)
    given = {"steps": steps, "step_size": step_size}
    options = options._replace(**{k: v for k, v in given.items() if v is not None})
    root = jax.random.key(seed)
    key_of = lambda stream: prng.stream_key(root, stream)
    random = np.random.default_rng(seed)
    mean = np.float32(mean_colour(loaded.classifier))
    count = min(limit or len(source), len(source))
    chosen: list[Varied] = []
    batches = pipeline.eval_batches(
        source, batch_size=min(batch_size, count), image_size=size, limit=count
    )
    with tqdm(total=count, unit="image", disable=None) as bar:
        for batch in batches:
            images = batch["image"]
            classes = with_targets(
                ask(loaded.classifier, images, None, batch_size)
            ).targets
            maps = np.asarray(
                explain(
                    loaded.classifier,
                    images,
                    classes,
                    key=key_of("maps"),
                    batch_size=batch_size,
                )
            )
            regions = salient_regions(maps, box, alpha)
            if place == "random":
                regions = np.stack([moved(region, random) for region in regions])
            areas = regions.mean(axis=(1, 2))
            for row in np.flatnonzero(batch["valid"]):
                bar.update()
                if areas[row] in (0, 1):
                    continue
                one = slice(row, row + 1)
                varied = functools.partial(
                    acceptable_variations,
                    loaded.classifier,
                    trained,
                    images[one],
                    regions[one],
                    classes[one],
                    restarts=restarts,
                    key=key_of("starts"),
                    batch_size=batch_size,
                )
                found = jax.tree.map(np.asarray, varied(options=options))
                if len(chosen) >= SHOWN_IMAGES:  # not to be drawn
                    found = found._replace(images=found.images[:, :0])
                unsearched = varied(options=options._replace(steps=0))
                filled = np.where(
                    regions[one][..., None], mean, images[one] / np.float32(255)
                )
                chosen.append(
                    Varied(
                        images[row],
                        int(batch["label"][row]),
                        found,
                        unsearched=float(unsearched.shares[0]),
                        filled=bool(keeps(loaded.classifier, filled, classes[one])[0]),
                    )
                )
    if not chosen:
        raise InputError(
            f"none of {count} maps of {masker or method} has a box that is a part of "
            f"its image by the rule {box}: choose another --box, --alpha or --method"
        )
    how = {
        **environment(),
        "classifier": classifier,
        "generator": generator,
        "data": source.name,
        "split": source.split,
        "image_size": size,
        "maps": masker or method,
        "box": box if box == "quantile" else f"{box}, alpha {alpha:g}",
        "place": place,
        "restarts": restarts,
        "search": options._asdict(),
        "seed": seed,
    }
    results = summary(chosen, count) | {"how": how}
    names = loaded.classifier.labels or source.class_names
    path = out / "variations.json"
    write_json(path, results)
    save_png(out / "variations.png", picture(chosen[:SHOWN_IMAGES], names))
    low, high = results["interval"]
    print(
        f"{results['share']:.1%} (95 %: {low:.1%} to {high:.1%}) of "
        f"{results['variations']} variations of {results['images']} images keep their "
        f"class; {results['without_region']} images without a region\n"
        f"without a search {results['unsearched']['share']:.1%}, "
        f"filled with the mean colour {results['filled']['share']:.1%}\n"
        f"{path}, {out / 'variations.png'}"
    )
    return results


def moved(
    region: Bool[np.ndarray, "S S"], random: np.random.Generator
) -> Bool[np.ndarray, "S S"]:
    """A box of the same sides somewhere in the image; nothing stays nothing."""
    rows, columns = region.any(axis=1), region.any(axis=0)
    height, width = rows.sum(), columns.sum()
    top, left = (
        random.integers(side - length + 1)
        for side, length in zip(region.shape, (height, width), strict=True)
    )
    at_random = np.zeros_like(region)
    at_random[top : top + height, left : left + width] = True
    return at_random


@jax.jit
def keeps(
    classifier: Classifier,
    images: Float[Array | np.ndarray, "B S S 3"],
    targets: Int[Array | np.ndarray, "B"],
) -> Bool[Array, "B"]:
    """Whether the classifier calls images what it called the ones they come from."""
    return is_correct(classifier(images), targets, classifier.output)


def summary(chosen: Sequence[Varied], count: int) -> dict[str, Any]:
    """Returns the share of all variations that keep their class, and each image's.

    So it does for the boxes whose content nobody searched for.

    The interval is of a mean over images: an image's variations are not independent.

    Args:
      chosen: at least one image.
      count: of images that were asked for.
    """
    shares = np.concatenate([one.found.shares for one in chosen])
    share_of = lambda shares: {
        "share": float(shares.mean()),
        "interval": list(mean_interval(shares)),
    }
    return share_of(shares) | {
        "unsearched": share_of(np.array([one.unsearched for one in chosen])),
        "filled": share_of(np.array([float(one.filled) for one in chosen])),
        "images": len(chosen),
        "variations": sum(one.found.is_same.size for one in chosen),
        "without_region": count - len(chosen),
        "of_each_image": [
            {
                "label": one.label,
                "target": int(one.found.targets[0]),
                "share": float(share),
                "unsearched": one.unsearched,
                "filled": one.filled,
                "region": float(one.found.regions.mean()),
                "context": float(one.found.context.mean()),
                "realism": float(one.found.realism.mean()),
            }
            for one, share in zip(chosen, shares, strict=True)
        ],
    }


def picture(
    chosen: Sequence[Varied], names: Sequence[str]
) -> UInt8[np.ndarray, "P Q 3"]:
    """Draws the first variations of each image."""
    shown = slice(SHOWN_VARIATIONS)
    captions = [
        [
            names[one.found.targets[0]],
            "generated",
            *(names[number] for number in one.found.predicted[0, shown]),
        ]
        for one in chosen
    ]
    return variation_grid(
        np.stack([one.image for one in chosen]),
        np.concatenate([one.found.regions for one in chosen]),
        np.concatenate([one.found.images[:, shown] for one in chosen]),
        captions,
        np.concatenate([one.found.is_same[:, shown] for one in chosen]),
    )
