"""The stage `black_box`: from a config to what the loop needs."""

import jax.numpy as jnp
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from saliency_jax.errors import InputError
from saliency_jax.models import create
from saliency_jax.models.black_box import create_black_box
from saliency_jax.models.classifier import Classifier
from saliency_jax.objectives.black_box import BlackBoxOptions
from saliency_jax.removal import RemovalOptions
from saliency_jax.saliency import Masker
from saliency_jax.training import black_box_step, start
from saliency_jax.training.black_box_step import PHASES, PhaseOptions
from saliency_jax.training.encoder import initial_encoder
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.stage import Phase, Stage
from saliency_jax.training.state import NetState, TrainState
from saliency_jax.types import PyTree


def create_stage(config: ConfigDict) -> Stage:
    """Returns the stage of a resolved config.

    Raises:
      InputError: for a network, an optimiser or an option that cannot be made.
    """
    num_classes = config.classifier.num_classes
    encoder = create.create_classifier(config.encoder)
    masker = create.create_selective_masker(config.masker, encoder, num_classes)
    template = create_black_box(config)
    options = step_options(config)

    def initial() -> dict[str, PyTree]:
        networks = {"encoder": initial_encoder(config)}
        if not config.classifier.function:
            networks |= start.initial_networks(config)
        return networks

    def black_box(net: NetState) -> Classifier:
        return template.replace(variables=net.variables)

    def init_state(key: Key[Array, ""], initial: dict[str, PyTree]) -> TrainState:
        size = config.data.image_size
        variables = create.init_selective_masker(masker, key, size)
        if "encoder" in initial:
            variables = create.with_encoder(variables, initial["encoder"])
        if config.masker.selector_init == "classifier":
            kernel = create.head_kernel(encoder, variables["params"]["encoder"])
            variables = with_selector(variables, kernel)
        if config.classifier.function:
            frozen = template.variables
        else:
            fresh = create.init_networks(template.module, None, key, size)
            frozen = {**fresh, **initial}["classifier"]
        return TrainState(
            jnp.zeros((), jnp.int32),
            # Without an optimiser: nothing can move it.
            NetState(frozen["params"], frozen.get("batch_stats", {}), ()),
            black_box_step.init_masker(variables, options.phases),
        )

    def model(state: TrainState) -> Masker:
        return Masker(
            state.masker.variables,
            black_box(state.classifier),
            masker,
            config.masker.confidence,
            options.encoder_mean,
            options.encoder_std,
        )

    phases = tuple(
        Phase(name, config[name].steps, config[name].batch_size, name == "decoder")
        for name in PHASES
    )
    step = black_box_step.make_black_box_step(black_box, masker, options)
    first_of_decoder = config.selector.steps
    return Stage(
        initial,
        init_state,
        step,
        form=lambda step: (PHASES[step >= first_of_decoder],),
        phases=phases,
        model=model,
    )


def step_options(config: ConfigDict) -> black_box_step.StepOptions:
    """The step's options from a resolved config."""
    phases, first_step = {}, 0
    for name in PHASES:
        section = config[name]
        settings = section.optimiser.to_dict()
        if not section.steps:  # an optimiser that is never asked
            settings["warmup_steps"] = 0
        optimiser = create_optimiser(settings, max(section.steps, 1))
        phases[name] = PhaseOptions(optimiser, first_step, section.fake_probability)
        first_step += section.steps
    return black_box_step.StepOptions(
        phases=phases,
        objective=BlackBoxOptions(**config.black_box),
        removal=RemovalOptions(**config.removal),
        pooling=config.masker.pooling,
        confidence=config.masker.training_confidence,
        encoder_mean=tuple(config.encoder.mean),
        encoder_std=tuple(config.encoder.std),
        seed=config.seed,
    )


def with_selector(variables: PyTree, embedding: Array) -> PyTree:
    """The variables with a row of `embedding` for each class of the selector.

    Raises:
      InputError: it has other classes, or is of another map than the selector reads.
    """
    decoder = variables["params"]["decoder"]
    expected = decoder["selector"]["embedding"].shape
    if embedding.shape != expected:
        raise InputError(
            f"the encoder's last layer has weights {list(embedding.shape)}, the "
            f"selector needs {list(expected)}: take an encoder with the black box's "
            "classes whose last layer reads its coarsest map, or set "
            "--config.masker.selector_init=random"
        )
    decoder = {**decoder, "selector": {"embedding": embedding}}
    return {**variables, "params": {**variables["params"], "decoder": decoder}}
