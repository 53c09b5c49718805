"""The DCGAN's layers against Flax's, its geometry and its count of parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.models.generator import (
    Doubling,
    Generator,
    Halving,
    create_generator,
    draw_latents,
    from_signed,
    init_generator,
    to_signed,
)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(Doubling, nn.ConvTranspose), (Halving, nn.Conv)]
)
def test_the_layers_are_flaxs_convolutions(ours, theirs):
    """Values and gradients of both arguments, with the same parameters."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, 6, 4, 3)), jnp.float32)
    params = {"kernel": random.normal(size=(5, 5, 3, 2)), "bias": random.normal(size=2)}
    params = jax.tree.map(jnp.float32, params)
    own, flax_layer = ours(2, use_bias=True), theirs(2, (5, 5), (2, 2), "SAME")

    def all_of(layer):
        """The result, and its gradients in both arguments."""

        def weigh(params, x):
            y = layer.apply({"params": params}, x)
            return jnp.sum(jnp.sin(y)), y

        gradient_fn = jax.grad(weigh, argnums=(0, 1), has_aux=True)
        return jax.jit(gradient_fn)(params, x)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        all_of(own),
        all_of(flax_layer),
    )


def shapes_of(size, width, discriminator_width):
    networks = create_generator(
        size, width=width, latent_size=100, discriminator_width=discriminator_width
    )
    init = lambda key: init_generator(*networks, key)
    return networks, jax.eval_shape(init, jax.random.key(0))


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("size", "width", "discriminator_width", "coarsest"),
    [(64, 128, 64, (4, 1024)), (224, 448, 56, (14, 3584)), (32, 4, 4, (2, 32))],
)
def test_geometry_of_the_authors_code(size, width, discriminator_width, coarsest):
    networks, variables = shapes_of(size, width, discriminator_width)
    side, channels = coarsest
    assert channels == 8 * width and side * 16 == size
    pixels = side * side
    # without a bias where BatchNorm has one
    expected = 100 * pixels * channels + 2 * channels
    for inner in (channels, channels // 2, channels // 4):
        expected += 25 * inner * inner // 2 + 2 * (inner // 2)
    expected += 25 * width * 3 + 3
    assert count(variables["generator"]) == expected
    first = discriminator_width
    expected = 25 * 3 * first + first + pixels * 8 * first + 1
    for outer in (2 * first, 4 * first, 8 * first):
        expected += 25 * (outer // 2) * outer + 2 * outer
    assert count(variables["discriminator"]) == expected
    generate = lambda v, z: networks[0].apply(v, z, False)
    latents = jax.ShapeDtypeStruct((3, 100), jnp.float32)
    images = jax.eval_shape(generate, variables["generator"], latents)
    assert images.shape == (3, size, size, 3)
    judge = lambda v, x: networks[1].apply(v, x, False)
    assert jax.eval_shape(judge, variables["discriminator"], images).shape == (3,)


def test_a_generator_is_a_pytree_with_images_in_the_unit_range():
    networks, _ = shapes_of(16, 2, 2)
    init = jax.jit(lambda key: init_generator(*networks, key))
    variables = init(jax.random.key(1))
    generator = Generator(variables["generator"], variables["discriminator"], *networks)
    images = jax.jit(lambda g, z: g(50 * z))(
        generator, draw_latents(jax.random.key(2), 4, 100)
    )
    assert images.shape == (4, 16, 16, 3)
    assert images.min() >= 0 and images.max() <= 1 and images.std() > 0
    # the discriminator sees tanh's range, whatever the type
    rounded = np.rint(255 * np.asarray(images)).astype(np.uint8)
    judge = jax.jit(lambda v, x: networks[1].apply(v, x, False))
    logits = judge(variables["discriminator"], rounded / np.float32(127.5) - 1)
    realism = jax.jit(lambda g, x: g.realism(x))(generator, rounded)
    np.testing.assert_allclose(realism, logits, atol=1e-6)
    np.testing.assert_allclose(
        from_signed(to_signed(rounded)), rounded / 255, atol=1e-6
    )


def test_latent_points_fill_their_cube():
    latents = draw_latents(jax.random.key(0), 400, 10)
    assert latents.min() < -0.99 and latents.max() > 0.99
    assert abs(float(latents.mean())) < 0.05
    assert float(latents.std()) == pytest.approx(3**-0.5, abs=0.02)


@pytest.mark.parametrize("size", [0, 8, 100])
def test_sizes_that_do_not_divide_are_refused(size):
    with pytest.raises(InputError, match=f"multiple of 16.*image_size is {size}"):
        create_generator(size, width=4, latent_size=8, discriminator_width=4)
