"""One step of the `black_box` stage: the selector's phase, then the decoder's.

Dabkowski and Gal: Real time image saliency for black box classifiers (arXiv
1705.07857), in the two phases of the authors' code (PiotrDabkowski/pytorch-saliency).
First the selector learns to tell which class is in the image; then, with the selector
frozen, the decoder learns to draw masks. The encoder and the black box never change.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from saliency_jax import prng
from saliency_jax.masking import to_float
from saliency_jax.models.classifier import Classifier, normalise
from saliency_jax.models.selective_masker import SelectiveMasker, presence_logits
from saliency_jax.objectives import terms
from saliency_jax.objectives.black_box import BlackBoxOptions, black_box_loss
from saliency_jax.removal import RemovalOptions, remove_evidence
from saliency_jax.training.classifier_step import Metrics
from saliency_jax.training.labels import draw_classes, present_classes
from saliency_jax.training.optim import Optimiser
from saliency_jax.training.state import NetState, TrainState
from saliency_jax.types import Batch, Labels, Masks, PyTree

PHASES = ("selector", "decoder")


@dataclasses.dataclass(frozen=True)
class PhaseOptions:
    """What the two phases each have of their own.

    Attributes:
      optimiser: of what the phase trains; its schedule counts the phase's own steps.
      first_step: of the run at which the phase begins.
      fake_probability: how often a class that is not in the image is asked for.
    """

    optimiser: Optimiser
    first_step: int
    fake_probability: float


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """What the step needs to know besides its networks.

    Attributes:
      phases: by the names in `PHASES`.
      objective: of the decoder's phase.
      removal: of evidence, likewise.
      pooling: of the selector's scores, see `presence_logits`.
      confidence: of the masker while its decoder is trained, see `FeatureFilter`.
      encoder_mean: of each channel of the encoder's input, for images in [0, 1].
      encoder_std: likewise.
      seed: of the run.
    """

    phases: Mapping[str, PhaseOptions]
    objective: BlackBoxOptions
    removal: RemovalOptions
    pooling: str
    confidence: float
    encoder_mean: tuple[float, ...]
    encoder_std: tuple[float, ...]
    seed: int


def split_decoder(params: PyTree) -> dict[str, PyTree]:
    """The parameters that each phase trains, by its name."""
    decoder = params["decoder"]
    rest = {name: tree for name, tree in decoder.items() if name != "selector"}
    return {"selector": decoder["selector"], "decoder": rest}


def join_decoder(params: PyTree, parts: Mapping[str, PyTree]) -> PyTree:
    """`params` with the parts of `split_decoder` put back."""
    return {**params, "decoder": {**parts["decoder"], "selector": parts["selector"]}}


def init_masker(variables: PyTree, phases: Mapping[str, PhaseOptions]) -> NetState:
    """A masker at the start of its training, with an optimiser's state per phase."""
    parts = split_decoder(variables["params"])
    opt_state = {
        name: phases[name].optimiser.direction.init(parts[name]) for name in PHASES
    }
    return NetState(variables["params"], variables["batch_stats"], opt_state)


def make_black_box_step(
    black_box: Callable[[NetState], Classifier],
    masker: SelectiveMasker,
    options: StepOptions,
) -> Callable[[TrainState, Batch, str], tuple[TrainState, Metrics]]:
    """Returns the pure `step(state, batch, phase) -> (state, metrics)`.

    Make `phase`, one of `PHASES`, static: each is compiled once.

    Args:
      black_box: from `TrainState.classifier` to the frozen classifier.
      masker: encoder and decoder.
      options: of the run.
    """

    def descend(
        state: TrainState,
        phase: str,
        parts: dict[str, PyTree],
        gradients: PyTree,
        batch_stats: PyTree,
    ) -> TrainState:
        net, own = state.masker, options.phases[phase]
        trained, opt_state = own.optimiser.update(
            gradients, net.opt_state[phase], parts[phase], state.step - own.first_step
        )
        net = NetState(
            join_decoder(net.params, {**parts, phase: trained}),
            batch_stats,
            {**net.opt_state, phase: opt_state},
        )
        return state.replace(step=state.step + 1, masker=net)

    def select(
        state: TrainState, batch: Batch, asked: Labels, is_real: Bool[Array, "B"]
    ) -> tuple[TrainState, Metrics]:
        """The selector against the question whether the class is there."""
        inputs = normalise(batch["image"], options.encoder_mean, options.encoder_std)
        net = state.masker
        parts = split_decoder(net.params)

        def loss_fn(selector: PyTree):
            params = join_decoder(net.params, {**parts, "selector": selector})
            variables = {"params": params, "batch_stats": net.batch_stats}
            _, scores = masker.apply(variables, inputs, asked, False)
            logits = presence_logits(scores, options.pooling)
            truth = is_real.astype(jnp.int32)
            right = terms.is_correct(logits, truth)
            return jnp.mean(terms.cross_entropy(logits, truth)), jnp.mean(right)

        (loss, accuracy), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            parts["selector"]
        )
        state = descend(state, "selector", parts, gradients, net.batch_stats)
        return state, {"loss": loss, "presence_accuracy": accuracy}

    def draw(
        state: TrainState,
        batch: Batch,
        asked: Labels,
        labels: Labels,
        is_real: Bool[Array, "B"],
    ) -> tuple[TrainState, Metrics]:
        """The decoder against the black box."""
        images = to_float(batch["image"])
        inputs = normalise(images, options.encoder_mean, options.encoder_std)
        net, classifier = state.masker, black_box(state.classifier)
        parts = split_decoder(net.params)
        key = prng.stream_key(jax.random.key(options.seed), "removal", state.step)
        key_kept, key_removed = jax.random.split(key)

        def ask(masks: Masks) -> tuple[Array, Array]:
            kept = remove_evidence(key_kept, images, masks, options.removal)
            rest = remove_evidence(key_removed, images, 1.0 - masks, options.removal)
            return classifier(kept), classifier(rest)

        def loss_fn(decoder: PyTree):
            params = join_decoder(net.params, {**parts, "decoder": decoder})
            variables = {"params": params, "batch_stats": net.batch_stats}
            (masks, _), updates = masker.apply(
                variables,
                inputs,
                asked,
                True,
                options.confidence,
                mutable=["batch_stats"],
            )
            kept, rest = ask(masks)
            losses, parts_of_loss = black_box_loss(
                masks,
                kept,
                rest,
                labels,
                is_real,
                options.objective,
                classifier.output,
            )
            metrics = {name: jnp.mean(value) for name, value in parts_of_loss.items()}
            of_real = lambda x: jnp.sum(x * is_real) / jnp.maximum(jnp.sum(is_real), 1)
            of_fake = lambda x: (
                jnp.sum(x * ~is_real) / jnp.maximum(jnp.sum(~is_real), 1)
            )
            right = lambda x: terms.is_correct(x, labels, classifier.output)
            area = jnp.mean(masks, axis=(1, 2))
            metrics |= {
                "kept_accuracy": of_real(right(kept)),
                "removed_accuracy": of_real(right(rest)),
                "mask_mean": of_real(area),
                "fake_mask_mean": of_fake(area),
            }
            batch_stats = {**net.batch_stats, **updates.get("batch_stats", {})}
            return jnp.mean(losses), (metrics, batch_stats)

        (loss, (metrics, batch_stats)), gradients = jax.value_and_grad(
            loss_fn, has_aux=True
        )(parts["decoder"])
        state = descend(state, "decoder", parts, gradients, batch_stats)
        return state, {"loss": loss} | metrics

    def step(state: TrainState, batch: Batch, phase: str) -> tuple[TrainState, Metrics]:
        own = options.phases[phase]
        key = prng.stream_key(jax.random.key(options.seed), "fakes", state.step)
        several = black_box(state.classifier).output == "sigmoid"
        known = batch if several else {"label": batch["label"]}
        present = present_classes(known, masker.decoder.num_classes)
        asked, labels, is_real = draw_classes(
            key, batch["label"], present, own.fake_probability
        )
        rate = own.optimiser.learning_rate(state.step - own.first_step)
        if phase == "selector":
            state, metrics = select(state, batch, asked, is_real)
        else:
            state, metrics = draw(state, batch, asked, labels, is_real)
        return state, metrics | {"learning_rate": rate}

    return step
