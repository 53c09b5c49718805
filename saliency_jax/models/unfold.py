"""BatchNorm statistics for a network whose file has them folded into the convolutions.

Such a file (mobilenet_v2_tf.safetensors, anything that went through a converter for
inference) holds an identity in the place of each BatchNorm. In evaluation the network
is the original. In training it is not: what the convolutions give is normalised by the
batch's statistics, which the folding has taken account of already. (The MobileNetV2 of
that file has 75 % of 192 images right in evaluation, and none in training mode.)
"""

from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from saliency_jax.models.classifier import Classifier, normalise
from saliency_jax.types import PyTree

IDENTITY = {"scale": 1.0, "mean": 0.0, "var": 1.0}
FOLDED_WITHIN = 1e-3  # a folding may have taken epsilon into account or not


def is_folded(variables: PyTree) -> bool:
    """Whether there is BatchNorm and every one is the identity but for its bias."""
    statistics = flax.traverse_util.flatten_dict(variables["batch_stats"])
    params = flax.traverse_util.flatten_dict(variables["params"])
    scales = {path: leaf for path, leaf in params.items() if path[-1] == "scale"}
    return bool(statistics) and all(
        np.allclose(leaf, IDENTITY[path[-1]], rtol=0.0, atol=FOLDED_WITHIN)
        for path, leaf in (statistics | scales).items()
    )


def unfold(
    classifier: Classifier, batches: Iterable[Num[Array | np.ndarray, "B H W 3"]]
) -> PyTree:
    """Returns variables with live BatchNorms that compute the same in evaluation.

    Running means and variances become those of the given images, and scales and biases
    what makes up for it. In training, batches of such images are then normalised to
    nearly what evaluation gives.

    Args:
      classifier: the network as its file has it.
      batches: uint8 or [0, 1] images, of one shape; some hundred images in all.
    """

    epsilons = {}

    @jax.jit
    def moments_of(classifier: Classifier, images: Array) -> dict[tuple, Array]:
        found = {}

        def record(next_method: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, nn.BatchNorm):
                x = args[0].astype(jnp.float32)
                mean = jnp.mean(x, axis=(0, 1, 2))
                epsilons[context.module.path] = context.module.epsilon
                found[context.module.path] = jnp.stack(
                    [mean, jnp.var(x, axis=(0, 1, 2)) + mean**2]
                )
            return next_method(*args, **kwargs)

        inputs = normalise(images, classifier.mean, classifier.std)
        with nn.intercept_methods(record):
            classifier.module.apply(classifier.variables, inputs, False)
        return found

    summed, count = None, 0
    for images in batches:
        moments = jax.device_get(moments_of(classifier, images))
        summed = moments if summed is None else jax.tree.map(np.add, summed, moments)
        count += 1

    params = flax.traverse_util.flatten_dict(classifier.variables["params"])
    statistics = flax.traverse_util.flatten_dict(classifier.variables["batch_stats"])
    for path, total in summed.items():
        mean, square = np.asarray(total, np.float64) / count
        variance = np.maximum(square - mean**2, 0.0)
        scale, old_mean, old_variance = (
            np.asarray(leaf, np.float64)
            for leaf in (
                params[*path, "scale"],
                statistics[*path, "mean"],
                statistics[*path, "var"],
            )
        )
        gain = scale / np.sqrt(old_variance + epsilons[path])
        bias = np.asarray(params[*path, "bias"]) + gain * (mean - old_mean)
        params[*path, "scale"] = gain * np.sqrt(variance + epsilons[path])
        params[*path, "bias"] = bias
        statistics[*path, "mean"], statistics[*path, "var"] = mean, variance
    unflatten = flax.traverse_util.unflatten_dict
    variables = {"params": unflatten(params), "batch_stats": unflatten(statistics)}
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), variables)
