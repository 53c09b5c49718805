"""The stage `casm`: from a config to what the loop needs."""

import jax.numpy as jnp
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from saliency_jax.errors import InputError
from saliency_jax.models import create
from saliency_jax.models.classifier import Classifier
from saliency_jax.objectives import casm
from saliency_jax.saliency import Masker
from saliency_jax.training import casm_step, start
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.stage import Phase, Stage
from saliency_jax.training.state import TrainState, create_net
from saliency_jax.types import PyTree


def create_stage(config: ConfigDict) -> Stage:
    """Returns the stage of a resolved config.

    Raises:
      InputError: for a network, an optimiser or an option that cannot be made.
    """
    if config.classifier.output != "softmax":
        raise InputError(
            f"config.classifier.output = {config.classifier.output!r}, but CASM plays "
            "against a softmax: take a classifier of one label for each image"
        )
    options = casm_options(config)
    classifier = create.create_classifier(config.classifier)
    masker = create.create_masker(config.masker, classifier)
    classifier_optimiser = create_optimiser(
        config.classifier.optimiser, config.total_steps
    )
    masker_optimiser = create_optimiser(config.masker.optimiser, config.total_steps)
    slots = config.casm.pool_slots

    def init_state(key: Key[Array, ""], initial: dict[str, PyTree]) -> TrainState:
        networks = create.init_networks(classifier, masker, key, config.data.image_size)
        networks |= initial
        net = create_net(networks["classifier"], classifier_optimiser)
        masker_variables = networks["masker"]
        if config.masker.encoder == "own":
            masker_variables = create.with_encoder(
                masker_variables, networks["classifier"]
            )
        return TrainState(
            jnp.zeros((), jnp.int32),
            net,
            create_net(masker_variables, masker_optimiser),
            casm_step.init_pool(net, slots, options, config.casm.pool_dtype),
        )

    def model(state: TrainState) -> Masker:
        net = Classifier(
            state.classifier.variables, classifier, options.mean, options.std
        )
        return Masker(state.masker.variables, net, masker)

    return Stage(
        lambda: start.initial_networks(config),
        init_state,
        casm_step.make_casm_step(
            classifier, masker, classifier_optimiser, masker_optimiser, options
        ),
        # Two forms: whether the critic is a past classifier.
        form=lambda step: (casm_step.critic_is_historic(options, slots, step),),
        phases=(Phase("", config.total_steps, config.data.batch_size),),
        model=model,
    )


def casm_options(config: ConfigDict) -> casm_step.CasmOptions:
    """The step's options from a resolved config."""
    weight = config.casm.area_factor * casm.published_area_weight(
        config.casm.thinning, config.casm.score
    )
    return casm_step.CasmOptions(
        thinning=casm.thinning(config.casm.thinning),
        score=config.casm.score,
        area_weight=casm.scaled_area_weight(weight, config.classifier.num_classes),
        variant=config.casm.variant,
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
        seed=config.seed,
    )
