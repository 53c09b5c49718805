r"""What a mask is worth that was found with evidence removed to grey: a picture.

    python -m benchmarks.removal --weights mobilenet_v2_tf.safetensors \
        --data_dir DIR --out FILE.jpg [--network mobilenet_v2] [--name imagenet_loc] \
        [--images 6] [--image_size 224] [--mask_size 32] [--smoothness 0.5] \
        [--iterations 200]

Masks are optimised for the first validation images that the classifier has right, with
each removal of `saliency_jax.removal` and the same key. Then every mask is judged with
both removals: one that shows the object hides the class either way, an artefact only
with the removal that it was found with. Above the edited images stand the classifier's
probabilities of the class, in per cent, for the two removals; for the alternative it is
the mean of 16 draws. The pictures themselves show what is removed as grey.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from saliency_jax.attribution.optimised_masks.iterative_mask import (
    IterativeOptions,
    iterative_masks,
)
from saliency_jax.data import pipeline, sources
from saliency_jax.errors import InputError, run_command
from saliency_jax.evaluation.judges import load_judge
from saliency_jax.masking import to_float
from saliency_jax.metrics.statistics import mask_statistics
from saliency_jax.models.classifier import Classifier
from saliency_jax.removal import REMOVALS, RemovalOptions, remove_evidence
from saliency_jax.report.figures import masked_pair

_NETWORK = flags.DEFINE_string("network", "mobilenet_v2", "Whose the weights are.")
_WEIGHTS = flags.DEFINE_string("weights", None, "Of the classifier.", required=True)
_NAME = flags.DEFINE_string("name", "imagenet_loc", "A prepared data set.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where it is.", required=True)
_OUT = flags.DEFINE_string("out", None, "The picture, .jpg or .png.", required=True)
_IMAGES = flags.DEFINE_integer("images", 6, "How many.", 1)
_SIZE = flags.DEFINE_integer("image_size", 224, "Side of the images.", 1)
_MASK_SIZE = flags.DEFINE_integer("mask_size", 32, "Cells along a mask's side.", 1)
_SMOOTHNESS = flags.DEFINE_float("smoothness", 0.5, "Its weight.", 0.0)
_ITERATIONS = flags.DEFINE_integer("iterations", 200, "Of each mask.", 1)

_DRAWS = 16
_SIDE, _GAP, _LINE = 144, 4, 18  # of the picture's cells, in pixels
_WHITE, _INK = 255, (40, 40, 40)


def main(argv: Sequence[str]) -> None:
    """Prints the figures and writes the picture."""
    if len(argv) > 1:
        raise InputError(f"unexpected arguments {argv[1:]}: this takes flags")
    source = sources.open_source(
        _NAME.value,
        _DATA_DIR.value,
        sources.evaluation_split(_NAME.value, _DATA_DIR.value),
    )
    named = f"{_NETWORK.value}={_WEIGHTS.value}"
    classifier = load_judge(named, source, _SIZE.value).classifier
    images, labels = _recognised(classifier, source)
    masks = {
        removal: _masks(classifier, images, labels, removal) for removal in REMOVALS
    }
    probabilities = {
        (found_with, judged_with, part): np.asarray(
            _probabilities(classifier, images, shown, labels, judged_with)
        )
        for found_with in REMOVALS
        for judged_with in REMOVALS
        for part, shown in (
            ("kept", masks[found_with]),
            ("removed", 1 - masks[found_with]),
        )
    }
    everything = np.ones_like(masks["zero"])
    whole = np.asarray(_probabilities(classifier, images, everything, labels, "zero"))
    _print(masks, probabilities, whole)
    picture = _picture(images, masks, probabilities, whole)
    _write(Path(_OUT.value), picture)


def _recognised(
    classifier: Classifier, source: sources.Source
) -> tuple[np.ndarray, np.ndarray]:
    """The first images whose class the classifier predicts, and their labels."""
    images, labels = [], []
    predict = jax.jit(lambda classifier, images: classifier(images).argmax(-1))
    for batch in pipeline.eval_batches(source, batch_size=8, image_size=_SIZE.value):
        right = np.asarray(predict(classifier, batch["image"])) == batch["label"]
        right &= batch["valid"]
        images += [*batch["image"][right]]
        labels += [*batch["label"][right]]
        if len(images) >= _IMAGES.value:
            break
    if not images:
        raise InputError(
            f"{_WEIGHTS.value} has no image of {_NAME.value} right: name weights whose "
            "classes are the data set's"
        )
    return np.stack(images[: _IMAGES.value]), np.stack(labels[: _IMAGES.value])


def _masks(
    classifier: Classifier, images: np.ndarray, labels: np.ndarray, removal: str
) -> np.ndarray:
    default = IterativeOptions()
    options = dataclasses.replace(
        default,
        objective=dataclasses.replace(
            default.objective, smoothness_weight=_SMOOTHNESS.value
        ),
        removal=RemovalOptions(removal=removal),
        iterations=_ITERATIONS.value,
        mask_size=_MASK_SIZE.value,
    )
    key = jax.random.key(0)
    masks = iterative_masks(
        classifier,
        images,
        labels,
        key=key,
        places=np.arange(len(images)),
        options=options,
    )
    return np.asarray(masks)


@jax.jit(static_argnames="removal")
def _probabilities(
    classifier: Classifier,
    images: jax.Array,
    shown: jax.Array,
    labels: jax.Array,
    removal: str,
) -> jax.Array:
    """Of the labels, when the rest is removed; the mean of several draws."""

    def of(key: jax.Array) -> jax.Array:
        options = RemovalOptions(removal=removal)
        edited = remove_evidence(key, to_float(images), shown, options)
        chosen = jax.nn.softmax(classifier(edited))
        return jnp.take_along_axis(chosen, labels[:, None], axis=-1)[:, 0]

    draws = _DRAWS if removal == "alternative" else 1
    return jax.lax.map(of, jax.random.split(jax.random.key(1), draws)).mean(0)


def _print(
    masks: Mapping[str, np.ndarray],
    probabilities: Mapping[tuple[str, str, str], np.ndarray],
    whole: np.ndarray,
) -> None:
    print(
        f"{len(whole)} images of {_NAME.value}, {_SIZE.value} pixels, "
        f"{_ITERATIONS.value} iterations, mask {_MASK_SIZE.value}, smoothness "
        f"{_SMOOTHNESS.value:g}; of the class on the whole image "
        f"{100 * whole.mean():.1f} %"
    )
    print("found with    area %  TV x 1000  judged with    kept %  removed %")
    for removal, of in masks.items():
        statistics = mask_statistics(of)
        area, variation = statistics.area.mean(), statistics.total_variation.mean()
        for judged_with in REMOVALS:
            kept, removed = (
                100 * probabilities[removal, judged_with, part].mean()
                for part in ("kept", "removed")
            )
            print(
                f"{removal:12}  {100 * area:6.1f}  {1000 * variation:9.3f}  "
                f"{judged_with:12}  {kept:7.1f}  {removed:9.1f}"
            )


def _picture(
    images: np.ndarray,
    masks: Mapping[str, np.ndarray],
    probabilities: Mapping[tuple[str, str, str], np.ndarray],
    whole: np.ndarray,
) -> np.ndarray:
    """One row for each image: it, and for each removal the mask and what it edits."""
    titles = ["image"]
    for removal in REMOVALS:
        titles += [f"mask, {removal}", "kept", "removed"]
    rows = [np.concatenate([_text(title) for title in titles], axis=1)]
    for index, image in enumerate(images):
        row = [_cell(image, f"{100 * whole[index]:.0f} %")]
        for removal in REMOVALS:
            mask = masks[removal][index]
            grey = np.repeat(np.rint(255 * mask).astype(np.uint8)[..., None], 3, -1)
            row.append(_cell(grey, f"area {100 * mask.mean():.0f} %"))
            edited = masked_pair(image, mask, (0.5,) * 3)
            for part, shown in zip(("kept", "removed"), edited, strict=True):
                caption = ", ".join(
                    f"{name} {100 * probabilities[removal, by, part][index]:.0f} %"
                    for by, name in (("alternative", "alt."), ("zero", "zero"))
                )
                row.append(_cell(shown, caption))
        rows.append(np.concatenate(row, axis=1))
    return np.concatenate(rows)


def _text(text: str) -> np.ndarray:
    line = np.full((_LINE, _SIDE + _GAP, 3), _WHITE, np.uint8)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(line, text, (1, _LINE - 5), font, 0.4, _INK, 1, cv2.LINE_AA)
    return line


def _cell(picture: np.ndarray, caption: str) -> np.ndarray:
    cell = np.full((_SIDE + _GAP, _SIDE + _GAP, 3), _WHITE, np.uint8)
    cell[:_SIDE, :_SIDE] = cv2.resize(
        picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA
    )
    return np.concatenate([_text(caption), cell])


def _write(path: Path, picture: np.ndarray) -> None:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 80]  # which a .png does without
    if not cv2.imwrite(str(path), np.ascontiguousarray(picture[..., ::-1]), quality):
        raise InputError(f"cannot write {path}")


if __name__ == "__main__":
    run_command(main)
