"""One step of the `generator` stage: the discriminator, then the generator.

Radford, Metz and Chintala: DCGAN (arXiv 1511.06434).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from saliency_jax import prng
from saliency_jax.models.generator import (
    DiscriminatorNetwork,
    GeneratorNetwork,
    draw_latents,
    to_signed,
)
from saliency_jax.objectives.generator import discriminator_loss, generator_loss
from saliency_jax.training.classifier_step import Metrics
from saliency_jax.training.optim import Optimiser
from saliency_jax.training.state import TrainState, descend
from saliency_jax.types import Batch, PyTree


def make_generator_step(
    generator: GeneratorNetwork,
    discriminator: DiscriminatorNetwork,
    generator_optimiser: Optimiser,
    discriminator_optimiser: Optimiser,
    *,
    real_label: float,
    seed: int,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the pure `step(state, batch) -> (state, metrics)`.

    As many images are generated as the batch has. The discriminator descends first, on
    real and generated images apart, each with its own batch statistics; then the
    generator, on the same generated images, against the discriminator after its update.

    Args:
      generator: the network that makes images.
      discriminator: the network that tells them from those of the data.
      generator_optimiser: of the first.
      discriminator_optimiser: of the second.
      real_label: see `discriminator_loss`.
      seed: of the run; the latent points follow from it and from the step.
    """

    def judge(
        params: PyTree, batch_stats: PyTree, signed: Float[Array, "B S S 3"]
    ) -> tuple[Float[Array, "B"], PyTree]:
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updates = discriminator.apply(
            variables, signed, True, mutable=["batch_stats"]
        )
        return logits, updates["batch_stats"]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        images = to_signed(batch["image"])
        key = prng.stream_key(jax.random.key(seed), "latents", state.step)
        latents = draw_latents(key, len(images), generator.latent_size)

        def generate(params):
            variables = {"params": params, "batch_stats": state.generator.batch_stats}
            fakes, updates = generator.apply(
                variables, latents, True, mutable=["batch_stats"]
            )
            return fakes, updates["batch_stats"]

        fakes, generate_vjp, generator_stats = jax.vjp(
            generate, state.generator.params, has_aux=True
        )

        # --- The discriminator -------------------------------------------------------
        def discriminator_fn(params, batch_stats):
            real_logits, batch_stats = judge(params, batch_stats, images)
            fake_logits, batch_stats = judge(params, batch_stats, fakes)
            losses = discriminator_loss(real_logits, fake_logits, real_label)
            return jnp.mean(losses), (batch_stats, real_logits, fake_logits)

        net = state.discriminator
        grad_fn = jax.value_and_grad(discriminator_fn, has_aux=True)
        (loss, (batch_stats, real_logits, fake_logits)), gradients = grad_fn(
            net.params, net.batch_stats
        )
        net = descend(net, gradients, batch_stats, discriminator_optimiser, state.step)

        # --- The generator -----------------------------------------------------------
        def generator_fn(fakes):
            logits, _ = judge(net.params, net.batch_stats, fakes)
            return jnp.mean(generator_loss(logits))

        realism, fake_gradients = jax.value_and_grad(generator_fn)(fakes)
        generator_net = descend(
            state.generator,
            generate_vjp(fake_gradients)[0],
            generator_stats,
            generator_optimiser,
            state.step,
        )
        metrics = {
            "discriminator_loss": loss,
            "generator_loss": realism,
            "real_probability": jnp.mean(jax.nn.sigmoid(real_logits)),
            "fake_probability": jnp.mean(jax.nn.sigmoid(fake_logits)),
            "learning_rate": generator_optimiser.learning_rate(state.step),
        }
        state = state.replace(
            step=state.step + 1, generator=generator_net, discriminator=net
        )
        return state, metrics

    return step
