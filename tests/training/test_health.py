"""Warnings, by the figures of intervals that a test makes up."""

import math

import pytest

from configs import (
    black_box_shapes,
    casm_imagenet,
    casm_shapes,
    classifier_shapes,
    generator_shapes,
)
from saliency_jax.training import health


def config_of(module, arg="", **changed):
    config = module.get_config(arg)
    if "classifier" in config:
        config.classifier.num_classes = 10
    config.update_from_flattened_dict(changed)
    return config


@pytest.mark.parametrize(
    ("module", "bad", "good", "message"),
    [
        (classifier_shapes, {"loss": 2.5}, {"loss": 2.4}, "loss is above 2.42, worse"),
        (
            casm_shapes,
            {"clean_loss": 3.0},
            {"masked_loss": 3.0},
            "classifier.optimiser",
        ),
        (casm_shapes, {"mask_mean": 0.004}, {"mask_mean": 0.1}, "lower config.casm."),
        (casm_shapes, {"mask_mean": 0.999}, {"mask_mean": 0.9}, "raise config.casm."),
        (
            black_box_shapes,
            {"mask_mean": 0.999},
            {"presence_accuracy": 0.5},
            "full and hide the whole image: raise config.black_box.area_weight",
        ),
        (
            generator_shapes,
            {"fake_probability": 0.01, "real_probability": 0.99},
            {"fake_probability": 0.01, "real_probability": 0.9},
            "lower config.discriminator.optimiser.learning_rate",
        ),
    ],
)
def test_it_is_said_once_for_as_long_as_it_is_so(module, bad, good, message):
    warnings = health.watch(config_of(module))
    assert [warnings(bad), warnings(bad)] == [[], []]
    (words,) = warnings(bad)
    assert message in words
    assert [warnings(bad), warnings(good), warnings(bad), warnings(bad)] == [[]] * 4
    assert warnings(bad) == [words]


def test_what_is_as_it_should_be():
    warnings = health.watch(config_of(casm_shapes))
    values = {"clean_loss": math.log(10), "mask_mean": 0.2, "masked_loss": 9.0}
    assert [warnings(values) for _ in range(5)] == [[]] * 5
    independent = config_of(classifier_shapes, **{"classifier.output": "sigmoid"})
    assert [health.watch(independent)({"loss": 99.0}) for _ in range(5)] == [[]] * 5


@pytest.mark.parametrize(
    ("arg", "steps", "kept"),
    [
        ("L1000", 120_180, None),
        ("L1000", 28_999, 29),
        ("L1000", 29_000, None),
        ("L100", 399, 4),
        ("L100", 400, 5),
        ("FL", 400, None),
        ("F", 400, None),
        ("L", 400, None),
    ],
)
def test_how_full_the_pool_will_be(arg, steps, kept):
    told = health.pool_outlook(config_of(casm_imagenet, arg, total_steps=steps))
    assert (told is None) == (kept is None)
    assert kept is None or f"never has more than {kept}: choose" in told
