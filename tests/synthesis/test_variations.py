"""The latent search, what it leaves of an image, and what is counted."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from saliency_jax.errors import InputError
from saliency_jax.metrics.baselines import rectangle_masks
from saliency_jax.models.generator import (
    DiscriminatorNetwork,
    Generator,
    GeneratorNetwork,
)
from saliency_jax.synthesis.variations import (
    PUBLISHED,
    SearchOptions,
    acceptable_variations,
    context_weights,
    nesterov_step,
    published_options,
    salient_regions,
    search,
)

SIZE, LATENTS = 6, 3


class LinearGenerator(GeneratorNetwork):
    """`z @ W`, in [-1, 1] for latent points in their cube."""

    @nn.compact
    def __call__(self, latents, train):
        shape = (LATENTS, SIZE * SIZE * 3)
        weights = self.param("weights", nn.initializers.zeros, shape)
        return (latents @ weights).reshape(-1, SIZE, SIZE, 3)


class LinearDiscriminator(DiscriminatorNetwork):
    """`images @ d`."""

    @nn.compact
    def __call__(self, images, train):
        weights = self.param("weights", nn.initializers.zeros, (SIZE * SIZE * 3,))
        return images.reshape(len(images), -1) @ weights


def random():
    return np.random.default_rng(3)


@pytest.fixture(scope="module")
def generator():
    weights = random().uniform(-1, 1, (LATENTS, SIZE * SIZE * 3)) / LATENTS
    judge = random().normal(size=SIZE * SIZE * 3)
    params = lambda x: {"params": {"weights": jnp.asarray(x, jnp.float32)}}
    return Generator(
        params(weights),
        params(judge),
        LinearGenerator(SIZE, latent_size=LATENTS),
        LinearDiscriminator(),
    )


def images_of(count=2):
    return random().integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


BOXES = np.array([[1, 2, 4, 6], [0, 0, 3, 5]])
OPTIONS = SearchOptions(steps=4, realism_weight=0.7, window=3, step_size=0.003)


def bright_is_one(images):
    """Class 1 where the first three rows are brighter than the rest."""
    difference = images[:, :3].mean(axis=(1, 2, 3)) - images[:, 3:].mean(axis=(1, 2, 3))
    return jnp.stack([jnp.zeros_like(difference), 50 * difference], axis=1)


def vary(generator, boxes=BOXES, images=None, **options):
    images = images_of() if images is None else images
    options = {"restarts": 5, "options": OPTIONS} | options
    return acceptable_variations(bright_is_one, generator, images, boxes, **options)


@pytest.mark.torch
def test_the_step_is_pytorchs():
    torch = pytest.importorskip("torch")
    begin = random().uniform(-1, 1, 5)
    target = torch.tensor([0.5, 2.0, -3.0, 0.0, 0.9], dtype=torch.float64)
    theirs = torch.tensor(begin, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([theirs], lr=0.05, momentum=0.9, nesterov=True)
    latents, velocities = jnp.float32(begin), jnp.zeros(5)
    touched = False
    for _ in range(25):
        optimiser.zero_grad()
        ((theirs - target) ** 2).sum().backward()
        optimiser.step()
        with torch.no_grad():
            touched |= bool((theirs.abs() > 1).any())
            theirs.clamp_(-1, 1)
        gradients = 2 * (latents - jnp.float32(target.numpy()))
        latents, velocities = nesterov_step(latents, velocities, gradients, 0.05, 0.9)
        np.testing.assert_allclose(latents, theirs.detach().numpy(), atol=1e-5)
    assert touched  # the clipping had something to do


def test_sutskevers_form_by_hand():
    """v1 = -l g, z1 = z + m v1 - l g; with m = 1/2, l = 1/10, g = 1 and then 2."""
    z, v = nesterov_step(jnp.zeros(1), jnp.zeros(1), jnp.ones(1), 0.1, 0.5)
    np.testing.assert_allclose(z, [-0.15])
    z, v = nesterov_step(z, v, 2 * jnp.ones(1), 0.1, 0.5)
    np.testing.assert_allclose(z, [-0.15 - 0.1 * (2 + 0.5 * 2.5)], rtol=1e-6)


def test_the_search_is_the_descent_by_hand(generator):
    """NumPy, with the gradient of the linear networks written out."""
    images = images_of() / np.float32(255)
    regions = rectangle_masks(BOXES, (SIZE, SIZE))
    starts = random().uniform(-1, 1, (2, LATENTS)).astype(np.float32)
    found = jax.jit(search, static_argnums=4)(
        generator,
        jnp.asarray(images),
        jnp.asarray(regions),
        jnp.asarray(starts),
        OPTIONS,
    )
    made = np.asarray(generator.variables["params"]["weights"], np.float64)
    judge = np.asarray(generator.discriminator_variables["params"]["weights"])
    weights = np.asarray(context_weights(jnp.asarray(~regions), OPTIONS.window))
    for image, weight, start, latent, losses, context, realism in zip(
        2 * images.astype(np.float64) - 1,
        weights,
        starts,
        found["latents"],
        found["losses"],
        found["context"],
        found["realism"],
        strict=True,
    ):
        each = np.repeat(weight.reshape(-1), 3)

        def terms(z, image=image, each=each):
            difference = z @ made - image.reshape(-1)
            logit = (z @ made) @ judge
            gradient = made @ (each * np.sign(difference))
            gradient += 0.7 * (made @ judge) * (1 / (1 + np.exp(-logit)) - 1)
            return (each * abs(difference)).sum(), np.log1p(np.exp(-logit)), gradient

        z, v = start.astype(np.float64), np.zeros(LATENTS)
        for loss in losses:
            first, second, gradient = terms(z)
            assert float(loss) == pytest.approx(first + 0.7 * second, rel=1e-4)
            previous, v = v, 0.9 * v - 0.003 * gradient
            z = np.clip(z - 0.9 * previous + 1.9 * v, -1, 1)
        np.testing.assert_allclose(latent, z, atol=1e-4)
        first, second, _ = terms(z)
        assert float(context) == pytest.approx(first, rel=1e-4)
        assert float(realism) == pytest.approx(second, rel=1e-4)


def test_an_image_that_can_be_generated_is_found(generator):
    """Its own latent point, from what is kept alone, from every start."""
    hidden = jnp.asarray([[0.4, -0.7, 0.1]])
    images = np.asarray(generator(hidden))
    options = SearchOptions(steps=400, realism_weight=0.0, window=None, step_size=1e-4)
    found = vary(generator, BOXES[:1], images, options=options)
    assert (found.context < 0.05 * found.losses[..., 0]).all()
    np.testing.assert_allclose(found.latents - hidden[:, None], 0, atol=0.02)
    np.testing.assert_allclose(found.images[0] - images, 0, atol=0.02)


def test_nothing_outside_of_the_region_changes(generator):
    images = images_of()
    found = vary(generator, images=images)
    assert found.images.shape == (2, 5, SIZE, SIZE, 3)
    kept = ~found.regions
    exact = np.asarray(jnp.asarray(images).astype(jnp.float32) / 255.0)
    drawn = np.asarray(found.images)
    for image, variations, mask in zip(exact, drawn, kept, strict=True):
        for variation in variations:
            np.testing.assert_array_equal(variation[mask], image[mask])
    made = generator(found.latents.reshape(-1, LATENTS)).reshape(found.images.shape)
    inside = np.broadcast_to(found.regions[:, None], drawn.shape[:4])
    np.testing.assert_allclose(drawn[inside], np.asarray(made)[inside], atol=1e-6)
    assert abs(found.latents).max() <= 1


def test_a_start_depends_on_its_number_alone(generator):
    all_at_once = vary(generator)
    fewer = vary(generator, restarts=3)
    in_parts = vary(generator, batch_size=3)
    alone = vary(generator, BOXES[1:], images_of()[1:])
    for name in ("latents", "losses", "context", "images"):
        whole = getattr(all_at_once, name)
        same = {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(getattr(fewer, name), whole[:, :3], **same)
        np.testing.assert_allclose(getattr(in_parts, name), whole, **same)
        np.testing.assert_allclose(getattr(alone, name)[0], whole[1], **same)
    np.testing.assert_array_equal(fewer.is_same, all_at_once.is_same[:, :3])
    others = vary(generator, key=jax.random.key(1))
    assert abs(others.latents - all_at_once.latents).max() > 0.1
    # the starts themselves: no step
    still = vary(generator, options=OPTIONS._replace(steps=0))
    np.testing.assert_array_equal(still.latents[0], still.latents[1])
    assert still.losses.shape == (2, 5, 0)


def test_the_share_is_of_all_starts(generator):
    """By asking the classifier about every variation once more."""
    boxes = np.array([[0, 0, 6, 5], [0, 1, 6, 6]])  # nearly everything is generated
    options = {"restarts": 40, "options": OPTIONS._replace(steps=0)}
    found = vary(generator, boxes, **options)
    flat = found.images.reshape(-1, SIZE, SIZE, 3)
    called = np.asarray(bright_is_one(flat)).argmax(axis=1).reshape(2, 40)
    original = np.asarray(bright_is_one(images_of() / np.float32(255))).argmax(axis=1)
    np.testing.assert_array_equal(found.targets, original)
    np.testing.assert_array_equal(found.predicted, called)
    shares = (called == original[:, None]).mean(axis=1)
    assert ((shares > 0) & (shares < 1)).any()  # some are lost, and counted
    np.testing.assert_allclose(found.shares, shares)
    turned = vary(generator, boxes, targets=1 - original, **options)
    np.testing.assert_allclose(turned.shares, 1 - shares)
    np.testing.assert_array_equal(turned.images, found.images)


def test_boxes_and_their_masks_are_one(generator):
    masks = np.zeros((2, SIZE, SIZE), bool)
    masks[0, 1:4, 2:6] = masks[1, 0:3, 0:5] = True
    np.testing.assert_array_equal(rectangle_masks(BOXES, (SIZE, SIZE)), masks)
    by_mask, by_box = vary(generator, masks), vary(generator)
    np.testing.assert_array_equal(by_mask.regions, by_box.regions)
    np.testing.assert_array_equal(by_mask.images, by_box.images)


def test_the_salient_box_of_a_map():
    maps = np.zeros((2, 8, 8), np.float32)
    maps[0, 2:5, 3:7] = 1.0
    maps[0, 7, 0] = 0.4  # beneath one half
    regions = salient_regions(maps, "value", 0.5)
    expected = np.zeros((8, 8), bool)
    expected[2:5, 3:7] = True
    np.testing.assert_array_equal(regions[0], expected)
    assert not regions[1].any()  # a map that says nothing
    assert salient_regions(maps, "value", 0.3)[0].sum() == 6 * 7


@pytest.mark.parametrize("window", [1, 3, 4, 7, 20])
def test_weights_are_a_filtered_hole(window):
    """Against scipy's convolution with a mirrored border."""
    kept = random().random((2, 9, 7)) > 0.4
    expected = [
        mask
        * signal.convolve2d(
            1.0 - mask, np.full((window, window), window**-2), "same", "symm"
        )
        for mask in kept.astype(float)
    ]
    weights = context_weights(jnp.asarray(kept), window)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_array_equal(context_weights(jnp.asarray(kept), None), kept)


def test_published_options():
    assert PUBLISHED[64] == (10_000, 0.1, None, 0.01, 0.9)
    assert PUBLISHED[224] == (1000, 0.005, 70, 0.01, 0.9)
    assert published_options(32) == published_options(96) == PUBLISHED[64]
    assert published_options(160) == PUBLISHED[224]


def masks(*changed):
    regions = np.zeros((2, SIZE, SIZE), bool)
    regions[:, 1:3, 1:3] = True
    for place, value in changed:
        regions[place] = value
    return regions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, "8x8 pixels, .* makes 6x6"),
        ({"images": np.zeros((2, 6, 6, 1), np.uint8)}, r"expected \[B, H, W, 3\]"),
        (
            {"boxes": np.array([[0, 0, 3, 3], [0, 2, 3, 7]])},
            r"box 1 of 2, \[0, 2, 3, 7",
        ),
        ({"boxes": np.array([[-1, 0, 3, 3], [0, 0, 3, 3]])}, "box 0 of 2"),
        ({"boxes": np.array([[2, 0, 2, 3], [0, 0, 3, 3]])}, "0 <= min < max <= 6"),
        ({"boxes": np.array([[0, 0, 6, 6], [0, 0, 3, 3]])}, "region 0 of 2 is the who"),
        ({"boxes": BOXES / 6}, "type float64 for 2 images .* integer boxes"),
        ({"boxes": BOXES[:1]}, r"regions of shape \(1, 4\).* integer boxes \(2, 4\)"),
        ({"boxes": masks((1, False))}, "region 1 of 2 is empty"),
        ({"boxes": masks().astype(np.float32)}, "bool masks"),
        ({"restarts": 0}, "restarts is 0"),
        ({"options": OPTIONS._replace(steps=-1)}, "steps is -1"),
        ({"targets": 2}, "target 2: the classifier knows classes 0 to 1"),
        ({"targets": lambda logits: logits[0]}, "acceptable_variations explains class"),
    ],
)
def test_mistakes(generator, arguments, message):
    with pytest.raises(InputError, match=message):
        vary(generator, **arguments)
