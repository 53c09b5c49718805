"""Every stage takes a VGG and the small network; traced, not run."""

import jax
import jax.numpy as jnp
import pytest

from configs import black_box_shapes, casm_shapes, classifier_small_cnn
from saliency_jax.errors import InputError
from saliency_jax.training import (
    black_box_stage,
    casm_stage,
    classifier_stage,
    encoder,
    run_folder,
)

SIZE, CLASSES, BATCH = 64, 7, 4
SCALES = {"vgg11": (4, 32), "vgg11_bn": (4, 32), "small_cnn": (2, 16)}  # finest, last


def resolved(config, network, tmp_path):
    """The config as a run has it that starts from fresh networks."""
    config.classifier.network, config.classifier.stem = network, ""
    config.classifier.width = 4
    config.data.image_size = SIZE
    run_folder.resolve(config, CLASSES)
    if config.stage == "black_box":
        encoder.resolve_encoder(config, tmp_path / "nowhere")
    return config


def traced(stage, config):
    """The shapes of a state, and of it and the figures after each form of the step."""
    batch = {
        "image": jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((BATCH,), jnp.int32),
    }
    state = jax.eval_shape(lambda key: stage.init_state(key, {}), jax.random.key(0))
    forms = {stage.form(step) for step in range(config.total_steps)}
    for form in forms:
        step = lambda state, batch, form=form: stage.step(state, batch, *form)
        after, metrics = jax.eval_shape(step, state, batch)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
        assert metrics["loss"].shape == () if "loss" in metrics else metrics
    return state, len(forms)


def masks_of(stage, state, *arguments):
    images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.uint8)
    call = lambda state, images: stage.model(state)(images, *arguments)
    return jax.eval_shape(call, state, images)


@pytest.mark.parametrize("network", SCALES)
@pytest.mark.parametrize("kind", ["shared", "own"])
def test_a_casm_masker(network, kind, tmp_path):
    config = casm_shapes.get_config("L2,smoke")
    config.masker.encoder = kind
    config = resolved(config, network, tmp_path)
    stage = casm_stage.create_stage(config)
    state, forms = traced(stage, config)
    assert forms == 2  # against the present classifier and a past one
    masks = masks_of(stage, state)
    assert masks.shape == (BATCH, SIZE, SIZE) and masks.dtype == jnp.float32
    decoder = state.masker.params
    decoder = decoder["decoder"] if kind == "own" else decoder
    assert {f"conv_{i}" for i in (1, 2, 3, 4)} <= decoder.keys()  # all five maps


@pytest.mark.parametrize("network", SCALES)
def test_a_masker_of_a_class(network, tmp_path):
    config = resolved(black_box_shapes.get_config("smoke"), network, tmp_path)
    assert config.encoder.network == network
    stage = black_box_stage.create_stage(config)
    state, forms = traced(stage, config)
    assert forms == 2  # the selector, then the decoder
    masks = masks_of(stage, state, jnp.zeros(BATCH, jnp.int32))
    assert masks.shape == (BATCH, SIZE, SIZE) and masks.dtype == jnp.float32


def test_a_selector_that_starts_as_the_last_layer(tmp_path):
    """The small network's reads the coarsest map; a VGG's reads hidden units."""
    for network in ("small_cnn", "vgg11"):
        config = black_box_shapes.get_config("smoke")
        config.masker.selector_init = "classifier"
        config = resolved(config, network, tmp_path)
        stage = black_box_stage.create_stage(config)
        if network == "small_cnn":
            traced(stage, config)
            continue
        with pytest.raises(InputError, match=r"weights \[7, 256\], .* needs \[7, 32\]"):
            traced(stage, config)


def test_the_config_of_the_small_network():
    config = classifier_small_cnn.get_config()
    run_folder.resolve(config, CLASSES)
    options = ("network", "width", "stem", "epsilon")
    filed = [config.classifier[name] for name in options]
    assert filed == ["small_cnn", 32, "", 1e-5]
    smoke = classifier_small_cnn.get_config("smoke")
    run_folder.resolve(smoke, CLASSES)
    assert smoke.classifier.network == "small_cnn" and smoke.classifier.width == 8
    traced(classifier_stage.create_stage(smoke), smoke)
