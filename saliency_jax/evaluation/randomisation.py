"""Does a map depend on what the classifier has learnt?

Adebayo et al.: Sanity checks for saliency maps (arXiv 1810.03292). A map that stays the
same when the classifier's layers are drawn anew, or when the classifier has learnt
labels that mean nothing, explains something else, such as the image's edges.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from saliency_jax.attribution.asking import GivenImages, check_at_least, check_option
from saliency_jax.attribution.program import trace
from saliency_jax.errors import InputError
from saliency_jax.metrics.agreement import Similarities, similarities
from saliency_jax.models.classifier import Classifier
from saliency_jax.types import PyTree

ALL_LAYERS = "all layers"

Order = Literal["cascading", "independent"]
"""Whether the layers above the one that a step names are drawn anew with it."""

GivenClasses = Int[np.ndarray | Array, "B"]

Explain = Callable[
    [Classifier, GivenImages, GivenClasses], Float[np.ndarray | Array, "B H W"]
]
"""Any attribution method, its options filled in, from classifier, images and targets to
maps. What it draws at random it must draw from one key, or its own noise counts."""


class RandomisationStep(NamedTuple):
    """What a method's maps do when layers are drawn anew.

    Attributes:
      layer: the layer that is drawn anew, in a cascade with all above it; `ALL_LAYERS`
        where nothing of what was learnt is left.
      similarities: of the maps before and after.
    """

    layer: str
    similarities: Similarities


def parameter_randomisation(
    classifier: Classifier,
    explain: Explain,
    images: GivenImages,
    targets: GivenClasses,
    key: Key[Array, ""],
    *,
    order: Order = "cascading",
    steps: int | None = None,
) -> list[RandomisationStep]:
    """Compares the maps of a classifier with those of it with layers drawn anew.

    Each layer is drawn by its own initialiser, from the key and its own name, so that
    both orders draw the same values; see `randomise`. The new weights are other values
    in the same arrays: a method that takes the classifier as an argument of jitted
    code is not compiled again.

    Args:
      classifier: of a linen module.
      explain: see `Explain`.
      images: `[B, H, W, C]`, as `explain` takes them.
      targets: classes, which stay the same in all steps.
      key: of the draws.
      order: "cascading" from the last layer down to the first, or "independent", each
        layer alone while the others stay as they were learnt.
      steps: how many; the layers are spread evenly, the last one of the network first.
        None: one for each layer, of which MobileNetV2 has more than a hundred.

    Returns:
      The steps, from the top; the last one is always `ALL_LAYERS`.

    Raises:
      InputError: the classifier is a function, whose layers are not known; the maps
        cannot be compared; an option is out of its range.
    """
    check_option("order", order, get_args(Order))
    if steps is not None:
        check_at_least(1, steps=steps)
    layers = layers_from_the_top(classifier, images)
    # One placement for all, because JAX compiles again where that differs.
    places = jax.tree.map(lambda x: jnp.asarray(x).sharding, classifier.variables)
    learnt = jax.device_put(classifier.variables, places)
    fresh = jax.device_put(_fresh_variables(classifier, images, key), places)

    def maps_of(variables: PyTree) -> Float[np.ndarray, "B H W"]:
        changed = classifier.replace(variables=variables)
        return np.asarray(explain(changed, images, targets))

    before = maps_of(learnt)
    done = []
    for place in _places(len(layers), order, steps):
        first = 0 if order == "cascading" else place
        mixed = _with_layers_of(fresh, learnt, layers[first : place + 1])
        step = similarities(before, maps_of(mixed))
        done.append(RandomisationStep(layers[place], step))
    end = similarities(before, maps_of(fresh))
    return [*done, RandomisationStep(ALL_LAYERS, end)]


def label_randomisation(
    classifier: Classifier,
    memoriser: Classifier,
    explain: Explain,
    images: GivenImages,
    targets: GivenClasses,
) -> Similarities:
    """Compares the maps of a classifier with those of one that learnt random labels.

    `train.py` makes the second one with `--config.data.random_labels=True`. In the
    paper it has more than 95 % of its random labels right before it is asked.

    Args:
      classifier: trained on the true labels.
      memoriser: trained on the same images with random labels.
      explain: see `Explain`.
      images: `[B, H, W, C]`, as `explain` takes them.
      targets: classes, the same for both.

    Raises:
      InputError: the maps cannot be compared.
    """
    before, after = (
        np.asarray(explain(model, images, targets)) for model in (classifier, memoriser)
    )
    return similarities(before, after)


def layers_from_the_top(classifier: Classifier, images: GivenImages) -> list[str]:
    """The layers of a linen classifier that have parameters, the last one first.

    Args:
      classifier: any.
      images: of a size that it takes; only their shape is read.

    Raises:
      InputError: the classifier is a function, whose layers are not known.
    """
    with_parameters = {
        "/".join(path[:-1])
        for path in flax.traverse_util.flatten_dict(classifier.variables["params"])
    }
    paths = []
    jax.eval_shape(
        lambda x: paths.extend(trace(classifier, x).paths) or x, _one_of(images)
    )
    layers = [path for path in reversed(paths) if path in with_parameters]
    if not layers:
        raise InputError(
            "this classifier is a function, whose layers are not known: randomisation "
            "needs a Flax linen module"
        )
    return layers


def randomise(
    classifier: Classifier,
    layers: Sequence[str],
    images: GivenImages,
    key: Key[Array, ""],
) -> Classifier:
    """The same classifier, some of its layers as before training.

    Args:
      classifier: of a linen module.
      layers: paths, as `layers_from_the_top` gives them.
      images: of a size that it takes; only their shape is read.
      key: of the fresh parameters; Flax folds a layer's path into it, so that what a
        layer gets depends on no other layer. Running statistics become those of no
        data: mean 0, variance 1.
    """
    fresh = _fresh_variables(classifier, images, key)
    return classifier.replace(
        variables=_with_layers_of(fresh, classifier.variables, layers)
    )


def _places(count: int, order: Order, steps: int | None) -> Int[np.ndarray, "N"]:
    """Which layers, from the top, the steps before the last one draw.

    With the lowest layer a cascade is at its end, which is a step of its own.
    """
    most = count - 1 if order == "cascading" else count
    number = most if steps is None else min(steps - 1, most)
    return np.linspace(0, most - 1, number).round().astype(int)


def _fresh_variables(
    classifier: Classifier, images: GivenImages, key: Key[Array, ""]
) -> PyTree:
    """What the module's initialisers give, in the classifier's own types."""
    fresh = _initialised(classifier.module, key, _one_of(images))
    fresh = flax.traverse_util.flatten_dict(fresh)
    return _nested(
        classifier.variables,
        lambda path, leaf: fresh[path].astype(leaf.dtype),
    )


@partial(jax.jit, static_argnames="module")
def _initialised(
    module: nn.Module, key: Key[Array, ""], images: Float[Array, "1 H W C"]
) -> PyTree:
    return module.init(key, images, False)


def _one_of(images: GivenImages) -> Float[Array, "1 H W C"]:
    return jnp.zeros((1, *images.shape[1:]))


def _with_layers_of(fresh: PyTree, learnt: PyTree, layers: Sequence[str]) -> PyTree:
    """The learnt variables, those of some layers replaced by fresh ones."""
    fresh = flax.traverse_util.flatten_dict(fresh)
    return _nested(
        learnt,
        lambda path, leaf: fresh[path] if "/".join(path[1:-1]) in layers else leaf,
    )


def _nested(
    variables: PyTree, change: Callable[[tuple[str, ...], Array], Array]
) -> PyTree:
    """The same structure of variables, each changed by its path and value."""
    changed = {
        path: change(path, leaf)
        for path, leaf in flax.traverse_util.flatten_dict(variables).items()
    }
    empty = {name: {} for name in variables}  # flattening drops them
    return empty | flax.traverse_util.unflatten_dict(changed)
