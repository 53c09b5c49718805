"""The stage `generator`: from a config to what the loop needs."""

import jax.numpy as jnp
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from saliency_jax.models.generator import Generator, create_generator, init_generator
from saliency_jax.training.generator_step import make_generator_step
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.stage import Phase, Stage
from saliency_jax.training.state import TrainState, create_net
from saliency_jax.types import PyTree


def create_stage(config: ConfigDict) -> Stage:
    """Returns the stage of a resolved config.

    Raises:
      InputError: for a network or an optimiser that cannot be made.
    """
    generator, discriminator = create_generator(
        config.data.image_size,
        width=config.generator.width,
        latent_size=config.generator.latent_size,
        discriminator_width=config.discriminator.width,
    )
    optimisers = {
        name: create_optimiser(config[name].optimiser, config.total_steps)
        for name in ("generator", "discriminator")
    }

    def init_state(key: Key[Array, ""], initial: dict[str, PyTree]) -> TrainState:
        networks = init_generator(generator, discriminator, key)
        nets = {
            name: create_net(networks[name], optimiser)
            for name, optimiser in optimisers.items()
        }
        return TrainState(jnp.zeros((), jnp.int32), **nets)

    return Stage(
        lambda: {},
        init_state,
        make_generator_step(
            generator,
            discriminator,
            optimisers["generator"],
            optimisers["discriminator"],
            real_label=config.discriminator.real_label,
            seed=config.seed,
        ),
        form=lambda step: (),
        phases=(Phase("", config.total_steps, config.data.batch_size),),
        model=lambda state: Generator(
            state.generator.variables,
            state.discriminator.variables,
            generator,
            discriminator,
        ),
    )
