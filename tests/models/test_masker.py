"""CASM's masker: counts, geometry, a value by hand, and who is trained by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.models.masker import CasmMasker, EncoderMasker, upsample
from saliency_jax.models.resnet import ResNet
from tests.models import reproducible


def resnet50_taps(side):
    """The shapes of ResNet-50's maps."""
    channels = (64, 256, 512, 1024, 2048)
    sizes = (side // 4, side // 4, side // 8, side // 16, side // 32)
    return [
        jax.ShapeDtypeStruct((2, size, size, c), jnp.float32)
        for size, c in zip(sizes, channels, strict=True)
    ]


def masks_and_variables(masker, taps, image_size):
    """Shapes of a masker's output and of its variables."""
    return jax.eval_shape(
        lambda key, taps: masker.init_with_output(key, taps, image_size, False),
        jax.random.key(0),
        taps,
    )


@pytest.mark.parametrize(
    ("selected", "count"), [((0, 1, 2, 3, 4), 249_153), ((3, 4), 198_017)]
)
def test_parameter_counts_of_the_papers(selected, count):
    masks, variables = masks_and_variables(
        CasmMasker(taps=selected), resnet50_taps(224), (224, 224)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    assert masks.shape == (2, 224, 224)
    assert "conv_0" not in variables["params"]  # map 0 enters as it is


def test_works_at_the_size_of_map_0_even_without_it():
    masker = CasmMasker(taps=(3, 4))
    _, state = jax.eval_shape(
        lambda key, taps: masker.init_with_output(
            key, taps, (224, 224), False, capture_intermediates=True, mutable=True
        ),
        jax.random.key(0),
        resnet50_taps(224),
    )
    final = state["intermediates"]["final"]["__call__"][0]
    assert final.shape == (2, 56, 56)


def hand_variables():
    """Map 0 is one channel; map 1 becomes 2 everywhere; see the test for the sum."""
    final = np.zeros((3, 3, 2, 1), np.float32)
    final[1, 1, 0, 0] = 1.0
    final[1, 2, 0, 0] = 0.25
    final[1, 1, 1, 0] = -1.0
    return {
        "params": {
            "conv_1": {"kernel": jnp.full((1, 1, 1, 1), 2.0)},
            "bn_1": {"scale": jnp.array([0.5]), "bias": jnp.array([1.0])},
            "final": {"kernel": jnp.asarray(final), "bias": jnp.array([0.5])},
        },
        "batch_stats": {
            "bn_1": {"mean": jnp.array([4.0]), "var": jnp.array([1.0 - 1e-5])}
        },
    }


def test_value_by_hand():
    taps = [
        jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1),
        jnp.full((1, 1, 1, 1), 3.0),
    ]
    masker = CasmMasker(taps=(0, 1), features=1)
    variables = hand_variables()
    masks = jax.jit(lambda v: masker.apply(v, taps, (4, 4), False))(variables)
    # Map 1: relu((2 * 3 - 4) * 0.5 + 1) = 2. Then x + 0.25 right - 2 + 0.5:
    # [1 + 0.5, 2 + 0] - 1.5 = [0, 0.5] and [3 + 1, 4 + 0] - 1.5 = [2.5, 2.5].
    low = np.array([[0.5, 0.62245933], [0.92414182, 0.92414182]])
    np.testing.assert_allclose(masks[0], np.kron(low, np.ones((2, 2))), atol=1e-6)

    bilinear = CasmMasker(taps=(0, 1), features=1, final_upsampling="bilinear")
    masks = jax.jit(lambda v: bilinear.apply(v, taps, (4, 4), False))(variables)
    # Half-pixel centres: a quarter and three quarters, clamped at the border.
    across = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    np.testing.assert_allclose(masks[0], across @ low @ across.T, atol=1e-6)


def test_nearest_by_repeating_equals_resizing_in_value_and_gradient():
    masks = jnp.asarray(reproducible.uniform((2, 4, 6), "masks", 0.0, 1.0))
    weights = reproducible.uniform((2, 12, 12), "weights", -1.0, 1.0)
    resize = lambda m: jax.image.resize(m, (2, 12, 12), "nearest")
    repeat = lambda m: upsample(m, (12, 12), "nearest")
    np.testing.assert_array_equal(repeat(masks), resize(masks))
    np.testing.assert_allclose(
        jax.grad(lambda m: jnp.sum(weights * repeat(m)))(masks),
        jax.grad(lambda m: jnp.sum(weights * resize(m)))(masks),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("final_upsampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(64, 64), (61, 47)])
def test_masks_of_any_image_size(size, final_upsampling):
    decoder = CasmMasker(taps=(0, 1, 2), features=4, final_upsampling=final_upsampling)
    masker = EncoderMasker(ResNet((1, 1), False, 3, width=4), decoder)
    images = jnp.asarray(reproducible.images((2, *size, 3)))
    variables = reproducible.variables(masker, images)
    masks = jax.jit(lambda v, x: masker.apply(v, x, False))(variables, images)
    assert masks.shape == (2, *size)
    assert masks.dtype == jnp.float32
    assert 0 <= masks.min() < masks.max() <= 1


def test_bfloat16_masks_are_float32():
    taps = [
        tap.update(dtype=jnp.bfloat16) if i else tap
        for i, tap in enumerate(resnet50_taps(64))
    ]
    masks, variables = masks_and_variables(
        CasmMasker(dtype=jnp.bfloat16), taps, (64, 64)
    )
    for leaf in jax.tree.leaves((masks, variables)):
        assert leaf.dtype == jnp.float32


def test_starts_saturated_as_the_original():
    taps = [
        jnp.asarray(reproducible.uniform(tap.shape, f"{i}", 0.0, 2.0))
        for i, tap in enumerate(resnet50_taps(64))
    ]
    masks, variables = jax.jit(
        lambda key, taps: CasmMasker().init_with_output(key, taps, (64, 64), False)
    )(jax.random.key(0), taps)
    final = variables["params"]["final"]
    assert final["kernel"].std() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert abs(final["bias"][0]) <= 2880**-0.5
    conv = variables["params"]["conv_4"]["kernel"]
    assert conv.std() == pytest.approx((2 / 64) ** 0.5, rel=0.02)
    assert jnp.mean((masks < 0.01) | (masks > 0.99)) > 0.5


def test_own_encoder_is_trained_through_the_decoder():
    masker = EncoderMasker(
        ResNet((1, 1), False, 3, width=4, stem="small_stride2"),
        CasmMasker(taps=(0, 1, 2), features=4),
    )
    images = jnp.asarray(reproducible.images((2, 16, 16, 3)))

    variables = reproducible.variables(masker, images)

    def area(params):
        masks, _ = masker.apply(
            {**variables, "params": params}, images, True, mutable="batch_stats"
        )
        return jnp.mean(masks)

    gradients = jax.jit(jax.grad(area))(variables["params"])
    assert jnp.abs(gradients["encoder"]["conv1"]["kernel"]).max() > 0
    assert jnp.abs(gradients["encoder"]["layer2_0"]["conv2"]["kernel"]).max() > 0
    assert jnp.all(gradients["encoder"]["fc"]["kernel"] == 0)


def test_impossible_options_are_input_errors():
    taps = [jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 4, 4, 2))]
    key = jax.random.key(0)
    with pytest.raises(InputError, match=r"\(0, 2\).*\(0, 1\)"):
        CasmMasker(taps=(0, 2)).init(key, taps, (8, 8), False)
    with pytest.raises(InputError, match="taps"):
        CasmMasker(taps=()).init(key, taps, (8, 8), False)
    with pytest.raises(InputError, match="bicubic.*nearest"):
        CasmMasker(taps=(0,), final_upsampling="bicubic").init(key, taps, (8, 8), False)
