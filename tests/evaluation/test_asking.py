"""Masks asked for one class or another."""

import numpy as np
import pytest

from saliency_jax import load_masker, saliency_fn
from saliency_jax.data import pipeline, sources
from saliency_jax.data.prepare import prepare
from saliency_jax.evaluation.asking import ask_for_classes, measure_selectivity


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    data_dir = str(tmp_path_factory.mktemp("pairs"))
    prepare("shapes_pairs", data_dir, image_size=32, num_train=10, num_validation=13)
    return sources.open_source("shapes_pairs/32x32", data_dir, "validation")


def batches(source):
    return pipeline.eval_batches(source, batch_size=5, image_size=32)


def test_a_casm_mask_is_the_same_for_both_objects(casm_run, pairs):
    """So the mean over images of one minus the other is that of either order."""
    masker = load_masker(casm_run)
    row = measure_selectivity(masker, batches(pairs))
    assert row["images"] == 13
    asked, other = [], []
    for batch in batches(pairs):
        valid = batch["valid"]
        masks = np.asarray(saliency_fn(masker, batch["image"]))[valid]
        for mask, one, two in zip(
            masks, batch["object_mask"][valid], batch["other_mask"][valid], strict=True
        ):
            asked.append(mask[one].mean())
            other.append(mask[two].mean())
    assert row["mean_asked"] == pytest.approx(np.mean(asked), rel=1e-4)
    assert row["mean_other"] == pytest.approx(np.mean(other), rel=1e-4)
    assert row["prefers"] == np.mean(np.greater(asked, other))


def test_a_black_boxs_masks_are_of_the_label(black_box_run, pairs):
    masker = load_masker(black_box_run)
    row = measure_selectivity(masker, batches(pairs))
    expected = np.concatenate(
        [
            np.asarray(saliency_fn(masker, b["image"], b["label"]))[b["valid"]]
            for b in batches(pairs)
        ]
    )
    objects = np.concatenate([b["object_mask"][b["valid"]] for b in batches(pairs)])
    means = [mask[one].mean() for mask, one in zip(expected, objects, strict=True)]
    assert row["mean_asked"] == pytest.approx(np.mean(means), rel=1e-4)


def test_several_classes_of_one_image(black_box_run, pairs):
    masker = load_masker(black_box_run)
    shown = ask_for_classes(masker, pairs, [3, 0], 32, classes=4)
    for one, position in zip(shown, (3, 0), strict=True):
        batch = next(
            pipeline.eval_batches(pairs.subset([position]), batch_size=1, image_size=32)
        )
        np.testing.assert_array_equal(one.image, batch["image"][0])
        true = int(batch["label"][0])
        (other,) = set(np.flatnonzero(batch["present"][0])) - {true}
        assert one.labels[:2] == (true, other) and len(set(one.labels)) == 4
        likeliest = np.argsort(-np.asarray(masker.classifier(batch["image"]))[0])
        rest = [label for label in likeliest if label not in (true, other)]
        assert list(one.labels[2:]) == rest[:2]
        for mask, label in zip(one.masks, one.labels, strict=True):
            alone = saliency_fn(masker, one.image, label)
            np.testing.assert_allclose(mask, alone, atol=1e-5)
