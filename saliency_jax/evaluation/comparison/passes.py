"""How a contestant goes over the images, in batches, with its maps and their cost."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from saliency_jax import prng
from saliency_jax.data import pipeline
from saliency_jax.data.sources import Source
from saliency_jax.errors import InputError
from saliency_jax.evaluation import fingerprints
from saliency_jax.evaluation.comparison import costs
from saliency_jax.evaluation.comparison.contestants import Contestant, maps_of
from saliency_jax.evaluation.comparison.saved import Arrays
from saliency_jax.metrics.ilsvrc import filed_inclusively
from saliency_jax.models.classifier import Classifier
from saliency_jax.objectives import terms
from saliency_jax.types import Batch, Images, Labels


class Setting(NamedTuple):
    """What all contestants share.

    Attributes:
      classifier: that is explained.
      image_size: side in pixels of its images, and of all maps that are measured.
      source: the data.
      count: how many of its images, the first ones, are looked at.
      batch_size: how many at once.
      num_threads: that read images.
      seed: of the draws.
      answers: of the classifier to the images as they are, see `classify`.
    """

    classifier: Classifier
    image_size: int
    source: Source
    count: int
    batch_size: int
    num_threads: int
    seed: int
    answers: Arrays

    def batches(self, image_size: int, count: int) -> Iterator[Batch]:
        """The first images, each with its `place` in the data; the last is padded.

        `boxes_inclusive` are `boxes_pixels` with inclusive edges, whatever the data's.
        """
        batches = pipeline.eval_batches(
            self.source,
            batch_size=self.batch_size,
            image_size=image_size,
            num_threads=self.num_threads,
            limit=count,
        )
        for number, batch in enumerate(batches):
            places = number * self.batch_size + np.arange(self.batch_size)
            filed = batch["boxes_pixels"]
            if self.source.has_exclusive_edges:
                filed = filed_inclusively(filed)
            places = np.minimum(places, count - 1)
            yield batch | {"place": places, "boxes_inclusive": filed}

    def key(self, stream: str) -> Array:
        """The key of what is random."""
        return prng.stream_key(jax.random.key(self.seed), stream)


class Mapped(NamedTuple):
    """A batch without its padding, and its maps.

    Attributes:
      batch: at the comparison's size.
      maps: of a contestant.
      cost: of all maps so far.
      own_correct: whether a masker's own classifier has the class of each image right;
        None of what has none.
    """

    batch: Batch
    maps: Float[np.ndarray, "B S S"]
    cost: costs.Cost
    own_correct: Bool[np.ndarray, "B"] | None


def mapped(
    contestant: Contestant,
    setting: Setting,
    count: int,
    targets: str = "label",
    doing: str = "",
) -> Iterator[Mapped]:
    """Has a contestant make its maps of the first images.

    Args:
      contestant: any.
      setting: what all share.
      count: how many images.
      targets: which class is explained: "label", the true one, or "predicted".
      doing: what a progress bar says beside the contestant's title.

    Raises:
      InputError: its maps are not finite, or there is not one for each image.
    """
    explain = functools.partial(maps_of, contestant)
    shown = setting.batches(contestant.image_size, count)
    size = setting.image_size
    same = contestant.image_size == size
    measured = shown if same else setting.batches(size, count)
    key, cost = setting.key("maps"), costs.Cost()
    bar = tqdm(total=count, disable=None, unit="image")
    bar.set_description(f"{contestant.title} {doing}".strip())
    with bar:
        for batch in shown:
            asked = batch["label"]
            if targets == "predicted":
                asked = setting.answers["predicted"][batch["place"]]
            given = setting.classifier, batch, jnp.asarray(asked), key, size
            valid = np.asarray(batch["valid"])
            maps, cost = costs.call(cost, explain, *given, images=len(valid))
            own = contestant.own_correct and contestant.own_correct(batch)[valid]
            batch = batch if same else next(measured)
            bar.update(int(valid.sum()))
            yield Mapped(without_padding(batch), maps[valid], cost, own)


def without_padding(batch: Batch) -> Batch:
    """The images of a batch that count."""
    valid = np.asarray(batch["valid"])
    return {name: np.asarray(values)[valid] for name, values in batch.items()}


def in_equal_batches(
    function: Callable[..., np.ndarray], batch_size: int, *per_image: np.ndarray
) -> np.ndarray:
    """What a function says of many images, in batches of one size.

    Copies of the last image fill the last batch, so that there is one compilation.
    """
    count, parts = len(per_image[0]), []
    size = min(batch_size, count)
    for first in range(0, count, size):
        chosen = np.minimum(np.arange(first, first + size), count - 1)
        part = function(*(np.asarray(values)[chosen] for values in per_image))
        parts.append(part[: count - first])
    return np.concatenate(parts)


def joined(parts: list[dict[str, np.ndarray]]) -> Arrays:
    """Puts what was measured on several batches together, in order."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def classify(setting: Setting) -> Arrays:
    """Returns what the classifier answers to the images as they are.

    "label" and "predicted" classes, the "rank" of the true one (0 is the first; other
    classes that are in the image come after it), its "probability", and of the data
    "boxes_pixels" and "original_size".

    Raises:
      InputError: its logits are not finite.
    """
    parts = []
    for batch in setting.batches(setting.image_size, setting.count):
        asked = batch["image"], batch["label"], batch.get("present")
        answers = _answers(setting.classifier, *asked)
        part = batch | {name: np.asarray(values) for name, values in answers.items()}
        kept = (*answers, "label", "boxes_pixels", "original_size")
        parts.append(without_padding({n: part[n] for n in (*kept, "valid")}))
    found = joined(parts)
    if not np.isfinite(found["probability"]).all():
        raise InputError(
            "the logits of the classifier are not finite: its training diverged; name "
            "another as --classifier"
        )
    return found


@jax.jit
def _answers(
    classifier: Classifier,
    images: Images,
    labels: Labels,
    present: Bool[Array | np.ndarray, "B K"] | None,
) -> dict[str, Float[Array, "B"] | Int[Array, "B"]]:
    logits = classifier(images)
    true = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    is_before = jnp.arange(logits.shape[-1])[None, :] < labels[:, None]
    is_rival = True if present is None else ~present
    log_probability = terms.log_probability(logits, labels, classifier.output)
    return {
        "predicted": jnp.argmax(logits, axis=-1),
        # Of equal logits the first is predicted, as by argmax.
        "rank": jnp.sum(
            is_rival & ((logits > true) | ((logits == true) & is_before)), axis=-1
        ),
        "probability": jnp.exp(log_probability),
    }


def described(setting: Setting) -> dict[str, Any]:
    """What the figures of every row depend on, as far as the data go."""
    source = setting.source
    return {
        "data": source.name,
        "content of the data": fingerprints.of_source(source),
        "split": source.split,
        "images in all": len(source),
        "size": setting.image_size,
        "seed": setting.seed,
        "batch": setting.batch_size,
    }
