"""`saliency_fn` inside JAX's transformations; `load_masker` on good and bad runs."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax import InputError, Masker, load_masker, saliency, saliency_fn
from saliency_jax.models.classifier import Classifier
from saliency_jax.training import sharding
from saliency_jax.training.checkpoints import restore_networks, saved_steps
from tests.training import tiny

IMAGES = np.asarray(tiny.batch()["image"])
FLOATS = IMAGES.astype(np.float32) / 255


def masker_of(seed, encoder="shared"):
    networks = tiny.networks(seed, encoder)
    classifier = Classifier(networks["classifier"], tiny.CLASSIFIER)
    return Masker(networks["masker"], classifier, tiny.MASKERS[encoder])


@pytest.fixture(scope="module")
def masker():
    return masker_of(0)


@pytest.fixture(scope="module")
def masks(masker):
    return np.asarray(saliency_fn(masker, IMAGES))


def test_masks_are_in_the_unit_interval_and_of_the_images_size(masks):
    assert masks.shape == (8, 16, 16) and masks.dtype == np.float32
    assert masks.min() >= 0 and masks.max() <= 1
    assert masks.std() > 0.01


def test_bytes_and_floats_are_the_same_images(masker, masks):
    np.testing.assert_allclose(saliency_fn(masker, FLOATS), masks, atol=1e-6)


def test_one_image_is_a_batch_of_one(masker, masks):
    one = saliency_fn(masker, IMAGES[3])
    assert one.shape == (16, 16)
    np.testing.assert_allclose(one, masks[3], atol=1e-6)
    np.testing.assert_allclose(saliency_fn(masker, IMAGES[3:4])[0], one, atol=1e-6)


@pytest.mark.parametrize("shape", [(32, 32), (2, 32, 32, 1), (1, 1, 32, 32, 3)])
def test_images_of_another_shape_are_refused(masker, shape):
    with pytest.raises(InputError, match=r"shape \(.*expected an array \[H, W, 3\] or"):
        saliency_fn(masker, jnp.zeros(shape))


def test_values_that_cannot_be_meant(masker, masks):
    with pytest.raises(InputError, match="images hold NaN or infinite values"):
        saliency_fn(masker, np.full((1, 16, 16, 3), np.nan, np.float32))
    with pytest.warns(UserWarning, match="images reach from .* expected uint8"):
        saliency_fn(masker, IMAGES.astype(np.float32))
    assert saliency_fn(masker, FLOATS[:0]).shape == (0, 16, 16)


def test_any_size(masker):
    wide = np.tile(IMAGES[:1], (1, 2, 3, 1))
    assert saliency_fn(masker, wide).shape == (1, 32, 48)


def test_inside_the_users_own_jit(masker, masks):
    double = jax.jit(lambda masker, images: 2 * saliency_fn(masker, images))
    np.testing.assert_allclose(double(masker, IMAGES), 2 * masks, atol=1e-6)


def test_under_vmap(masker, masks):
    over_images = jax.vmap(saliency_fn, in_axes=(None, 0))(masker, jnp.asarray(IMAGES))
    np.testing.assert_allclose(over_images, masks, atol=1e-5)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), masker, masker_of(1))
    over_maskers = jax.vmap(saliency_fn, in_axes=(0, None))(both, IMAGES)
    np.testing.assert_allclose(over_maskers[0], masks, atol=1e-5)
    assert np.abs(over_maskers[1] - masks).max() > 0.01


def test_the_gradient_in_the_images_is_that_of_finite_differences(masker):
    images = jnp.asarray(FLOATS[:2])
    total = jax.jit(lambda images: jnp.sum(saliency_fn(masker, images) ** 2))
    gradient = jax.jit(jax.grad(total))(images)
    assert gradient.shape == images.shape
    direction = gradient / jnp.linalg.norm(gradient)
    step = 1e-2
    slope = (total(images + step * direction) - total(images - step * direction)) / (
        2 * step
    )
    assert float(slope) == pytest.approx(float(jnp.linalg.norm(gradient)), rel=0.05)


def test_the_gradient_in_the_masker_has_its_form(masker):
    total = lambda masker: jnp.sum(saliency_fn(masker, FLOATS[:2]))
    gradient = jax.jit(jax.grad(total))(masker)
    assert isinstance(gradient, Masker)
    final = gradient.variables["params"]["final"]["kernel"]
    assert np.isfinite(final).all() and np.abs(final).max() > 0


def test_sharded_images_give_the_same_masks(masker, masks):
    mesh = sharding.data_mesh()
    split = jax.device_put(IMAGES, sharding.by_batch(mesh))
    everywhere = jax.device_put(masker, sharding.replicated(mesh))
    for loaded in (everywhere, masker):
        sharded = saliency_fn(loaded, split)
        assert len(sharded.addressable_shards) == 4
        shapes = {shard.data.shape for shard in sharded.addressable_shards}
        assert shapes == {(2, 16, 16)}
        np.testing.assert_allclose(sharded, masks, atol=1e-5)


def test_other_weights_do_not_recompile(masker, masks):
    before = saliency._jitted._cache_size()
    other = saliency_fn(masker_of(1), IMAGES)
    again = saliency_fn(masker_of(2), IMAGES)
    assert saliency._jitted._cache_size() == before
    assert np.abs(other - masks).max() > 0.01 and np.abs(again - other).max() > 0.01


def test_predict_gives_masks_and_logits_in_one_pass(masker, masks):
    predicted, logits = masker.predict(jnp.asarray(IMAGES))
    np.testing.assert_allclose(predicted, masks, atol=1e-6)
    np.testing.assert_allclose(logits, masker.classifier(IMAGES), atol=1e-5)


def test_a_masker_with_an_encoder_of_its_own():
    masker = masker_of(0, "own")
    masks = saliency_fn(masker, IMAGES)
    # the classifier beside it has no say
    other = masker.replace(classifier=masker_of(1).classifier)
    np.testing.assert_array_equal(saliency_fn(other, IMAGES), masks)
    shared = masker_of(0)
    changed = shared.replace(classifier=masker_of(1).classifier)
    assert np.abs(saliency_fn(changed, IMAGES) - saliency_fn(shared, IMAGES)).max() > 0


@pytest.mark.parametrize("which", ["last", 6, "best"])
def test_load_masker(casm_run, which):
    loaded = load_masker(casm_run, which)
    like = {"masker": loaded.variables, "classifier": loaded.classifier.variables}
    expected, step = restore_networks(casm_run, which, like)
    assert step in saved_steps(casm_run, "best" if which == "best" else "last")
    for part in like:
        for one, other in zip(
            jax.tree.leaves(like[part]), jax.tree.leaves(expected[part]), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    assert loaded.classifier.mean == pytest.approx((0.485, 0.456, 0.406))
    assert loaded.classifier.module.num_classes == 10


def test_a_step_may_be_text(casm_run):
    one, other = load_masker(casm_run, "6"), load_masker(casm_run, 6)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_load_masker_takes_the_last_unless_told_otherwise(casm_run):
    default, last = load_masker(str(casm_run)), load_masker(casm_run, "last")
    for one, other in zip(jax.tree.leaves(default), jax.tree.leaves(last), strict=True):
        np.testing.assert_array_equal(one, other)


def test_maps_of_a_run_in_half_precision_are_computed_in_float32(casm_run, tmp_path):
    workdir = tmp_path / "half"
    shutil.copytree(casm_run, workdir)
    config = json.loads((workdir / "config.json").read_text())
    config["classifier"]["dtype"] = "bfloat16"
    (workdir / "config.json").write_text(json.dumps(config))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(
        saliency_fn(load_masker(workdir), images),
        saliency_fn(load_masker(casm_run), images),
    )


def test_a_folder_that_is_no_run(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="is not a run: .*config.json.*--workdir"):
            load_masker(folder)


def test_a_classifier_run_has_no_masker(classifier_run):
    with pytest.raises(InputError) as raised:
        load_masker(classifier_run)
    message = str(raised.value)
    assert "has no masker" in message
    assert f"--config.classifier.init={classifier_run}" in message


def test_a_run_without_checkpoints(casm_run, tmp_path):
    shutil.copy(casm_run / "config.json", tmp_path)
    with pytest.raises(InputError, match="has no 'last' checkpoint"):
        load_masker(tmp_path)
    with pytest.raises(InputError, match="has no 'best' checkpoint"):
        load_masker(tmp_path, "best")


def test_a_step_that_is_not_kept(casm_run):
    with pytest.raises(InputError, match=r"no checkpoint of step 3: it has \[6\]"):
        load_masker(casm_run, 3)


@pytest.mark.parametrize("content", ["{", "", "[]", "{}", '{"stage": "casm"}'])
def test_a_damaged_config(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        load_masker(tmp_path)


def test_a_config_that_does_not_fit_the_checkpoint(casm_run, tmp_path):
    shutil.copytree(casm_run / "checkpoints", tmp_path / "checkpoints")
    config = json.loads((casm_run / "config.json").read_text())
    config["masker"]["features"] = 9
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"masker/params/.* instead of \(.*9"):
        load_masker(tmp_path)
