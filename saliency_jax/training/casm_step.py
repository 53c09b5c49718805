"""One step of the `casm` stage: the classifier and the masker against each other.

Zolna, Geras and Cho, "Classifier-agnostic saliency map extraction" (arXiv 1805.08249),
Algorithm 1, and the authors' code, which differs from it (see `variant`).
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from saliency_jax import pool as pools
from saliency_jax import prng
from saliency_jax.errors import InputError
from saliency_jax.masking import mask_area, masked_out, mean_infill, to_float
from saliency_jax.models.classifier import normalise
from saliency_jax.models.create import masker_arguments
from saliency_jax.objectives import casm, terms
from saliency_jax.pool import ClassifierPool
from saliency_jax.training.classifier_step import Metrics
from saliency_jax.training.optim import Optimiser
from saliency_jax.training.state import NetState, TrainState, descend
from saliency_jax.types import Batch, Labels, Masks, PyTree


@dataclasses.dataclass(frozen=True)
class CasmOptions:
    """What the step needs to know besides its networks.

    Attributes:
      thinning: which past classifiers exist and how often one is the critic.
      score: "entropy" or "classification"; see `objectives.casm.score_term`.
      area_weight: lambda, as it is (already scaled to the number of classes).
      variant: "author" follows the authors' code. "paper" is Algorithm 1 as printed:
        the classifier learns from masked images only, in every step; the critic is
        drawn uniformly from the current classifier and all stored ones, the first
        included and never replaced; no gates.
      mean: of each channel, for images in [0, 1]; also the colour of removed pixels.
      std: of each channel, for images in [0, 1].
      seed: of the run.

    Raises:
      InputError: for an unknown score or variant.
    """

    thinning: casm.Thinning
    score: str
    area_weight: float
    variant: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    seed: int

    def __post_init__(self) -> None:
        for name, known in (("score", casm.SCORES), ("variant", casm.VARIANTS)):
            if (value := getattr(self, name)) not in known:
                raise InputError(f"unknown {name} {value!r}: expected one of {known}")


def init_pool(
    classifier: NetState, slots: int, options: CasmOptions, dtype: str = "float32"
) -> ClassifierPool | None:
    """The pool at the start of a run, or None where the critic is never a past one.

    A strategy that keeps only the first classifier has one slot, whatever `slots` says.

    The paper's variant holds the first iterate from the start; the author's code fills
    its first slot after the first classifier update.
    """
    if options.thinning.historic_probability == 0.0:
        return None
    params, batch_stats = classifier.params, classifier.batch_stats
    slots = slots if options.thinning.save_every else 1
    pool = pools.init_pool(params, batch_stats, slots, dtype)
    if options.variant == "author":
        return pool
    key = prng.stream_key(jax.random.key(options.seed), "pool_slot")
    return pools.push(pool, params, batch_stats, step=0, key=key)


def critic_is_historic(options: CasmOptions, slots: int, step: int) -> bool:
    """Flips the coin between the current classifier and a past one as the critic.

    A function of the seed and the step only, on the host: see `make_casm_step`.

    Args:
      options: of the run.
      slots: of its pool.
      step: the training step.
    """
    thinning = options.thinning
    if thinning.historic_probability == 0.0:
        return False
    chance = thinning.historic_probability
    if options.variant == "paper":
        every = thinning.save_every
        stored = min(1 + max(step - 1, 0) // every, slots) if every else 1
        chance = stored / (stored + 1)
    return prng.host_generator(options.seed, "critic", step).random() < chance


def make_casm_step(
    classifier: nn.Module,
    masker: nn.Module,
    classifier_optimiser: Optimiser,
    masker_optimiser: Optimiser,
    options: CasmOptions,
) -> Callable[[TrainState, Batch, bool], tuple[TrainState, Metrics]]:
    """Returns the pure `step(state, batch, historic) -> (state, metrics)`.

    `historic` says whether the critic is a draw from the pool. Make it static: the two
    forms are compiled once each, and which past classifier is drawn is an index, so
    that no draw recompiles. (A `lax.cond` would be one form, but XLA's CPU backend runs
    a convolution's weight gradient sixty times slower inside one.)

    The order within a step: the maps and the clean gradient at the incoming weights;
    the clean update; then the masked classifier's gradient and the masker's gradient,
    both at the weights after the clean update; then both updates.
    """
    thinning, author = options.thinning, options.variant == "author"
    infill = mean_infill(options.mean)

    def classify(
        params: PyTree, batch_stats: PyTree, inputs: Array, train: bool
    ) -> tuple[Array, tuple, PyTree]:
        variables = {"params": params, "batch_stats": batch_stats}
        if not train:
            return *classifier.apply(variables, inputs, False), batch_stats
        (logits, taps), updates = classifier.apply(
            variables, inputs, True, mutable=["batch_stats"]
        )
        return logits, taps, updates.get("batch_stats", {})

    def clean_pass(net: NetState, inputs: Array, labels: Labels, step: Array):
        """The maps at the incoming weights; the classifier after the clean update."""
        if thinning.fixed_classifier:
            logits, taps, _ = classify(net.params, net.batch_stats, inputs, False)
            return net, logits, taps

        def loss_fn(params, batch_stats):
            logits, taps, new_stats = classify(params, batch_stats, inputs, True)
            return jnp.mean(terms.cross_entropy(logits, labels)), (
                logits,
                taps,
                new_stats,
            )

        if not author:
            _, (logits, taps, new_stats) = loss_fn(net.params, net.batch_stats)
            return net.replace(batch_stats=new_stats), logits, taps
        gradients, (logits, taps, new_stats) = jax.grad(loss_fn, has_aux=True)(
            net.params, net.batch_stats
        )
        net = descend(net, gradients, new_stats, classifier_optimiser, step)
        return net, logits, taps

    def store(pool: ClassifierPool, net: NetState, updates: Array, key: Array):
        """Pushes the classifier of so many updates when the thinning strategy says."""
        every = thinning.save_every
        due = (updates % every == 0) & (updates > 0) if every else jnp.zeros((), bool)
        return pools.push(
            pool,
            net.params,
            net.batch_stats,
            step=updates,
            key=key,
            when=due | (pool.count == 0),
            keep_first=not author,
        )

    def step(
        state: TrainState, batch: Batch, historic: bool
    ) -> tuple[TrainState, Metrics]:
        root = jax.random.key(options.seed)
        images, labels = to_float(batch["image"]), batch["label"]
        inputs = normalise(images, options.mean, options.std)

        # --- The classifier on clean images ------------------------------------------
        net, clean_logits, taps = clean_pass(
            state.classifier, inputs, labels, state.step
        )
        clean_correct = terms.is_correct(clean_logits, labels)
        pool, slot_key = state.pool, prng.stream_key(root, "pool_slot", state.step)
        if pool is not None and author:
            pool = store(pool, net, state.step + 1, slot_key)

        # --- The mask ----------------------------------------------------------------
        arguments = masker_arguments(masker, inputs, jax.lax.stop_gradient(taps))

        def mask_fn(params):
            variables = {"params": params, "batch_stats": state.masker.batch_stats}
            masks, updates = masker.apply(
                variables, *arguments, True, mutable=["batch_stats"]
            )
            return masks, updates.get("batch_stats", {})

        masks, masks_vjp, masker_stats = jax.vjp(
            mask_fn, state.masker.params, has_aux=True
        )

        # --- The critic's answer to the masked-out images ----------------------------
        def hide(masks: Masks) -> Array:
            hidden = masked_out(images, masks, infill)
            return normalise(hidden, options.mean, options.std)

        def objective(logits: Array, masks: Masks) -> tuple[Array, Metrics]:
            score, area, counted = casm.masker_loss(
                logits,
                masks,
                labels,
                clean_correct,
                score=options.score,
                weight=options.area_weight,
                variant=options.variant,
            )
            return jnp.mean(score + area), {
                "masker_score": jnp.mean(score),
                "masker_area_term": jnp.mean(area),
                "counted": jnp.mean(counted),
                "masked_loss": jnp.mean(terms.cross_entropy(logits, labels)),
                "masked_accuracy": jnp.mean(terms.is_correct(logits, labels)),
            }

        objective_grad = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)

        def against_current(net: NetState):
            """The critic is the current classifier, which learns from its answer."""

            def critic_fn(params, masks):
                logits, _, new_stats = classify(
                    params, net.batch_stats, hide(masks), not thinning.fixed_classifier
                )
                return logits, new_stats

            # One forward pass serves both gradients, so both are at the same weights.
            logits, critic_vjp, new_stats = jax.vjp(
                critic_fn, net.params, masks, has_aux=True
            )
            (loss, metrics), (logit_grad, area_grad) = objective_grad(logits, masks)
            mask_grad = critic_vjp(logit_grad)[1] + area_grad
            if not thinning.fixed_classifier:
                masked_loss = lambda l: jnp.mean(terms.cross_entropy(l, labels))
                gradients = critic_vjp(jax.grad(masked_loss)(logits))[0]
                net = descend(
                    net, gradients, new_stats, classifier_optimiser, state.step
                )
            return net, mask_grad, metrics | {"masker_loss": loss}

        def against_historic(net: NetState):
            """The critic is a past classifier, which does not change."""
            params, batch_stats = pools.draw(
                pool, prng.stream_key(root, "pool_draw", state.step)
            )

            def loss_fn(masks):
                logits, _, _ = classify(params, batch_stats, hide(masks), False)
                return objective(logits, masks)

            (loss, metrics), mask_grad = jax.value_and_grad(loss_fn, has_aux=True)(
                masks
            )
            if not author:
                net = against_current(net)[0]
            return net, mask_grad, metrics | {"masker_loss": loss}

        play = against_historic if historic else against_current
        net, mask_grad, metrics = play(net)
        if pool is not None and not author:
            # Only now that it is a past one, so that no draw could meet it twice.
            pool = store(pool, state.classifier, state.step, slot_key)

        # --- The masker --------------------------------------------------------------
        masker_net = descend(
            state.masker,
            masks_vjp(mask_grad)[0],
            masker_stats,
            masker_optimiser,
            state.step,
        )
        metrics |= {
            "clean_loss": jnp.mean(terms.cross_entropy(clean_logits, labels)),
            "clean_accuracy": jnp.mean(clean_correct),
            "mask_mean": jnp.mean(masks),
            "mask_area_std": jnp.std(mask_area(masks)),
            "historic": jnp.asarray(historic, jnp.float32),
            "learning_rate": masker_optimiser.learning_rate(state.step),
        }
        state = TrainState(state.step + 1, net, masker_net, pool)
        return state, metrics

    return step
