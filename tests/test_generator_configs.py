"""The experiments of the stage `generator`, and its published constants."""

import importlib

import pytest

from saliency_jax.errors import InputError
from saliency_jax.training import generator_stage, run_folder
from saliency_jax.training.optim import create_optimiser

EXPERIMENTS = ("shapes", "tiny_imagenet")


def config_of(experiment, arg=""):
    return importlib.import_module(f"configs.generator_{experiment}").get_config(arg)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("arg", ["", "smoke"])
def test_every_experiment_makes_a_stage(experiment, arg):
    config = config_of(experiment, arg)
    run_folder.resolve(config, 10)
    stage = generator_stage.create_stage(config)
    assert [phase.steps for phase in stage.phases] == [config.total_steps]
    assert config.checkpoint.every < config.total_steps
    assert (config.total_steps <= 10) == (arg == "smoke")
    if arg == "smoke":
        assert config.data.image_size <= 32 and config.data.batch_size <= 8
        assert config.generator.width <= 4 and config.discriminator.width <= 4


def test_published_constants():
    config = config_of("tiny_imagenet")
    assert config.data.batch_size == 64 and config.data.image_size == 64
    assert config.generator.latent_size == 100 and config.generator.width == 128
    assert config.discriminator.width == 64 and config.discriminator.real_label == 0.9
    for name in ("generator", "discriminator"):
        optimiser = config[name].optimiser
        assert (optimiser.name, optimiser.beta1) == ("adam", 0.5)
        rate = create_optimiser(optimiser, config.total_steps).learning_rate
        assert float(rate(config.total_steps - 1)) == pytest.approx(2e-4)
    config.generator.optimiser.beta1 = 0.1  # not shared
    assert config.discriminator.optimiser.beta1 == 0.5


def test_unknown_arguments_are_named():
    with pytest.raises(InputError, match="'mini': expected one of .*'smoke'"):
        config_of("shapes", "mini")
