"""The stage `classifier`: from a config to what the loop needs."""

import jax.numpy as jnp
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from saliency_jax.models import create
from saliency_jax.models.classifier import Classifier
from saliency_jax.training import start
from saliency_jax.training.classifier_step import make_classifier_step
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.stage import Phase, Stage
from saliency_jax.training.state import TrainState, create_net
from saliency_jax.types import PyTree


def create_stage(config: ConfigDict) -> Stage:
    """Returns the stage of a resolved config.

    Raises:
      InputError: for a network or an optimiser that cannot be made.
    """
    mean, std = tuple(config.data.mean), tuple(config.data.std)
    classifier = create.create_classifier(config.classifier)
    optimiser = create_optimiser(config.classifier.optimiser, config.total_steps)

    def init_state(key: Key[Array, ""], initial: dict[str, PyTree]) -> TrainState:
        size = config.data.image_size
        fresh = create.init_networks(classifier, None, key, size)
        variables = {**fresh, **initial}["classifier"]
        return TrainState(jnp.zeros((), jnp.int32), create_net(variables, optimiser))

    return Stage(
        lambda: start.initial_networks(config),
        init_state,
        make_classifier_step(
            classifier,
            optimiser,
            mean=mean,
            std=std,
            label_smoothing=config.classifier.label_smoothing,
            output=config.classifier.output,
        ),
        form=lambda step: (),
        phases=(Phase("", config.total_steps, config.data.batch_size),),
        model=lambda state: Classifier(
            state.classifier.variables,
            classifier,
            mean,
            std,
            output=config.classifier.output,
        ),
    )
