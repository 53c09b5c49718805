"""The smallest game: a network of one block, eight images of 16x16, five classes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from saliency_jax import pool as pools
from saliency_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD, normalise
from saliency_jax.models.create import init_networks
from saliency_jax.models.masker import CasmMasker, EncoderMasker
from saliency_jax.models.resnet import ResNet
from saliency_jax.objectives import casm
from saliency_jax.training.casm_step import CasmOptions, make_casm_step
from saliency_jax.training.optim import create_optimiser
from saliency_jax.training.state import NetState, TrainState

CLASSES, SIZE, BATCH = 5, 16, 8
CLASSIFIER = ResNet((1,), False, CLASSES, width=4, stem="small_stride2")
DECODER = CasmMasker(taps=(0, 1), features=4)
MASKERS = {"shared": DECODER, "own": EncoderMasker(CLASSIFIER, DECODER)}
SHARED = {
    "weight_decay": 1e-2,
    "schedule": "constant",
    "warmup_steps": 0,
    "decay_every": 0,
    "decay_factor": 0.1,
}
SGD = SHARED | {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "clip_norm": 0.0}
ADAM = SHARED | {"name": "adam", "learning_rate": 0.01, "momentum": 0, "clip_norm": 0.2}
SLOTS = 3


@jax.jit
def calibrated(variables, images):
    """The classifier with running statistics a little off those of the batch."""
    inputs = normalise(images)
    zero = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    _, updates = CLASSIFIER.apply(
        {"params": variables["params"], "batch_stats": zero},
        inputs,
        True,
        mutable=["batch_stats"],
    )
    # a tenth of the batch's enters into the zeros
    statistics = jax.tree.map(lambda x: 10.3 * x, updates["batch_stats"])
    return {"params": variables["params"], "batch_stats": statistics}


@functools.cache
def networks(seed, encoder="shared"):
    """Variables of both networks, different for each seed."""
    init = functools.partial(init_networks, CLASSIFIER, MASKERS[encoder])
    shapes = jax.eval_shape(lambda key: init(key, SIZE), jax.random.key(0))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        if name in ("var", "scale"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif name == "kernel":
            values = rng.normal(size=leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5
            if path[-2].key == "fc":  # answers depend on the image
                values = 5 * (values - values.mean(axis=0))
        else:
            values = 0.1 * rng.normal(size=leaf.shape)
        return jnp.asarray(values, jnp.float32)

    filled = jax.tree_util.tree_map_with_path(fill, shapes)
    return filled | {"classifier": calibrated(filled["classifier"], batch()["image"])}


def options(thinning="L", score="entropy", variant="author", weight=3.0, seed=0):
    return CasmOptions(
        thinning=casm.thinning(thinning),
        score=score,
        area_weight=weight,
        variant=variant,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        seed=seed,
    )


@functools.cache
def jitted_step(encoder="shared", **chosen):
    """The jitted step; its inputs are not donated, so that states can be reused."""
    step = make_casm_step(
        CLASSIFIER,
        MASKERS[encoder],
        create_optimiser(SGD, 100),
        create_optimiser(ADAM, 100),
        options(**chosen),
    )
    return jax.jit(step, static_argnames="historic")


def state(encoder="shared", pool=None, step=7):
    """A state in mid-run: momentum and Adam's moments are not zero."""
    variables = networks(0, encoder)["classifier"]
    sgd = create_optimiser(SGD, 100).direction.init(variables["params"])
    trace = jax.tree.map(lambda x: 0.1 * jnp.cos(7 * x), variables["params"])
    sgd = (sgd[0], sgd[1], optax.TraceState(trace))
    masker = networks(0, encoder)["masker"]
    adam = create_optimiser(ADAM, 100).direction.init(masker["params"])
    moments = optax.ScaleByAdamState(
        jnp.int32(5),
        jax.tree.map(lambda x: 0.1 * jnp.cos(5 * x), masker["params"]),
        jax.tree.map(lambda x: 0.01 + 0.01 * jnp.cos(3 * x) ** 2, masker["params"]),
    )
    adam = (adam[0], adam[1], moments)
    return TrainState(
        jnp.int32(step),
        NetState(variables["params"], variables["batch_stats"], sgd),
        NetState(masker["params"], masker["batch_stats"], adam),
        pool,
    )


def pool_of(*seeds, dtype="float32"):
    """A pool of past classifiers, slots beyond them empty."""
    like = networks(0)["classifier"]
    pool = pools.init_pool(like["params"], like["batch_stats"], SLOTS, dtype)
    for slot, seed in enumerate(seeds):
        past = networks(seed)["classifier"]
        pool = pools.push(
            pool, past["params"], past["batch_stats"], step=slot, key=jax.random.key(0)
        )
    return pool


@functools.cache
def batch(size=BATCH, seed=9):
    """Images, and labels of which the clean classifier has most right, not all."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size, 2, 2, 3), np.uint8)
    images = coarse.repeat(8, axis=1).repeat(8, axis=2)
    labels = np.resize([1, 4, 4, 2, 2, 3, 0, 3], size)
    return {"image": jnp.asarray(images), "label": jnp.asarray(labels, jnp.int32)}


def with_labels(batch, labels):
    return batch | {"label": jnp.asarray(labels, jnp.int32)}


def replaced(state, **nets):
    """The state with other parts of its networks, such as `masker={"params": ...}`."""
    for name, parts in nets.items():
        net = dataclasses.replace(getattr(state, name), **parts)
        state = state.replace(**{name: net})
    return state
