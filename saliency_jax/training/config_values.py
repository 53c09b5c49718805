"""What the fields of a config may be."""

import math
from collections.abc import Mapping
from typing import Any

from saliency_jax import pool
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import OUTPUTS
from saliency_jax.models.selective_masker import UPSAMPLINGS
from saliency_jax.training import finite, sharding

# The least and the greatest value of fields, by their whole or their last name.
RANGES = {
    "seed": (0, 2**32 - 1),
    "total_steps": (1, math.inf),
    "data.batch_size": (1, math.inf),
    "data.image_size": (1, math.inf),
    "data.holdout": (0, math.inf),
    "data.num_threads": (1, math.inf),
    "data.num_workers": (0, math.inf),
    "checkpoint.every": (1, math.inf),
    "checkpoint.keep_last": (1, math.inf),
    "log.every": (1, math.inf),
    "log.evaluate_every": (1, math.inf),
    "log.picture_every": (1, math.inf),
    "width": (0, math.inf),
    "width_multiplier": (0, math.inf),
    "epsilon": (0, math.inf),
    "classifier.label_smoothing": (0, 1),
    "masker.features": (1, math.inf),
    "casm.area_factor": (0, math.inf),
    "casm.pool_slots": (1, math.inf),
    "masker.base": (4, math.inf),
    "selector.steps": (0, math.inf),
    "decoder.steps": (1, math.inf),
    "selector.batch_size": (1, math.inf),
    "decoder.batch_size": (1, math.inf),
    "fake_probability": (0, 1),
    "black_box.area_weight": (0, math.inf),
    "black_box.area_power": (0, math.inf),
    "black_box.area_offset": (0, math.inf),
    "black_box.smoothness_weight": (0, math.inf),
    "black_box.border_weight": (0, math.inf),
    "black_box.preserver_weight": (0, math.inf),
    "black_box.destroyer_weight": (0, math.inf),
    "black_box.destroyer_power": (0, math.inf),
    "black_box.strong_margin": (0, math.inf),
    "black_box.weak_margin": (0, math.inf),
    "removal.blur_probability": (0, 1),
    "removal.blur_sigma": (0, math.inf),
    "removal.blur_reach": (0, math.inf),
    "removal.colour_range": (0, 0.5),
    "removal.noise": (0, math.inf),
    "removal.image_noise": (0, math.inf),
    "generator.width": (1, math.inf),
    "generator.latent_size": (1, math.inf),
    "discriminator.width": (1, math.inf),
    "discriminator.real_label": (0, 1),
    "learning_rate": (0, math.inf),
    "momentum": (0, 1),
    "beta1": (0, 1),
    "weight_decay": (0, math.inf),
    "clip_norm": (0, math.inf),
    "warmup_steps": (0, math.inf),
    "decay_factor": (0, 1),
}

# What other fields may be.
CHOICES = {
    "not_finite": finite.POLICIES,
    "classifier.output": OUTPUTS,
    "casm.pool_dtype": pool.DTYPES,
    "casm.pool_memory": sharding.MEMORIES,
    "masker.selector_init": ("random", "classifier"),
    "masker.upsampling": UPSAMPLINGS,
    "masker.pooling": ("mean", "max"),
}


def check_values(values: Mapping[str, Any]) -> None:
    """Checks a config's values.

    Args:
      values: by the names of their fields, such as "data.batch_size".

    Raises:
      InputError: for a value out of its range; it names the first.
    """
    for name, value in values.items():
        limits = RANGES.get(name) or RANGES.get(name.rpartition(".")[2])
        if limits and not limits[0] <= value <= limits[1]:
            low, high = limits
            expected = f"at least {low}" if high == math.inf else f"{low} to {high}"
            raise InputError(f"config.{name} = {value}: expected {expected}")
        if value not in CHOICES.get(name, (value,)):
            raise InputError(
                f"config.{name} = {value!r}: expected one of {CHOICES[name]}"
            )
    for name in ("data.mean", "data.std", "encoder.mean", "encoder.std"):
        is_optional = name.startswith("encoder.")  # as its weights say
        if name not in values or (is_optional and not values[name]):
            continue
        numbers, is_std = values[name], name.endswith("std")
        if len(numbers) != 3 or (is_std and min(numbers) <= 0):
            above = " above 0" if is_std else ""
            raise InputError(
                f"config.{name} = {numbers}: expected three numbers{above}, of "
                "red, green and blue in [0, 1]"
            )
