"""Every stage takes a VGG and the small network; traced, not run."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from configs import black_box_shapes, casm_shapes, classifier_small_cnn
from saliency_jax.errors import InputError
from saliency_jax.models import create
from saliency_jax.models.vgg import BACKBONES as VGG_BACKBONES
from saliency_jax.models.vgg import VGG
from saliency_jax.training import (
    black_box_stage,
    casm_stage,
    classifier_stage,
    encoder,
    run_folder,
)

SIZE, CLASSES, BATCH = 64, 7, 4
NETWORKS = ("vgg5", "small_cnn")


@pytest.fixture(autouse=True)
def short_vgg(monkeypatch):
    """A VGG of five convolutions, to trace faster."""
    short = VGG_BACKBONES["vgg11"]._replace(create=partial(VGG, (1, 1, 1, 1, 1), True))
    monkeypatch.setitem(create.BACKBONES, "vgg5", short)


def resolved(config, network, tmp_path):
    """The config as a run has it that starts from fresh networks."""
    config.classifier.network, config.classifier.stem = network, ""
    config.classifier.width = 4
    config.data.image_size = SIZE
    run_folder.resolve(config, CLASSES)
    if config.stage == "black_box":
        encoder.resolve_encoder(config, tmp_path / "nowhere")
    return config


def state_of(stage):
    return jax.eval_shape(lambda key: stage.init_state(key, {}), jax.random.key(0))


def masks_of(stage, state, *arguments):
    images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8)
    call = lambda state, images: stage.model(state)(images, *arguments)
    return jax.eval_shape(call, state, images)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_casm_masker(network, tmp_path):
    config = resolved(casm_shapes.get_config("L2,smoke"), network, tmp_path)
    stage = casm_stage.create_stage(config)
    state = state_of(stage)
    masks = masks_of(stage, state)
    assert masks.shape == (BATCH, SIZE, SIZE) and masks.dtype == jnp.float32
    # All five maps; the first enters as it is.
    assert {f"conv_{i}" for i in (1, 2, 3, 4)} < state.masker.params.keys()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_masker_of_a_class(network, tmp_path):
    config = resolved(black_box_shapes.get_config("smoke"), network, tmp_path)
    assert config.encoder.network == network
    stage = black_box_stage.create_stage(config)
    masks = masks_of(stage, state_of(stage), jnp.zeros(BATCH, jnp.int32))
    assert masks.shape == (BATCH, SIZE, SIZE) and masks.dtype == jnp.float32


STAGES = {
    "classifier": (classifier_stage, partial(classifier_small_cnn.get_config, "smoke")),
    "casm": (casm_stage, partial(casm_shapes.get_config, "L2,smoke")),
    "black_box": (black_box_stage, partial(black_box_shapes.get_config, "smoke")),
}


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", STAGES)
def test_every_form_of_a_step_keeps_the_shapes_of_a_state(name, network, tmp_path):
    module, get_config = STAGES[name]
    config = resolved(get_config(), network, tmp_path)
    stage = module.create_stage(config)
    state = state_of(stage)
    batch = {
        "image": jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((BATCH,), jnp.int32),
    }
    for form in {stage.form(step) for step in range(config.total_steps)}:
        step = lambda state, batch, form=form: stage.step(state, batch, *form)
        after, metrics = jax.eval_shape(step, state, batch)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
        assert all(figure.shape == () for figure in metrics.values())


@pytest.mark.parametrize("network", NETWORKS)
def test_a_selector_that_starts_as_the_last_layer(network, tmp_path):
    """The small network's reads the coarsest map; a VGG's reads hidden units."""
    config = black_box_shapes.get_config("smoke")
    config.masker.selector_init = "classifier"
    stage = black_box_stage.create_stage(resolved(config, network, tmp_path))
    init = lambda key: stage.init_state(key, {}).masker.params["decoder"]["selector"]
    if network == "small_cnn":
        selector = jax.eval_shape(init, jax.random.key(0))
        assert selector["embedding"].shape == (CLASSES, 32)
        return
    expected = r"weights \[7, 256\], the selector needs \[7, 32\]"
    with pytest.raises(InputError, match=expected):
        jax.eval_shape(init, jax.random.key(0))


def test_the_config_of_the_small_network():
    config = classifier_small_cnn.get_config()
    run_folder.resolve(config, CLASSES)
    options = ("network", "width", "stem", "epsilon")
    filed = [config.classifier[name] for name in options]
    assert filed == ["small_cnn", 32, "", 1e-5]
    smoke = classifier_small_cnn.get_config("smoke")
    run_folder.resolve(smoke, CLASSES)
    assert smoke.classifier.network == "small_cnn" and smoke.classifier.width == 8
