"""One step of the `classifier` stage."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from saliency_jax.models.classifier import normalise
from saliency_jax.objectives import terms
from saliency_jax.training.labels import present_classes
from saliency_jax.training.optim import Optimiser
from saliency_jax.training.state import TrainState, descend
from saliency_jax.types import Batch

Metrics = dict[str, Array]


def make_classifier_step(
    classifier: nn.Module,
    optimiser: Optimiser,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    label_smoothing: float,
    output: str = "softmax",
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the pure `step(state, batch) -> (state, metrics)`.

    Args:
      classifier: the network.
      optimiser: its optimiser.
      mean: of each channel, for images in [0, 1].
      std: likewise.
      label_smoothing: see `terms.cross_entropy`.
      output: "softmax", or "sigmoid" where images may have several labels; right is
        then any of them.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        inputs, labels = normalise(batch["image"], mean, std), batch["label"]

        def loss_fn(params, batch_stats):
            (logits, _), updates = classifier.apply(
                {"params": params, "batch_stats": batch_stats},
                inputs,
                True,
                mutable=["batch_stats"],
            )
            if output == "sigmoid":
                present = present_classes(batch, logits.shape[-1])
                losses = terms.binary_cross_entropy(logits, present, label_smoothing)
                right = terms.is_present(logits, present)
            else:
                losses = terms.cross_entropy(logits, labels, label_smoothing)
                right = terms.is_correct(logits, labels)
            return jnp.mean(losses), (right, updates.get("batch_stats", {}))

        net = state.classifier
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (right, batch_stats)), gradients = grad_fn(net.params, net.batch_stats)
        net = descend(net, gradients, batch_stats, optimiser, state.step)
        metrics = {
            "loss": loss,
            "accuracy": jnp.mean(right),
            "learning_rate": optimiser.learning_rate(state.step),
        }
        return state.replace(step=state.step + 1, classifier=net), metrics

    return step
