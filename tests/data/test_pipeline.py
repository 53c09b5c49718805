"""Batches: whole epochs, exact resumption, disjoint shards, padding that is marked."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import cv2
import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from saliency_jax.data import pipeline, shapes
from saliency_jax.data.sources import Source, open_source, split_holdout
from saliency_jax.errors import InputError

# Windows of the whole area fit a square only as the whole, so nothing is augmented.
UNCHANGED = {"min_area": 1.0, "flip": False}


@pytest.fixture(scope="module")
def train(shapes_dir: str) -> Source:
    return open_source("shapes/32x32", shapes_dir, "train")


def _take(source: Source, count: int, **options):
    options = {"batch_size": 12, "image_size": 32, "seed": 0} | options
    iterator = pipeline.make_train_iterator(source, **options)
    batches = [next(iterator) for _ in range(count)]
    iterator.close()
    return batches


def _images(batches) -> list[bytes]:
    return [
        image.tobytes() for batch in batches for image in np.asarray(batch["image"])
    ]


def _assert_equal(a, b) -> None:
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(np.asarray(a[key]), np.asarray(b[key]))


def test_a_batch_has_the_documented_arrays(train):
    (batch,) = _take(train, 1)
    found = {key: (values.dtype.name, values.shape) for key, values in batch.items()}
    assert found == {
        "image": ("uint8", (12, 32, 32, 3)),
        "label": ("int32", (12,)),
        "valid": ("bool", (12,)),
        "boxes": ("float32", (12, 1, 4)),
        "boxes_valid": ("bool", (12, 1)),
        "boxes_pixels": ("int32", (12, 1, 4)),
        "original_size": ("int32", (12, 2)),
        "object_mask": ("bool", (12, 32, 32)),
    }
    assert batch["valid"].all()


def test_batches_of_pairs_tell_of_the_other_object(pairs_dir):
    validation = open_source("shapes_pairs/32x32", pairs_dir, "validation")
    *_, last = batches = list(
        pipeline.eval_batches(validation, batch_size=12, image_size=32)
    )
    scenes = {
        scene.image.tobytes(): scene
        for scene in (shapes.render_pair(1, i, 32) for i in range(14))
    }
    for batch in batches:
        assert batch["present"].shape == (12, 10)
        assert batch["present"].dtype == bool
        assert batch["other_mask"].shape == (12, 32, 32)
        assert batch["other_mask"].dtype == bool
        for i, image in enumerate(batch["image"]):
            scene = scenes[image.tobytes()]
            for key in ("label", "object_mask", "other_mask"):
                np.testing.assert_array_equal(batch[key][i], getattr(scene, key))
            present = {scene.label, scene.other_label}
            assert set(np.flatnonzero(batch["present"][i])) == present
    assert last["valid"].sum() == 2
    (batch,) = _take(open_source("shapes_pairs/32x32", pairs_dir, "train"), 1)
    assert (batch["present"].sum(axis=1) == 2).all()
    assert batch["present"][np.arange(12), batch["label"]].all()
    # Windows may leave an object out, but the two never meet.
    assert batch["other_mask"].any(axis=(1, 2)).sum() > 4
    assert not (batch["other_mask"] & batch["object_mask"]).any()


def test_every_epoch_shows_every_image_once_in_a_new_order(train):
    first, second = (
        _images(batches) for batches in np.array_split(_take(train, 10, **UNCHANGED), 2)
    )
    everything = _images(pipeline.eval_batches(train, batch_size=60, image_size=32))
    assert sorted(first) == sorted(second) == sorted(everything)
    assert first != second and first != everything
    assert _images(_take(train, 5, **UNCHANGED, seed=1)) != first


def test_augmentation_differs_between_epochs_but_not_between_runs(train):
    batches = _take(train, 10)
    again = _take(train, 10, num_threads=1)
    for batch, same in zip(batches, again, strict=True):
        _assert_equal(batch, same)
    assert not set(_images(batches[:5])) & set(_images(batches[5:]))


def test_boxes_and_masks_agree_after_augmentation(train):
    whole = 0
    for batch in _take(train, 5, min_area=0.3):
        masks, boxes = batch["object_mask"], batch["boxes"][:, 0]
        for mask, box, valid in zip(
            masks, boxes, batch["boxes_valid"][:, 0], strict=True
        ):
            if not mask.any():
                continue
            assert valid
            rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            found = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
            assert (found[:2] >= box[:2] * 32 - 1.5).all()
            assert (found[2:] <= box[2:] * 32 + 1.5).all()
            # The box of an object that the window cuts need not be tight any more.
            if box.min() > 0 and box.max() < 1:
                np.testing.assert_allclose(box * 32, found, atol=2.5)
                whole += 1
    assert whole > 20


@pytest.mark.parametrize("placed", [False, True])
def test_state_resumes_exactly(train, placed):
    mesh = jax.make_mesh((4,), ("data",))
    by_batch = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    options = {"batch_size": 12, "image_size": 32, "seed": 4}
    options["sharding"] = by_batch if placed else None
    first = pipeline.make_train_iterator(train, **options)
    for _ in range(7):
        next(first)
    state = first.get_state()
    expected = [next(first) for _ in range(3)]
    second = pipeline.make_train_iterator(train, **options)
    next(second)
    second.set_state(state)
    for batch in expected:
        _assert_equal(next(second), batch)
    if placed:
        assert expected[0]["image"].sharding == by_batch
    first.close()
    second.close()
    with pytest.raises(ValueError, match="closed"):
        next(second)


def test_state_goes_through_an_orbax_checkpoint(train, tmp_path):
    options = {"batch_size": 12, "image_size": 32, "seed": 4}
    first = pipeline.make_train_iterator(train, **options)
    next(first)
    with ocp.CheckpointManager(tmp_path) as manager:
        save = ocp.args.Composite(data=grain.checkpoint.CheckpointSave(first))
        manager.save(1, args=save)
        manager.wait_until_finished()
        expected = next(first)
        second = pipeline.make_train_iterator(train, **options)
        restore = ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(second))
        manager.restore(1, args=restore)
    _assert_equal(next(second), expected)
    first.close()
    second.close()


def test_processes_read_disjoint_shares(train, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    shares = []
    for index in range(2):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        batches = _take(train, 5, **UNCHANGED)
        assert batches[0]["image"].shape[0] == 6
        shares.append(set(_images(batches)))
    assert len(shares[0]) == len(shares[1]) == 30
    assert not shares[0] & shares[1]
    with pytest.raises(InputError, match="13 does not divide among 2 processes"):
        _take(train, 1, batch_size=13)


@pytest.mark.slow
def test_worker_processes_give_whole_epochs_and_resume(train):
    options = {"batch_size": 12, "image_size": 32, "seed": 0, "num_workers": 2}
    batches = _take(train, 5, **UNCHANGED, num_workers=2)
    assert len(set(_images(batches))) == 60
    first = pipeline.make_train_iterator(train, **options)
    next(first)
    state = first.get_state()
    expected = next(first)
    second = pipeline.make_train_iterator(train, **options)
    second.set_state(state)
    _assert_equal(next(second), expected)
    first.close()
    second.close()


PLACED_BY_A_WORKER = """
import jax
from absl import app
from saliency_jax.data import pipeline, sources

def main(argv):
    source = sources.open_source("shapes/32x32", argv[1], "train")
    iterator = pipeline.make_train_iterator(
        source, batch_size=12, image_size=64, seed=0, num_workers=1,
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    batch = next(iterator)
    iterator.close()
    assert batch["image"].shape == (12, 64, 64, 3)

if __name__ == "__main__":
    app.run(main)
"""


@pytest.mark.slow
def test_no_shared_memory_of_a_worker_is_left(shapes_dir, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PLACED_BY_A_WORKER)
    done = subprocess.run(
        [sys.executable, str(script), shapes_dir],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "leaked" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("min_area", 0.0, r"must be in \(0, 1\], not 0.0"),
        ("min_area", 1.5, r"must be in \(0, 1\], not 1.5"),
        ("min_area", float("nan"), r"must be in \(0, 1\], not nan"),
        ("erasing_probability", -0.1, r"must be in \[0, 1\], not -0.1"),
        ("erasing_probability", 1.1, r"must be in \[0, 1\], not 1.1"),
        ("num_threads", 0, "must be at least 1, not 0"),
        ("num_workers", -1, "must be at least 0, not -1"),
    ],
)
def test_an_option_out_of_its_range_is_named(train, option, value, message):
    with pytest.raises(InputError, match=f"^config.data.{option} {message}"):
        _take(train, 1, **{option: value})


def test_a_source_smaller_than_a_batch_is_refused(train):
    with pytest.raises(InputError, match="60 images, fewer than one batch of 61"):
        _take(train, 1, batch_size=61)
    rest, held_out = split_holdout(train, 50, seed=0)
    assert len(rest) == 10 and len(held_out) == 50
    with pytest.raises(InputError, match="10 images, fewer than one batch of 12"):
        _take(rest, 1)


def test_evaluation_keeps_the_order_and_marks_the_padding(shapes_dir):
    source = open_source("shapes/32x32", shapes_dir, "validation")
    batches = list(pipeline.eval_batches(source, batch_size=10, image_size=32))
    assert [batch["valid"].sum() for batch in batches] == [10, 10, 5]
    assert all(len(batch["image"]) == 10 for batch in batches)
    assert batches[2]["valid"].tolist() == [True] * 5 + [False] * 5
    labels = np.concatenate([batch["label"][batch["valid"]] for batch in batches])
    assert labels.tolist() == [source[i]["label"] for i in range(25)]
    limited = list(pipeline.eval_batches(source, batch_size=10, image_size=32, limit=7))
    assert [batch["valid"].sum() for batch in limited] == [7]
    _assert_equal(
        {"image": limited[0]["image"][:7]}, {"image": batches[0]["image"][:7]}
    )


def test_evaluation_of_nothing_yields_nothing(train):
    empty = dataclasses.replace(train, indices=np.zeros(0, np.int64))
    assert list(pipeline.eval_batches(empty, batch_size=4, image_size=32)) == []


def _in_memory(*fields: dict) -> Source:
    """A source of given records, as TFDS would give them."""
    return Source("made_up", "train", ("a", "b"), 3, 1, False, list(fields))


def _jpeg(height: int, width: int) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1].tobytes()


def test_images_of_any_shape_and_number_of_boxes_share_a_batch():
    boxes = np.array([[0, 0, 1, 0.5], [0, 0.9, 1, 1], [0.25, 0.45, 0.75, 0.55]])
    source = _in_memory(
        {
            "image": _jpeg(20, 40),
            "label": 1,
            "boxes": boxes,
            "boxes_pixels": boxes * 40,
        },
        {"image": _jpeg(64, 16), "label": 0},
    )
    (batch,) = pipeline.eval_batches(source, batch_size=2, image_size=16)
    assert batch["boxes_valid"].tolist() == [[True, False, True], [False] * 3]
    # 20x40 -> 16x32, of which columns 8..24 stay.
    np.testing.assert_allclose(batch["boxes"][0, 0], [0, 0, 1, 0.5], atol=1e-6)
    np.testing.assert_allclose(batch["boxes"][0, 2], [0.25, 0.4, 0.75, 0.6], atol=1e-6)
    assert batch["boxes_pixels"][0, 1].tolist() == [0, 36, 40, 40]
    assert (batch["boxes_pixels"][1] == -1).all()
    assert batch["original_size"].tolist() == [[40, 20], [16, 64]]


def test_a_corrupt_image_is_named_from_within_the_threads():
    whole = {"image": _jpeg(20, 20), "label": 0, "file_name": b"whole.JPEG"}
    corrupt = whole | {"image": b"\xff\xd8 no", "file_name": b"n01_3.JPEG"}
    source = _in_memory(whole, corrupt)
    with pytest.raises(InputError, match="n01_3.JPEG is not a readable image"):
        list(pipeline.eval_batches(source, batch_size=1, image_size=16))
    iterator = pipeline.make_train_iterator(
        source,
        batch_size=2,
        image_size=16,
        seed=0,
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    )
    with pytest.raises(InputError, match="n01_3.JPEG is not a readable image"):
        next(iterator)
    iterator.close()


def test_a_resize_that_the_crop_does_not_fit_is_refused(train):
    with pytest.raises(InputError, match="resize 16 is smaller than image_size 32"):
        list(pipeline.eval_batches(train, batch_size=4, image_size=32, resize=16))
