"""Does a map depend on what the classifier has learnt?

Adebayo et al.: Sanity checks for saliency maps (arXiv 1810.03292): a map that stays the
same when the classifier's layers are drawn anew explains something else, such as edges.
"""

from collections.abc import Sequence

import flax.traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from saliency_jax.attribution.program import trace
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier

_SIZE = 64  # pixels, for a trace that only names layers


def layers_from_the_top(classifier: Classifier) -> list[str]:
    """The layers of a linen classifier that have parameters, the last one first.

    Raises:
      InputError: the classifier is a function, whose layers are not known.
    """
    with_parameters = {
        "/".join(path[:-1])
        for path in flax.traverse_util.flatten_dict(classifier.variables["params"])
    }
    images = jnp.zeros((1, _SIZE, _SIZE, len(classifier.mean)))
    paths = []
    jax.eval_shape(lambda x: paths.extend(trace(classifier, x).paths) or x, images)
    layers = [path for path in reversed(paths) if path in with_parameters]
    if not layers:
        raise InputError(
            "this classifier is a function, whose layers are not known: randomisation "
            "needs a Flax linen module"
        )
    return layers


def randomise(
    classifier: Classifier, layers: Sequence[str], key: Key[Array, ""]
) -> Classifier:
    """The same classifier, some of its layers as before training.

    Args:
      classifier: of a linen module.
      layers: paths, as `layers_from_the_top` gives them.
      key: of the fresh parameters. Running statistics become those of no data: mean 0,
        variance 1.
    """
    images = jnp.zeros((1, _SIZE, _SIZE, len(classifier.mean)))
    init = jax.jit(lambda key: classifier.module.init(key, images, False))
    fresh = flax.traverse_util.flatten_dict(init(key))
    variables = {
        path: fresh[path] if "/".join(path[1:-1]) in layers else leaf
        for path, leaf in flax.traverse_util.flatten_dict(classifier.variables).items()
    }
    empty = {name: {} for name in classifier.variables}  # flattening drops them
    return classifier.replace(
        variables=empty | flax.traverse_util.unflatten_dict(variables)
    )
