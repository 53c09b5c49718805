"""Optimisers in PyTorch's update order, whose schedule reads the training step."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from saliency_jax.errors import InputError
from saliency_jax.types import PyTree


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """A direction and a learning rate.

    The rate is a function of the training step and not of the optimiser's own count,
    because CASM updates its classifier once in some steps and twice in others.
    """

    direction: optax.GradientTransformation
    learning_rate: optax.Schedule

    def update(
        self, gradients: PyTree, opt_state: optax.OptState, params: PyTree, step: Any
    ) -> tuple[PyTree, optax.OptState]:
        """Returns `(params, opt_state)` after one descent step."""
        updates, opt_state = self.direction.update(gradients, opt_state, params)
        rate = self.learning_rate(step)
        updates = jax.tree.map(lambda update: -rate * update, updates)
        return optax.apply_updates(params, updates), opt_state


def create_optimiser(
    config: Mapping[str, Any] | ConfigDict, total_steps: int
) -> Optimiser:
    """Builds the optimiser that a config section describes.

    Weight decay is PyTorch's coupled L2 on every parameter: after the clipping, before
    momentum or Adam.

    Args:
      config: `name` ("sgd" or "adam"), `learning_rate`, `momentum` (sgd), `beta1`
        (adam; 0.9 where it is absent), `weight_decay`, `clip_norm` (0 = none),
        `schedule` ("constant", "step" or "cosine"), and the schedule's `warmup_steps`,
        `decay_every`, `decay_factor`.
      total_steps: where a cosine schedule ends.

    Raises:
      InputError: for an unknown name or schedule, one that lacks its steps, or a
        warm-up that never ends.
    """
    if config["name"] == "sgd":
        direction = optax.trace(decay=config["momentum"])
    elif config["name"] == "adam":
        direction = optax.scale_by_adam(b1=config.get("beta1", 0.9))
    else:
        raise InputError(
            f"unknown optimiser {config['name']!r}: expected 'sgd' or 'adam'"
        )
    clip = config["clip_norm"]
    chain = optax.chain(
        optax.clip_by_global_norm(clip) if clip else optax.identity(),
        optax.add_decayed_weights(config["weight_decay"]),
        direction,
    )
    return Optimiser(chain, create_schedule(config, total_steps))


def create_schedule(
    config: Mapping[str, Any] | ConfigDict, total_steps: int
) -> optax.Schedule:
    """Builds the learning rate over steps; see `create_optimiser`."""
    peak, warmup = config["learning_rate"], config["warmup_steps"]
    if warmup >= total_steps:
        raise InputError(
            f"optimiser.warmup_steps = {warmup} of total_steps = {total_steps}: the "
            "learning rate would never reach its peak; give fewer"
        )
    if config["schedule"] == "constant":
        main = optax.constant_schedule(peak)
    elif config["schedule"] == "step":
        if config["decay_every"] < 1:
            raise InputError(
                f"optimiser.decay_every = {config['decay_every']}: the schedule 'step' "
                "needs at least 1"
            )
        main = optax.exponential_decay(
            peak, config["decay_every"], config["decay_factor"], staircase=True
        )
    elif config["schedule"] == "cosine":
        main = optax.cosine_decay_schedule(peak, total_steps - warmup)
    else:
        raise InputError(
            f"unknown schedule {config['schedule']!r}: expected 'constant', 'step' or "
            "'cosine'"
        )
    if not warmup:
        return main
    ramp = optax.linear_schedule(0.0, peak, warmup)
    return optax.join_schedules([ramp, main], [warmup])
