"""What all backbones offer: five maps, float32 logits, room for a masker; registry."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.models import create
from saliency_jax.models.masker import CasmMasker, EncoderMasker
from saliency_jax.models.resnet import ResNet
from tests.models import reproducible

# At 224 pixels; and how many halvings there are before each map.
GEOMETRY = {
    "resnet50": ((64, 256, 512, 1024, 2048), (2, 2, 3, 4, 5)),
    "mobilenet_v1": ((128, 128, 256, 512, 1024), (2, 2, 3, 4, 5)),
    "mobilenet_v2": ((24, 24, 32, 96, 1280), (2, 2, 3, 4, 5)),
    "googlenet": ((64, 192, 480, 832, 1024), (2, 2, 3, 4, 5)),
    "squeezenet1_1": ((64, 128, 256, 384, 512), (2, 2, 3, 4, 4)),
    "vgg16": ((128, 256, 512, 512, 512), (2, 2, 3, 4, 5)),
    "small_cnn": ((32, 64, 128, 256, 256), (1, 1, 2, 3, 4)),
}
SMALLEST = {"squeezenet1_1": 3, "vgg16": 32, "small_cnn": 16}


def shapes_of(module, *arguments):
    """(outputs, variables) as shapes, at no cost."""
    return jax.eval_shape(
        lambda key: module.init_with_output(key, *arguments, False), jax.random.key(0)
    )


def config(network, dtype="float32", **options):
    return {"network": network, "num_classes": 7, "dtype": dtype} | options


@pytest.mark.parametrize("name", GEOMETRY)
def test_five_maps_from_the_finest(name):
    channels, halvings = GEOMETRY[name]
    module = create.create_backbone(name, 7)
    (logits, taps), _ = shapes_of(module, jnp.zeros((2, 224, 224, 3)))
    assert logits.shape == (2, 7)
    sizes = [224 // 2**h for h in halvings]
    if name == "squeezenet1_1":  # the stem does not pad: 111, then pooled in ceil mode
        sizes = [55, 55, 27, 13, 13]
    assert [tap.shape for tap in taps] == [
        (2, size, size, c) for size, c in zip(sizes, channels, strict=True)
    ]


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("size", [(1, 1), (31, 2), (47, 31), (33, 97), (32, 32)])
def test_any_image_size(name, size):
    module = create.create_backbone(name, 7)
    if min(size) < (smallest := SMALLEST.get(name, 1)):
        known = "a VGG" if "vgg" in name else name
        message = f"too small for {known}, which takes {smallest} or more"
        with pytest.raises(InputError, match=message):
            shapes_of(module, jnp.zeros((1, *size, 3)))
        return
    (logits, taps), _ = shapes_of(module, jnp.zeros((1, *size, 3)))
    assert logits.shape == (1, 7)
    assert all(min(tap.shape) >= 1 for tap in taps)


@pytest.mark.parametrize("name", GEOMETRY)
def test_bfloat16_keeps_variables_and_logits_in_float32(name):
    module = create.create_classifier(config(name, "bfloat16"))
    (logits, taps), variables = shapes_of(module, jnp.zeros((2, 64, 64, 3)))
    assert logits.dtype == jnp.float32
    assert all(tap.dtype == jnp.bfloat16 for tap in taps)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("size", [(64, 64), (61, 95)])
@pytest.mark.parametrize("encoder", ["shared", "own"])
def test_the_masker_sits_on_every_backbone(name, size, encoder):
    classifier = create.create_backbone(name, 7)
    images = jnp.zeros((2, *size, 3))
    (_, taps), variables = shapes_of(classifier, images)
    section = {
        "encoder": encoder,
        "taps": (0, 1, 2, 3, 4),
        "features": 64,
        "final_upsampling": "nearest",
    }
    masker = create.create_masker(section, classifier)
    assert isinstance(masker, CasmMasker if encoder == "shared" else EncoderMasker)
    init = lambda key, taps: masker.init_with_output(
        key, *create.masker_arguments(masker, images, taps), False
    )
    masks, masker_variables = jax.eval_shape(init, jax.random.key(0), taps)
    assert masks.shape == (2, *size) and masks.dtype == jnp.float32
    if encoder == "own":
        variables = {"batch_stats": {}, **variables}
        trained = jax.tree.map(lambda leaf: np.broadcast_to(5.0, leaf.shape), variables)
        started = create.with_encoder(masker_variables, trained)
        assert jax.tree.structure(started) == jax.tree.structure(masker_variables)
        encoders = [tree["encoder"] for tree in started.values() if "encoder" in tree]
        assert all(leaf.flat[0] == 5.0 for leaf in jax.tree.leaves(encoders))


@pytest.mark.parametrize(
    ("multiplier", "channels"),
    [(0.35, (8, 8, 16, 32, 1280)), (1.4, (32, 32, 48, 136, 1792))],
)
def test_widths_of_mobilenet_v2_are_torchvisions(multiplier, channels):
    module = create.create_backbone("mobilenet_v2", 7, width_multiplier=multiplier)
    (_, taps), _ = shapes_of(module, jnp.zeros((1, 64, 64, 3)))
    assert tuple(tap.shape[-1] for tap in taps) == channels


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_kerass_padding_is_tensorflows_where_all_sizes_are_even(name):
    networks = [
        create.create_backbone(name, 7, padding=padding, width_multiplier=0.25)
        for padding in ("keras", "tensorflow", "symmetric")
    ]

    @partial(jax.jit, static_argnums=0)
    def logits_of(module, images):
        return module.apply(variables, images, False)[0]

    images = jnp.asarray(reproducible.images((1, 32, 64, 3)))
    variables = reproducible.variables(networks[0], images)
    keras, tensorflow, symmetric = (logits_of(module, images) for module in networks)
    assert jnp.all(keras == tensorflow)
    assert jnp.abs(keras - symmetric).max() > 1e-3 * jnp.abs(keras).max()
    taps = [
        shapes_of(module, jnp.zeros((1, 33, 65, 3)))[0][1][-1].shape[1:3]
        for module in networks
    ]
    assert taps == [(1, 2), (2, 3), (2, 3)]
    with pytest.raises(InputError, match="31x40 .* too small for padding 'keras'"):
        shapes_of(networks[0], jnp.zeros((1, 31, 40, 3)))


def test_a_new_backbone_is_an_entry_of_the_registry(monkeypatch):
    entry = create.Backbone(partial(ResNet, (1,), False), options={"stem": "small"})
    monkeypatch.setitem(create.BACKBONES, "mine", entry)
    module = create.create_classifier(config("mine", width=0, stem="", padding=""))
    assert (module.stage_sizes, module.stem, module.width) == ((1,), "small", 64)
    assert module.num_classes == 7


def test_unknown_networks_list_the_known_ones():
    with pytest.raises(InputError, match="no network 'vgg17'") as caught:
        create.create_classifier(config("vgg17"))
    assert all(name in str(caught.value) for name in create.BACKBONES)


@pytest.mark.parametrize(
    ("network", "option", "value", "known"),
    [
        ("mobilenet_v2", "width", 32, "width_multiplier, padding, epsilon"),
        ("mobilenet_v2", "stem", "small", "width_multiplier, padding, epsilon"),
        ("resnet18", "padding", "tensorflow", "width, stem, epsilon"),
        ("googlenet", "width_multiplier", 0.5, "epsilon"),
        ("squeezenet1_1", "epsilon", 1e-3, "no option at all"),
        ("vgg16", "epsilon", 1e-3, "width"),
        ("vgg16_bn", "stem", "small", "width, epsilon"),
        ("small_cnn", "width_multiplier", 0.5, "width, epsilon"),
    ],
)
def test_options_that_a_network_does_not_have(network, option, value, known):
    with pytest.raises(InputError) as caught:
        create.create_classifier(config(network, **{option: value}))
    empty = create.OPTIONS[option]
    assert str(caught.value) == (
        f"config.classifier.{option} = {value!r}, but {network} has {known}: set it to "
        f"{empty!r}"
    )


def test_unknown_values_of_options():
    with pytest.raises(InputError, match="padding 'same' is unknown; use one of"):
        module = create.create_classifier(config("mobilenet_v2", padding="same"))
        shapes_of(module, jnp.zeros((1, 64, 64, 3)))
    with pytest.raises(InputError, match="dtype = 'float16'"):
        create.create_classifier(config("mobilenet_v2", "float16"))
