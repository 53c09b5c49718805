"""One step of the author's CASM, written a second time, straight from the spec.

Separate differentiations, `x * (1 - m)` in normalised space, the update rules spelled
out; of the package only the networks are used.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from saliency_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD
from saliency_jax.models.masker import EncoderMasker
from tests.training import tiny


def cross_entropy(logits, labels):
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels])


def classify(params, batch_stats, inputs, train):
    """Logits, maps, and the batch statistics after the pass."""
    variables = {"params": params, "batch_stats": batch_stats}
    if not train:
        return *tiny.CLASSIFIER.apply(variables, inputs, False), batch_stats
    (logits, taps), new = tiny.CLASSIFIER.apply(
        variables, inputs, True, mutable=["batch_stats"]
    )
    return logits, taps, new["batch_stats"]


def make_masks(module, params, batch_stats, inputs, taps):
    arguments = (taps, inputs.shape[1:3])
    if isinstance(module, EncoderMasker):
        arguments = (inputs,)
    masks, new = module.apply(
        {"params": params, "batch_stats": batch_stats},
        *arguments,
        True,
        mutable=["batch_stats"],
    )
    return masks, new["batch_stats"]


def sgd(params, trace, gradient):
    """PyTorch's SGD with momentum 0.9 and coupled decay; returns both anew."""
    c = tiny.SGD
    decayed = jax.tree.map(lambda g, p: g + c["weight_decay"] * p, gradient, params)
    trace = jax.tree.map(lambda t, g: c["momentum"] * t + g, trace, decayed)
    return jax.tree.map(lambda p, t: p - c["learning_rate"] * t, params, trace), trace


def adam(params, moments, gradient):
    """Clipping of the global norm, coupled decay, Adam."""
    c = tiny.ADAM
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    factor = jnp.minimum(1.0, c["clip_norm"] / norm)
    gradient = jax.tree.map(
        lambda g, p: factor * g + c["weight_decay"] * p, gradient, params
    )
    count = moments.count + 1
    mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments.mu, gradient)
    nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, moments.nu, gradient)

    def move(p, m, v):
        m, v = m / (1 - 0.9**count), v / (1 - 0.999**count)
        return p - c["learning_rate"] * m / (jnp.sqrt(v) + 1e-8)

    return jax.tree.map(move, params, mu, nu), (mu, nu), norm


@functools.partial(
    jax.jit,
    static_argnames=("module", "fixed", "score", "variant", "weight"),
)
def step(state, batch, critic, *, module, fixed, score, variant, weight):
    """What one step leaves behind, as plain trees.

    Args:
      state: before the step.
      batch: images and labels.
      critic: `(params, batch_stats)` of a past classifier, or None for the current.
      module: of the masker.
      fixed: whether the classifier is never updated (F).
      score: "entropy" or "classification".
      variant: "author" or "paper".
      weight: lambda.
    """
    x = batch["image"].astype(jnp.float32) / 255
    mean, std = (jnp.reshape(jnp.array(v), (1, 1, 1, 3)) for v in (MEAN, STD))
    x, y = (x - mean) / std, batch["label"]
    theta, bn = state.classifier.params, state.classifier.batch_stats
    trace = state.classifier.opt_state[2].trace
    phi, masker_bn = state.masker.params, state.masker.batch_stats

    # 1. the clean images: maps at the incoming weights, then a step on their loss
    logits, taps, new_bn = classify(theta, bn, x, not fixed)
    ok_clean = jnp.argmax(logits, 1) == y
    if not fixed and variant == "author":
        gradient = jax.grad(lambda p: cross_entropy(classify(p, bn, x, True)[0], y))(
            theta
        )
        theta, trace = sgd(theta, trace, gradient)
    bn = new_bn

    # 2. the mask
    masks, new_masker_bn = make_masks(module, phi, masker_bn, x, taps)
    hidden = x * (1 - masks[..., None])

    # 3. the masker's gradient, against the critic
    if critic is None:
        critic_params, critic_bn, critic_train = theta, bn, not fixed
    else:
        critic_params, critic_bn, critic_train = *critic, False

    def masker_loss(phi):
        masks, _ = make_masks(module, phi, masker_bn, x, taps)
        hidden = x * (1 - masks[..., None])
        logits = classify(critic_params, critic_bn, hidden, critic_train)[0]
        nc = ok_clean & (jnp.argmax(logits, 1) != y)
        ok = ok_clean
        if variant == "paper":
            nc, ok = jnp.ones_like(nc), jnp.ones_like(ok)
        regulariser = -weight * jnp.mean(jax.nn.relu(nc - masks.mean(axis=(1, 2))))
        p = jax.nn.softmax(logits)
        if score == "entropy":
            main = jnp.mean(jnp.sum(p * jnp.log(p), axis=1) * ok)
        else:
            main = -cross_entropy(logits, y)
        return main + regulariser, (nc.mean(), regulariser)

    gradient, (counted, regulariser) = jax.grad(masker_loss, has_aux=True)(phi)

    # 4. the classifier's gradient on the masked images, at the same weights
    if not fixed and (critic is None or variant == "paper"):
        classifier_gradient = jax.grad(
            lambda p: cross_entropy(classify(p, bn, hidden, True)[0], y)
        )(theta)
        _, _, new_bn = classify(theta, bn, hidden, True)
        theta, trace = sgd(theta, trace, classifier_gradient)
        bn = new_bn

    # 5. the masker's step
    phi, moments, norm = adam(phi, state.masker.opt_state[2], gradient)
    return {
        "classifier": {"params": theta, "batch_stats": bn, "trace": trace},
        "masker": {
            "params": phi,
            "batch_stats": new_masker_bn,
            "mu": moments[0],
            "nu": moments[1],
        },
        "counted": counted,
        "regulariser": regulariser,
        "clean_accuracy": ok_clean.mean(),
        "norm": norm,
    }


MEAN, STD = np.float32(IMAGENET_MEAN), np.float32(IMAGENET_STD)
