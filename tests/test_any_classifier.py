"""Networks of other libraries as black boxes: Flax NNX and Equinox."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax import Classifier, Masker, saliency, saliency_fn
from saliency_jax.attribution import gradient
from saliency_jax.attribution.optimised_masks import iterative_mask
from saliency_jax.attribution.optimised_masks.iterative_mask import (
    IterativeOptions,
    iterative_masks,
)
from saliency_jax.errors import InputError
from saliency_jax.models.create import create_backbone
from saliency_jax.models.selective_masker import SelectiveDecoder, SelectiveMasker
from saliency_jax.objectives.black_box import black_box_loss, published
from saliency_jax.removal import RemovalOptions, remove_evidence

CLASSES, SIZE = 4, 32
IMAGES = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
OPTIONS = IterativeOptions(iterations=3, mask_size=8)


class BlackBox(NamedTuple):
    """A network three ways: as it is called, as a closure and with its weights."""

    logits: np.ndarray
    closure: Classifier
    with_weights: Classifier
    with_others: Classifier


def nnx_black_box():
    nnx = pytest.importorskip("flax.nnx", reason="this Flax has no NNX")

    class Network(nnx.Module):
        def __init__(self, seed):
            rngs = nnx.Rngs(seed)
            self.conv = nnx.Conv(3, 8, (3, 3), strides=4, rngs=rngs)
            self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
            self.head = nnx.Linear(8, CLASSES, rngs=rngs)

        def __call__(self, images):
            x = nnx.relu(self.norm(self.conv(images)))
            return 20 * self.head(jnp.mean(x, axis=(1, 2)))

    def apply(graphdef, state, images):
        return nnx.merge(graphdef, state)(images)

    network = Network(0)
    graphdef, state = nnx.split(network)
    other = nnx.state(Network(1))
    return BlackBox(
        np.asarray(network(jnp.asarray(IMAGES / 255, jnp.float32))),
        Classifier.from_function(lambda images: network(images)),
        *(
            Classifier.from_function(jax.tree_util.Partial(apply, graphdef, weights))
            for weights in (state, other)
        ),
    )


def equinox_black_box():
    eqx = pytest.importorskip("equinox", reason="needs `pip install equinox`")

    def network_of(seed):
        keys = jax.random.split(jax.random.key(seed), 2)
        return eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(3, 8, 3, stride=4, key=keys[0]),
                eqx.nn.Lambda(jax.nn.relu),
                eqx.nn.Lambda(lambda x: 20 * x.mean(axis=(1, 2))),
                eqx.nn.Linear(8, CLASSES, key=keys[1]),
            ]
        )

    def logits(network, images):  # it takes one image, channels first
        return jax.vmap(network)(images.transpose(0, 3, 1, 2))

    network = network_of(0)
    arrays, static = eqx.partition(network, eqx.is_array)
    others, _ = eqx.partition(network_of(1), eqx.is_array)

    # What is no array, such as the activation, stays in the closure.
    def apply(arrays, images):
        return logits(eqx.combine(arrays, static), images)

    return BlackBox(
        np.asarray(logits(network, jnp.asarray(IMAGES / 255, jnp.float32))),
        Classifier.from_function(lambda images: logits(network, images)),
        *(
            Classifier.from_function(jax.tree_util.Partial(apply, weights))
            for weights in (arrays, others)
        ),
    )


@pytest.fixture(scope="module", params=[nnx_black_box, equinox_black_box])
def black_box(request):
    return request.param()


@pytest.fixture(scope="module")
def masker():
    encoder = create_backbone("resnet10", 5, width=4, stem="small_stride2")
    module = SelectiveMasker(encoder, SelectiveDecoder(CLASSES, base=4))
    image, label = jnp.zeros((1, SIZE, SIZE, 3)), jnp.zeros(1, jnp.int32)
    init = jax.jit(lambda key: module.init(key, image, label, False))
    colours = {"encoder_mean": (0.5,) * 3, "encoder_std": (0.2,) * 3}
    return Masker(init(jax.random.key(0)), None, module, **colours)


def leaves(classifier):
    return jax.tree.leaves(classifier)


def test_it_answers_as_the_network_does(black_box):
    for classifier in (black_box.closure, black_box.with_weights):
        np.testing.assert_allclose(classifier(IMAGES), black_box.logits, atol=1e-3)
    assert not leaves(black_box.closure)
    assert len(leaves(black_box.with_weights)) >= 4


def test_masks_are_optimised_against_it(black_box):
    of = lambda classifier: np.asarray(
        iterative_masks(classifier, IMAGES, key=jax.random.key(0), options=OPTIONS)
    )
    before = [np.array(leaf) for leaf in leaves(black_box.with_weights)]
    masks = of(black_box.with_weights)
    assert masks.shape == (3, SIZE, SIZE)
    np.testing.assert_allclose(of(black_box.closure), masks, atol=1e-4)
    for one, other in zip(before, leaves(black_box.with_weights), strict=True):
        np.testing.assert_array_equal(one, other)
    compiled = iterative_mask._step._cache_size()
    assert np.abs(of(black_box.with_others) - masks).max() > 1e-3
    assert iterative_mask._step._cache_size() == compiled


def test_a_masker_learns_from_it(black_box, masker):
    """The objective's gradient passes through the network to the masker's weights."""
    images = jnp.asarray(IMAGES / 255, jnp.float32)
    labels = jnp.array([0, 1, 2])

    def loss(masker, classifier):
        masks = saliency_fn(masker, images, labels)
        logits = [
            classifier(remove_evidence(key, images, shown, RemovalOptions()))
            for key, shown in zip(
                jax.random.split(jax.random.key(0)), (masks, 1 - masks), strict=True
            )
        ]
        real = jnp.ones(3, bool)
        constants = dataclasses.replace(
            published("author"), area_weight=0.0, smoothness_weight=0.0
        )
        return black_box_loss(masks, *logits, labels, real, constants)[0].mean()

    gradient = jax.jit(jax.grad(loss))(masker, black_box.with_weights)
    decoder = gradient.variables["params"]["decoder"]
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(decoder))
    assert np.isfinite(largest) and largest > 1e-6


def test_a_masker_asks_it_for_the_class(black_box, masker):
    predicted = black_box.logits.argmax(-1)
    explained = masker.replace(classifier=black_box.with_weights)
    masks = saliency_fn(explained, IMAGES)
    np.testing.assert_allclose(
        masks, saliency_fn(explained, IMAGES, predicted), atol=1e-5
    )
    others = saliency_fn(explained, IMAGES, (predicted + 1) % CLASSES)
    assert np.abs(masks - others).max() > 1e-4
    closure = explained.replace(classifier=black_box.closure)
    np.testing.assert_allclose(saliency_fn(closure, IMAGES), masks, atol=1e-5)
    compiled = saliency._jitted._cache_size()
    saliency_fn(explained.replace(classifier=black_box.with_others), IMAGES)
    assert saliency._jitted._cache_size() == compiled


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_nnx_model_in_training_mode(wrapped):
    """Its running statistics would change with each question, if they could."""
    nnx = pytest.importorskip("flax.nnx", reason="this Flax has no NNX")

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, images):
            x = self.dropout(nnx.relu(self.norm(self.conv(images))))
            return jnp.mean(x, axis=(1, 2))

    network = Network(nnx.Rngs(0))
    model = (lambda images: network(images)) if wrapped else network
    for targets in (0, None):
        with pytest.raises(InputError, match=r"changes its own state .* model\.eval"):
            gradient(model, IMAGES, targets)
    network.eval()
    assert np.ptp(gradient(model, IMAGES, 0)) > 0
