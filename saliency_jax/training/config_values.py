"""What the fields of a config may be."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

from saliency_jax import pool
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import OUTPUTS
from saliency_jax.models.selective_masker import UPSAMPLINGS
from saliency_jax.training import finite, sharding

STAGES = ("classifier", "casm", "black_box", "generator")

# The least and the greatest value of fields, by their whole or their last name: of
# those that count, and of those that need not be whole.
COUNTS = {
    "seed": (0, 2**32 - 1),
    "total_steps": (1, math.inf),
    "data.batch_size": (1, math.inf),
    "data.image_size": (1, 2**14),
    "data.holdout": (0, math.inf),
    "data.num_threads": (1, math.inf),
    "data.num_workers": (0, math.inf),
    "checkpoint.every": (1, math.inf),
    "checkpoint.keep_last": (1, math.inf),
    "log.every": (1, math.inf),
    "log.evaluate_every": (1, math.inf),
    "log.picture_every": (1, math.inf),
    "classifier.num_classes": (1, math.inf),
    "encoder.num_classes": (0, math.inf),
    "width": (0, math.inf),
    "masker.features": (1, math.inf),
    "casm.pool_slots": (1, math.inf),
    "masker.base": (4, math.inf),
    "selector.steps": (0, math.inf),
    "decoder.steps": (1, math.inf),
    "selector.batch_size": (1, math.inf),
    "decoder.batch_size": (1, math.inf),
    "generator.width": (1, math.inf),
    "generator.latent_size": (1, math.inf),
    "discriminator.width": (1, math.inf),
    "warmup_steps": (0, math.inf),
}
RANGES = {
    "width_multiplier": (0, math.inf),
    "epsilon": (0, math.inf),
    "classifier.label_smoothing": (0, 1),
    "casm.area_factor": (0, math.inf),
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
    "discriminator.real_label": (0, 1),
    "learning_rate": (0, math.inf),
    "momentum": (0, 1),
    "beta1": (0, 1),
    "weight_decay": (0, math.inf),
    "clip_norm": (0, math.inf),
    "decay_factor": (0, 1),
    "masker.confidence": (-math.inf, math.inf),
}

# What other fields may be.
CHOICES = {
    "stage": STAGES,
    "not_finite": finite.POLICIES,
    "classifier.output": OUTPUTS,
    "casm.pool_dtype": pool.DTYPES,
    "casm.pool_memory": sharding.MEMORIES,
    "masker.selector_init": ("random", "classifier"),
    "masker.upsampling": UPSAMPLINGS,
    "masker.pooling": ("mean", "max"),
}


NAMES = (
    "data.name",
    "data_dir",
    "network",
    "function",
    "init",
    "stem",
    "padding",
    "dtype",
    "masker.encoder",
    "masker.final_upsampling",
)
LISTS = {
    "data.class_names": (str, "a list of names"),
    "masker.taps": (int, "a list of whole numbers"),
}
COLOURS = ("data.mean", "data.std", "encoder.mean", "encoder.std")
"""Fields of three numbers, for the channels."""

SECTIONS = ("data", "classifier", "masker", "encoder", "generator", "discriminator")
"""Those whose fields are looked up in the config of a run that is loaded."""


def check_values(values: Mapping[str, Any]) -> None:
    """Checks a config's values.

    Args:
      values: by the names of their fields, such as "data.batch_size".

    Raises:
      InputError: for a value out of its range; it names the first.
    """
    if wrong := what_is_wrong(values):
        raise InputError(f"config.{wrong}")


def what_is_wrong(values: Mapping[str, Any]) -> str | None:
    """The first of a config's values that no run can have, and what was expected."""
    for name, value in values.items():
        if not _fits(name, value):
            return f"{name} = {value!r:.80}: expected {expectation(name)}"
    return None


def expectation(name: str) -> str | None:
    """What the field of that name has to be, None where it may be anything."""
    table, key = _find(name)
    if table is COUNTS or table is RANGES:
        low, high = table[key]
        expected = f"at least {low}" if high == math.inf else f"{low} to {high}"
        expected = "a number" if low == -math.inf else expected
        return f"{expected}, a whole number" if table is COUNTS else expected
    if table is CHOICES:
        return f"one of {CHOICES[key]}"
    if table is COLOURS:
        above = " above 0" if name.endswith("std") else ""
        return f"three numbers{above}, of red, green and blue in [0, 1]"
    if table is NAMES:
        return "text"
    return LISTS[key][1] if table is LISTS else None


def _find(name: str) -> tuple[Any, str]:
    """The table that has a field, by its whole or its last name, and that name."""
    for key in (name, name.rpartition(".")[2]):
        for table in (COUNTS, RANGES, CHOICES, NAMES, COLOURS, LISTS):
            if key in table:
                return table, key
    return None, name


def _fits(name: str, value: Any) -> bool:
    table, key = _find(name)
    if table is COUNTS or table is RANGES:
        low, high = table[key]
        kind = numbers.Integral if table is COUNTS else numbers.Real
        return _is_number(value, kind) and low <= value <= high
    if table is CHOICES:
        return value in CHOICES[key]
    if table is NAMES:
        return isinstance(value, str)
    if table is LISTS:
        kind = LISTS[key][0]
        return _is_list(value) and all(isinstance(item, kind) for item in value)
    if table is COLOURS:
        # Those of an encoder may be what its weights say.
        if name.startswith("encoder.") and _is_list(value) and not value:
            return True
        least = math.ulp(0) if name.endswith("std") else -math.inf
        return (
            _is_list(value)
            and len(value) == 3
            and all(_is_number(item) and least <= item < math.inf for item in value)
        )
    return True


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_number(value: Any, kind: type = numbers.Real) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
