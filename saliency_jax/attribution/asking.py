"""The door of every method: what the user passes is checked, and put in one form."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Key, Num

from saliency_jax.attribution.batching import in_batches
from saliency_jax.attribution.layers import (
    Targets,
    Unit,
    as_layer,
    cut,
)
from saliency_jax.closures import with_arrays
from saliency_jax.errors import InputError
from saliency_jax.masking import check_images, check_range, to_float
from saliency_jax.models.classifier import Classifier, logits_of, with_weights_of_now

LogitsFn = Classifier | Callable
"""A `Classifier`, or a function from float32 images in [0, 1] to logits `[B, K]`."""

GivenImages = Num[Array | np.ndarray, "..."]
"""`[B, H, W, C]`, `uint8` or floats in [0, 1]."""

GivenTargets = int | Int[Array | np.ndarray, "..."] | Callable | Unit | None
"""A class, or one for each image; a function from an image's logits `[K]` to a number;
a hidden unit; None for the class that the classifier predicts."""

AT_ONCE = 32
"""How many images go through the classifier at once where a method makes more of them
than it was given, and `batch_size` is None."""


class Question(NamedTuple):
    """What a method is asked.

    Attributes:
      classifier: any function has become one.
      images: in [0, 1].
      targets: what is explained; as leaves, so that new ones do not recompile.
      batch_size: how many images may go through the classifier at once.
    """

    classifier: Classifier
    images: Float[Array, "B H W C"]
    targets: Targets
    batch_size: int


def ask(
    logits_fn: LogitsFn,
    images: GivenImages,
    targets: GivenTargets,
    batch_size: int | None,
) -> Question:
    """Checks what a user passes to a method.

    Args:
      logits_fn: see `LogitsFn`.
      images: see `GivenImages`.
      targets: see `GivenTargets`.
      batch_size: None means 32, or all images if they are more.

    Raises:
      InputError: `logits_fn` is no classifier; the images or the targets have another
        shape or type, or are not finite; the classifier does not know such a class or a
        layer such a unit; or `batch_size` is below 1.
    """
    check_images(images)
    if batch_size is not None:
        check_at_least(1, batch_size=batch_size)
    if not isinstance(logits_fn, Classifier):
        channels = images.shape[-1]
        logits_fn = Classifier.from_function(
            logits_fn, mean=channels * (0.0,), std=channels * (1.0,)
        )
    check_range(images)
    images = to_float(jnp.asarray(images)).astype(jnp.float32)
    logits_fn = with_weights_of_now(logits_fn, images)
    return Question(
        logits_fn,
        images,
        _checked_targets(logits_fn, images, targets),
        batch_size or max(AT_ONCE, len(images)),
    )


def _checked_targets(
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    targets: GivenTargets,
) -> Targets:
    if targets is None:
        return None
    if isinstance(targets, Unit):
        each = lambda x: one_for_each(x, len(images), "numbers of a Unit", "number")
        unit = jax.tree.map(each, targets)
        check_unit(classifier, images.shape[1:], targets)
        return unit
    if callable(targets):
        return _checked_function(targets, _num_classes(classifier, images))
    classes = one_for_each(targets, len(images))
    if (wrong := _not_below(_num_classes(classifier, images), targets)) is not None:
        raise InputError(
            f"target {wrong}: the classifier knows classes 0 to "
            f"{_num_classes(classifier, images) - 1}"
        )
    return classes


def _checked_function(function: Callable, classes: int) -> Partial:
    """A target function as a pytree.

    Raises:
      InputError: it does not make one number of the logits of one image.
    """
    logits = jax.ShapeDtypeStruct((classes,), jnp.float32)
    expected = f"expected one number of the logits [{classes}] of one image"
    try:
        made = jax.eval_shape(function, logits)
    except (IndexError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the target function fails ({reason}): {expected}") from error
    shape, dtype = getattr(made, "shape", None), getattr(made, "dtype", None)
    if shape != () or not jnp.issubdtype(dtype, jnp.floating):
        what = type(made).__name__ if shape is None else f"{dtype} {[*shape]}"
        raise InputError(f"the target function gives {what}: {expected}")
    return with_arrays(function, logits)


def check_unit(classifier: Classifier, size: tuple[int, int, int], unit: Unit) -> None:
    """Checks that a layer has a unit, as far as its numbers are known.

    Args:
      classifier: any.
      size: (H, W, C) of the images that it sees.
      unit: its numbers, one or one for each image.

    Raises:
      InputError: the layer has fewer channels, rows or columns.
    """
    one = jax.ShapeDtypeStruct((1, *size), jnp.float32)
    _, rows, columns, channels = _unit_maps.eval_shape(
        classifier, one, unit.layer
    ).shape
    numbers = {"channel": (unit.channel, channels)}
    if unit.position is not None:
        numbers["row"] = (unit.position[0], rows)
        numbers["column"] = (unit.position[1], columns)
    for name, (given, count) in numbers.items():
        if (wrong := _not_below(count, given)) is not None:
            raise InputError(
                f"{name} {wrong} of a Unit: its layer gives maps of {rows}x{columns} "
                f"and {channels} channels for images of {size[0]}x{size[1]}: expected "
                f"0 to {count - 1}"
            )


def _not_below(count: int, numbers: int | Int[Array | np.ndarray, "..."]) -> int | None:
    """The first that is not one of 0 to count - 1, which indexing would clip or wrap.

    None too where they are not known, inside somebody's jit.
    """
    if isinstance(numbers, jax.core.Tracer):
        return None
    given = np.atleast_1d(numbers)
    wrong = given[(given < 0) | (given >= count)]
    return int(wrong[0]) if wrong.size else None


def one_for_each(
    numbers: int | Int[Array | np.ndarray, "..."],
    count: int,
    name: str = "targets",
    of: str = "class",
) -> Int[Array, "B"]:
    """The class of each image, or another whole number, where there may be one for all.

    Args:
      numbers: classes.
      count: B.
      name: of the numbers, for messages.
      of: what one of them is, for messages.

    Raises:
      InputError: they are neither one nor one for each, or no integers.
    """
    try:
        given = jnp.asarray(numbers)
    except (TypeError, ValueError) as error:  # such as names, or rows of two lengths
        raise InputError(f"{name} {numbers!r:.60}: expected integers") from error
    if given.shape not in ((), (count,)):
        raise InputError(
            f"{name} of shape {given.shape} for {count} images: expected one {of} for "
            f"each, {(count,)}, or one number"
        )
    if not jnp.issubdtype(given.dtype, jnp.integer):
        raise InputError(f"{name} of type {given.dtype}: expected integers")
    return jnp.broadcast_to(given.astype(jnp.int32), (count,))


def _num_classes(classifier: Classifier, images: Float[Array, "B H W C"]) -> int:
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    return logits_of.eval_shape(classifier, one).shape[-1]


@partial(jax.jit, static_argnames="layer")  # keeps what it has traced; never run
def _unit_maps(
    classifier: Classifier, images: Float[Array, "B H W C"], layer: str | None
) -> Float[Array, "B h w D"]:
    """The maps that a `Unit` of a layer is one number of."""
    return cut(classifier, images, as_layer(layer)).activations(images)


def with_targets(question: Question) -> Question:
    """The same, with the predicted classes where no target was given.

    For methods that show the classifier other images than those that were asked about.
    """
    if question.targets is not None:
        return question
    predicted = in_batches(
        _predicted, question.batch_size, question.classifier, question.images
    )
    return question._replace(targets=predicted)


@jax.jit
def _predicted(
    classifier: Classifier, images: Float[Array, "B H W C"]
) -> Int[Array, "B"]:
    return jnp.argmax(logits_of(classifier, images), axis=-1)


def classes_only(method: str, targets: Targets) -> Int[Array, "B"] | None:
    """Returns targets that must be classes.

    Raises:
      InputError: they are a function or a hidden unit.
    """
    if callable(targets) or isinstance(targets, Unit):
        raise InputError(
            f"{method} explains classes: pass a class, or one for each image, not a "
            f"function or a Unit"
        )
    return targets


def check_option(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Checks an option that has few values.

    Raises:
      InputError: the value is none of them.
    """
    if value not in (choices := tuple(choices)):
        raise InputError(f"{name}={value!r} is unknown: use one of {choices}")


def check_at_least(smallest: int, **options: int | float) -> None:
    """Checks options that must not be too small.

    Raises:
      InputError: one of them is below `smallest`.
    """
    for name, value in options.items():
        if value < smallest:
            raise InputError(f"{name} is {value}: it must be at least {smallest}")


def check_positive(**options: int | float) -> None:
    """Checks options that must be above 0.

    Raises:
      InputError: one of them is not.
    """
    for name, value in options.items():
        if value <= 0:
            raise InputError(f"{name} is {value}: it must be above 0")


def by_channel(
    name: str,
    value: float | int | Sequence[float] | Num[Array | np.ndarray, "..."],
    channels: int,
) -> Float[Array, "C"]:
    """An option that is a number for all channels or one for each, as one for each.

    Raises:
      InputError: it has another shape.
    """
    value = jnp.asarray(value, jnp.float32)
    if value.shape not in ((), (channels,)):
        raise InputError(
            f"{name} of shape {value.shape} for images of {channels} channels: "
            f"expected a number, or one for each channel"
        )
    return jnp.broadcast_to(value, (channels,))


def key_or_default(key: Key[Array, ""] | None) -> Key[Array, ""]:
    """`jax.random.key(0)` where a user gives none, so that maps are reproducible.

    Raises:
      InputError: it is a plain number.
    """
    if isinstance(key, int | np.integer):
        raise InputError(f"key is the number {key}: expected jax.random.key({key})")
    return jax.random.key(0) if key is None else key


@jax.jit
def keys_of(key: Key[Array, ""], numbers: Int[Array, "I"]) -> Key[Array, "I"]:
    """The key of each sample, or of whatever else has a number.

    It depends on nothing but the number: not on the batch, nor on how many there are.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
