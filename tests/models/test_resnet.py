"""Geometry, counts, types and initialisation of the classifiers' networks."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.models.create import create_backbone
from saliency_jax.models.resnet import ResNet
from tests.models import reproducible


def shapes_of(module, height=64, width=64):
    """((logits, taps), variables) as shapes, at no cost."""
    return jax.eval_shape(
        lambda key: module.init_with_output(
            key, jnp.zeros((2, height, width, 3)), False
        ),
        jax.random.key(0),
    )


@pytest.fixture(scope="module")
def small():
    """A small network, its variables and a batch."""
    module = ResNet((1, 1), False, 10, width=8, stem="small_stride2")
    images = jnp.asarray(reproducible.images((4, 32, 32, 3)))
    variables = jax.jit(module.init, static_argnums=2)(jax.random.key(1), images, False)
    return module, variables, images


@pytest.mark.parametrize(
    ("name", "count"),
    [  # torchvision's own counts; resnet10 by hand: 4 blocks fewer than resnet18
        ("resnet10", 5_418_792),
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
    ],
)
def test_parameter_counts_of_torchvision(name, count):
    _, variables = shapes_of(create_backbone(name, 1000))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


@pytest.mark.parametrize(
    ("side", "sizes"),
    [(224, (56, 56, 28, 14, 7)), (97, (25, 25, 13, 7, 4)), (32, (8, 8, 4, 2, 1))],
)
def test_taps_of_resnet50(side, sizes):
    (logits, taps), _ = shapes_of(create_backbone("resnet50", 7), side, side)
    channels = (64, 256, 512, 1024, 2048)
    assert [tap.shape for tap in taps] == [
        (2, size, size, c) for size, c in zip(sizes, channels, strict=True)
    ]
    assert logits.shape == (2, 7)


@pytest.mark.parametrize(
    ("stem", "sizes"),
    [
        ("imagenet", ((16, 9), (16, 9), (8, 5), (4, 3), (2, 2))),
        ("small", ((64, 34), (64, 34), (32, 17), (16, 9), (8, 5))),
        ("small_stride2", ((32, 17), (32, 17), (16, 9), (8, 5), (4, 3))),
    ],
)
def test_stems_on_an_oblong_image(stem, sizes):
    (_, taps), variables = shapes_of(
        create_backbone("resnet18", 7, width=16, stem=stem), 64, 34
    )
    channels = (16, 16, 32, 64, 128)
    assert [tap.shape for tap in taps] == [
        (2, *size, c) for size, c in zip(sizes, channels, strict=True)
    ]
    side = 7 if stem == "imagenet" else 3
    assert variables["params"]["conv1"]["kernel"].shape == (side, side, 3, 16)


def test_stride_of_a_bottleneck_sits_on_its_3x3():
    module = create_backbone("resnet50", 7, width=8)
    _, state = jax.eval_shape(
        lambda key: module.init_with_output(
            key,
            jnp.zeros((1, 64, 64, 3)),
            False,
            capture_intermediates=True,
            mutable=True,
        ),
        jax.random.key(0),
    )
    block = state["intermediates"]["layer2_0"]
    assert block["conv1"]["__call__"][0].shape[1:3] == (16, 16)
    assert block["conv2"]["__call__"][0].shape[1:3] == (8, 8)


def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32(small):
    module, variables, images = small
    half = module.copy(dtype=jnp.bfloat16)
    run = lambda m: jax.jit(lambda v: m.apply(v, images, True, mutable="batch_stats"))
    (logits, taps), updated = run(module)(variables)
    (half_logits, half_taps), half_updated = run(half)(variables)
    _, half_variables = shapes_of(half, 32, 32)

    for leaf in jax.tree.leaves((half_variables, half_updated)):
        assert leaf.dtype == jnp.float32
    assert half_logits.dtype == jnp.float32
    for tap, half_tap in zip(taps, half_taps, strict=True):
        assert half_tap.dtype == jnp.bfloat16
        error = jnp.abs(half_tap.astype(jnp.float32) - tap)
        assert error.mean() < 0.02 * jnp.abs(tap).mean()  # 2**-8 a layer, six layers
    assert jnp.abs(half_logits - logits).max() < 0.05 * jnp.abs(logits).max()
    statistics = flax.traverse_util.flatten_dict(updated["batch_stats"])
    for path, half_value in flax.traverse_util.flatten_dict(
        half_updated["batch_stats"]
    ).items():
        np.testing.assert_allclose(half_value, statistics[path], rtol=0.02, atol=0.02)


def test_initialisation_is_pytorchs():
    module = ResNet((1, 1), False, 1000)
    params = jax.jit(
        lambda key: module.init(key, jnp.zeros((1, 32, 32, 3)), False)["params"]
    )(jax.random.key(0))
    kernel = params["layer2_0"]["conv1"]["kernel"]  # 3x3, 64 -> 128
    assert kernel.std() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.01)
    shortcut = params["layer2_0"]["downsample_conv"]["kernel"]  # 1x1, 64 -> 128
    assert shortcut.std() == pytest.approx((2 / 128) ** 0.5, rel=0.03)
    assert abs(kernel).max() > 3.5 * kernel.std()  # normal, not truncated at two sigma
    other = params["layer1_0"]["conv2"]["kernel"]
    same = abs(
        jnp.corrcoef(params["layer1_0"]["conv1"]["kernel"].ravel(), other.ravel())
    )
    assert same[0, 1] < 0.05
    for array in (params["fc"]["kernel"], params["fc"]["bias"]):  # fan-in 128
        assert 0.99 * 128**-0.5 < abs(array).max() <= 128**-0.5
        assert array.std() == pytest.approx((128 * 3) ** -0.5, rel=0.05)
    assert jnp.all(params["layer2_0"]["bn2"]["scale"] == 1)
    assert jnp.all(params["layer2_0"]["bn2"]["bias"] == 0)


def test_evaluation_treats_each_image_alone_and_training_does_not(small):
    module, variables, images = small
    evaluate = jax.jit(lambda v, x: module.apply(v, x, False)[0])
    together = evaluate(variables, images)
    np.testing.assert_allclose(evaluate(variables, images[:1]), together[:1], atol=1e-5)
    (trained, _), _ = jax.jit(
        lambda v, x: module.apply(v, x, True, mutable="batch_stats")
    )(variables, images)
    assert jnp.abs(trained - together).max() > 0.01


def test_unknown_names_are_input_errors():
    with pytest.raises(InputError, match="resnet20.*resnet18"):
        create_backbone("resnet20", 10)
    with pytest.raises(InputError, match="tiny.*small_stride2"):
        shapes_of(create_backbone("resnet18", 10, stem="tiny"))
