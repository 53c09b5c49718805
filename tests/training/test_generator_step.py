"""One step of the stage `generator` against both gradients taken by themselves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax import prng
from saliency_jax.models.generator import (
    DiscriminatorNetwork,
    GeneratorNetwork,
    draw_latents,
    init_generator,
)
from saliency_jax.models.layers import batch_norm
from saliency_jax.objectives.generator import discriminator_loss, generator_loss
from saliency_jax.training.generator_step import make_generator_step
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.state import TrainState, create_net
from tests.training.tiny import SGD

SIDE = 4


class OneLayerGenerator(GeneratorNetwork):
    @nn.compact
    def __call__(self, latents, train):
        x = batch_norm("bn0", train, jnp.float32)(nn.Dense(8)(latents))
        x = nn.Dense(self.image_size**2 * 3)(nn.relu(x))
        return jnp.tanh(x.reshape(-1, self.image_size, self.image_size, 3))


class OneLayerDiscriminator(DiscriminatorNetwork):
    @nn.compact
    def __call__(self, images, train):
        x = nn.Dense(self.width)(images.reshape(len(images), -1))
        x = nn.leaky_relu(batch_norm("bn2", train, jnp.float32)(x), 0.2)
        return nn.Dense(1)(x)[:, 0]


GENERATOR = OneLayerGenerator(SIDE, latent_size=3)
DISCRIMINATOR = OneLayerDiscriminator(5)
RATES = {"generator": 0.3, "discriminator": 0.05}
SEED = 4


@pytest.fixture(scope="module")
def moved():
    """A state, the batch, the state after a step, and the step's figures."""
    optimisers = {
        name: create_optimiser(
            SGD | {"learning_rate": rate, "momentum": 0.0, "weight_decay": 0.0}, 100
        )
        for name, rate in RATES.items()
    }
    step = make_generator_step(
        GENERATOR,
        DISCRIMINATOR,
        optimisers["generator"],
        optimisers["discriminator"],
        real_label=0.9,
        seed=SEED,
    )

    def begin(key):
        networks = init_generator(GENERATOR, DISCRIMINATOR, key)
        nets = {name: create_net(networks[name], optimisers[name]) for name in RATES}
        return TrainState(jnp.int32(5), **nets)

    state = jax.jit(begin)(jax.random.key(0))
    pixels = np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    batch = {"image": jnp.asarray(pixels)}
    return state, batch, *jax.jit(step)(state, batch)


def applied(module, net, params, inputs):
    variables = {"params": params, "batch_stats": net.batch_stats}
    return module.apply(variables, inputs, True, mutable=["batch_stats"])[0]


def test_the_generator_meets_the_discriminator_after_its_update(moved):
    state, batch, after, metrics = moved
    images = batch["image"] / jnp.float32(127.5) - 1
    generator, discriminator = state.generator, state.discriminator

    def of_discriminator(params, latents):
        fakes = applied(GENERATOR, generator, generator.params, latents)
        real, fake = (
            applied(DISCRIMINATOR, discriminator, params, x) for x in (images, fakes)
        )
        return jnp.mean(discriminator_loss(real, fake, 0.9))

    def of_generator(params, judge, latents):
        fakes = applied(GENERATOR, generator, params, latents)
        logits = applied(DISCRIMINATOR, discriminator, judge, fakes)
        return jnp.mean(generator_loss(logits))

    @jax.jit
    def expected():
        key = prng.stream_key(jax.random.key(SEED), "latents", 5)
        latents = draw_latents(key, 4, 3)
        descend = lambda params, gradients, rate: jax.tree.map(
            lambda p, g: p - rate * g, params, gradients
        )
        loss, gradients = jax.value_and_grad(of_discriminator)(
            discriminator.params, latents
        )
        judge = descend(discriminator.params, gradients, RATES["discriminator"])
        realism, gradients = jax.value_and_grad(of_generator)(
            generator.params, judge, latents
        )
        made = descend(generator.params, gradients, RATES["generator"])
        return {"discriminator": judge, "generator": made}, loss, realism

    params, loss, realism = expected()
    np.testing.assert_allclose(metrics["discriminator_loss"], loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["generator_loss"], realism, rtol=1e-4)
    assert int(after.step) == 6
    for name in RATES:
        before, net = getattr(state, name), getattr(after, name)
        moves = jax.tree.map(lambda a, b: a - b, net.params, before.params)
        wanted = jax.tree.map(lambda a, b: a - b, params[name], before.params)
        assert max(float(abs(leaf).max()) for leaf in jax.tree.leaves(wanted)) > 1e-3
        for one, other in zip(
            jax.tree.leaves(moves), jax.tree.leaves(wanted), strict=True
        ):
            scale = float(abs(other).max())
            np.testing.assert_allclose(one, other, atol=2e-3 * scale + 1e-6)


def test_running_statistics_see_the_data_and_the_generated(moved):
    """0.9 of the old, twice: those of the real images, then of the generated ones."""
    state, batch, after, _ = moved
    old = state.discriminator.batch_stats["bn2"]["mean"]
    new = after.discriminator.batch_stats["bn2"]["mean"]

    @jax.jit
    def means():
        images = batch["image"] / jnp.float32(127.5) - 1
        key = prng.stream_key(jax.random.key(SEED), "latents", 5)
        latents = draw_latents(key, 4, 3)
        fakes = applied(GENERATOR, state.generator, state.generator.params, latents)
        return [applied_statistics(state.discriminator, x) for x in (images, fakes)]

    of_real, of_fake = means()
    expected = 0.9 * (0.9 * old + 0.1 * of_real) + 0.1 * of_fake
    np.testing.assert_allclose(new, expected, rtol=1e-3, atol=1e-5)


def applied_statistics(net, inputs):
    """The mean of a batch at the first BatchNorm, from statistics of zero."""
    zero = jax.tree.map(jnp.zeros_like, net.batch_stats)
    variables = {"params": net.params, "batch_stats": zero}
    _, updates = DISCRIMINATOR.apply(variables, inputs, True, mutable=["batch_stats"])
    return 10 * updates["batch_stats"]["bn2"]["mean"]
