"""The real-time masker: its sizes, its selector, its frozen encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.models import selective_masker
from saliency_jax.models.create import create_backbone
from saliency_jax.models.selective_masker import (
    UPSAMPLINGS,
    FeatureFilter,
    MaskHead,
    SelectiveDecoder,
    SelectiveMasker,
)

LABELS = jnp.array([1, 3])


def maps(size):
    """Four maps of an encoder, at 1/4 to 1/32 of a side, rounded up."""
    keys = jax.random.split(jax.random.key(0), 4)
    sides = [[-(-side // stride) for side in size] for stride in (4, 8, 16, 32)]
    return tuple(
        jax.random.normal(key, (2, *side, channels))
        for key, side, channels in zip(keys, sides, (8, 12, 16, 20), strict=True)
    )


@pytest.mark.parametrize(
    "upsampling",
    [
        UPSAMPLINGS[0],
        *(pytest.param(u, marks=pytest.mark.slow) for u in UPSAMPLINGS[1:]),
    ],
)
@pytest.mark.parametrize(
    "size", [(67, 94), pytest.param((64, 64), marks=pytest.mark.slow)]
)
def test_masks_of_any_size(upsampling, size):
    module = SelectiveDecoder(5, upsampling, base=8)
    init = jax.jit(module.init_with_output, static_argnums=(2, 4))
    (masks, scores), variables = init(
        jax.random.key(0), maps(size), size, LABELS, False
    )
    assert masks.shape == (2, *size) and masks.dtype == jnp.float32
    assert scores.shape == (2, *maps(size)[-1].shape[1:3])
    assert float(masks.min()) >= 0 and float(masks.max()) <= 1
    assert np.ptp(masks) > 0.01
    half = SelectiveDecoder(5, upsampling, base=8, dtype=jnp.bfloat16)
    apply = jax.jit(half.apply, static_argnums=(2, 4))
    close, _ = apply(variables, maps(size), size, LABELS, False)
    assert close.dtype == jnp.float32
    assert float(jnp.abs(close - masks).mean()) < 0.02


def test_the_sizes_of_the_authors_network():
    """Counted in the code: 19,340,288 + 1,296,896 + 324,608 + 130 + 2,048,000."""
    encoder = create_backbone("resnet50", 1000)
    module = SelectiveMasker(encoder, SelectiveDecoder(1000))
    shapes = jax.eval_shape(
        lambda key: module.init(key, jnp.zeros((2, 64, 64, 3)), LABELS, False),
        jax.random.key(0),
    )["params"]["decoder"]
    counts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for name, tree in shapes.items()
    }
    assert counts == {
        "selector": 2_048_000,
        "up_4": 19_340_288,
        "up_2": 1_296_896,
        "up_1": 324_608,
        "mask": 130,
    }


def test_the_gate_by_hand():
    x = jnp.array([[[[1.0, 2.0]]], [[[3.0, -1.0]]]])
    embedding = jnp.array([[9.0, 9.0], [0.5, 0.25], [9.0, 9.0], [-1.0, 2.0]])
    variables = {"params": {"embedding": embedding}}
    filtered, scores = FeatureFilter(4).apply(variables, x, LABELS, 0.0)
    np.testing.assert_allclose(scores.ravel(), [1.0, -5.0], rtol=1e-6)
    sigmoid = lambda value: 1 / (1 + np.exp(-value))
    np.testing.assert_allclose(filtered[0, 0, 0], sigmoid(1.0) * x[0, 0, 0], rtol=1e-6)
    filtered, _ = FeatureFilter(4).apply(variables, x, LABELS, 6.0)
    np.testing.assert_allclose(filtered[1, 0, 0], sigmoid(-11) * x[1, 0, 0], rtol=1e-5)


def test_presence():
    scores = jnp.array([[[1.0, 2.0], [3.0, 6.0]]])
    mean = selective_masker.presence_logits(scores, "mean")
    np.testing.assert_allclose(mean, [[-1.5, 1.5]])
    largest = selective_masker.presence_logits(scores, "max")
    np.testing.assert_allclose(largest, [[-3.0, 3.0]])
    with pytest.raises(InputError, match="pooling 'sum' is unknown"):
        selective_masker.presence_logits(scores, "sum")


def test_the_head_is_one_half_where_both_channels_are_zero():
    head = MaskHead()
    zeros = jnp.zeros((1, 2, 2, 4))
    variables = head.init(jax.random.key(0), zeros)  # the bias starts at zero
    np.testing.assert_array_equal(head.apply(variables, zeros), 0.5)
    gradient = jax.grad(lambda x: head.apply(variables, x).sum())(zeros)
    assert bool(jnp.all(jnp.isfinite(gradient)))


def test_pixel_shuffle_is_torchs():
    torch = pytest.importorskip("torch")
    x = np.arange(2 * 3 * 5 * 8, dtype=np.float32).reshape(2, 3, 5, 8)
    expected = torch.nn.functional.pixel_shuffle(
        torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), 2
    )
    shuffled = selective_masker.pixel_shuffle(jnp.asarray(x))
    np.testing.assert_array_equal(shuffled, expected.numpy().transpose(0, 2, 3, 1))


def test_the_encoder_neither_learns_nor_drifts():
    encoder = create_backbone("resnet10", 5, width=8, stem="small_stride2")
    module = SelectiveMasker(encoder, SelectiveDecoder(5, base=8))
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    init = jax.jit(module.init, static_argnums=3)
    variables = init(jax.random.key(0), images, LABELS, False)

    def total(params):
        (masks, _), updates = module.apply(
            variables | {"params": params}, images, LABELS, True, mutable="batch_stats"
        )
        return masks.sum(), updates

    gradients, updates = jax.jit(jax.grad(total, has_aux=True))(variables["params"])
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradients["encoder"]))
    assert any(leaf.any() for leaf in jax.tree.leaves(gradients["decoder"]))
    before = variables["batch_stats"]
    after = updates["batch_stats"]
    for mine, theirs in zip(
        jax.tree.leaves(before["encoder"]),
        jax.tree.leaves(after["encoder"]),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(moved["decoder"]))


def test_what_cannot_be_is_said():
    three = maps((32, 32))[1:]
    with pytest.raises(InputError, match="gives 3 maps"):
        SelectiveDecoder(5).init(jax.random.key(0), three, (32, 32), LABELS, False)
    with pytest.raises(InputError, match="upsampling 'unet' is unknown"):
        SelectiveDecoder(5, "unet").init(
            jax.random.key(0), maps((32, 32)), (32, 32), LABELS, False
        )
