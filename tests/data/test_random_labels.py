"""Random labels: of the image and the seed alone, and of training images only."""

import dataclasses
import pickle

import numpy as np
import pytest

from saliency_jax.data import pipeline
from saliency_jax.data.random_labels import with_random_labels
from saliency_jax.data.sources import Source, open_source, split_holdout
from saliency_jax.errors import InputError

# Nothing is augmented, so that images can be recognised.
UNCHANGED = {"image_size": 32, "min_area": 1.0, "flip": False, "random_labels": True}


@pytest.fixture(scope="module")
def train(shapes_dir: str) -> Source:
    return open_source("shapes/32x32", shapes_dir, "train")


def _made_up(classes: int, count: int) -> Source:
    names = tuple(f"class {i}" for i in range(classes))
    records = [{"image": b"", "label": np.array([1])}] * count
    return Source("made_up", "train", names, 1, 0, False, records)


def _labels(source: Source) -> list[int]:
    return [source[i]["label"] for i in range(len(source))]


def _take(source: Source, count: int, **options):
    options = {"batch_size": 12, "seed": 4} | UNCHANGED | options
    iterator = pipeline.make_train_iterator(source, **options)
    batches = [next(iterator) for _ in range(count)]
    iterator.close()
    return batches


def _by_image(batches) -> dict[bytes, set[int]]:
    labels = {}
    for batch in batches:
        for image, label in zip(batch["image"], batch["label"], strict=True):
            labels.setdefault(image.tobytes(), set()).add(int(label))
    return labels


def test_every_class_is_drawn_alike_whatever_the_true_one():
    labels = np.array(_labels(with_random_labels(_made_up(5, 2000), 0)))
    counts = np.bincount(labels, minlength=5)
    # Chi-squared of 4 degrees of freedom: above 23.5 once in ten thousand seeds.
    assert len(counts) == 5 and np.sum((counts - 400) ** 2 / 400) < 23.5
    # Neighbours in the split have nothing to do with each other.
    assert abs(np.mean(labels[1:] == labels[:-1]) - 0.2) < 0.04


def test_a_label_depends_on_the_place_and_the_seed_alone():
    source = _made_up(10, 60)
    labels = _labels(with_random_labels(source, 7))
    assert _labels(with_random_labels(source, 7)) == labels
    assert _labels(with_random_labels(_made_up(10, 90), 7))[:60] == labels
    assert _labels(with_random_labels(source, 8)) != labels
    chosen = with_random_labels(source, 7).subset([5, 3])
    assert _labels(chosen) == [labels[5], labels[3]]
    drawn = with_random_labels(source.subset([5, 3]), 7)
    assert _labels(drawn) == [labels[5], labels[3]]
    assert _labels(pickle.loads(pickle.dumps(drawn))) == _labels(drawn)


def test_nothing_but_the_label_changes(train):
    drawn = with_random_labels(train, 0)
    for i in (0, 7, 59):
        before, after = dict(train[i]), dict(drawn[i])
        assert isinstance(after.pop("label"), int) and before.pop("label") is not None
        assert before.keys() == after.keys()
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value)
    assert len(drawn) == len(train)
    assert _labels(train) != _labels(drawn)


def test_labels_are_the_same_in_every_epoch_and_batch(train):
    labels = _by_image(_take(train, 10))  # two epochs
    assert len(labels) == 60 and all(len(of_image) == 1 for of_image in labels.values())
    assert _by_image(_take(train, 6, batch_size=20)) == labels
    truth = {}
    for batch in _take(train, 5, random_labels=False):
        truth |= _by_image([batch])
    same = np.mean([labels[image] == truth[image] for image in truth])
    assert 0 < same < 0.3  # one in ten by chance
    assert _by_image(_take(train, 5, seed=5)) != labels


def test_labels_do_not_depend_on_what_is_held_out(train):
    rest, held_out = split_holdout(train, 20, seed=0)
    labels = _by_image(_take(train, 5))
    some = _by_image(_take(rest, 5, batch_size=8))
    assert len(some) == 40 and some.items() <= labels.items()
    shown = _by_image(pipeline.eval_batches(held_out, batch_size=20, image_size=32))
    assert sorted(next(iter(of_image)) for of_image in shown.values()) == sorted(
        _labels(held_out)
    )
    assert any(labels[image] != of_image for image, of_image in shown.items())


def test_an_iterator_resumes_with_the_same_labels(train):
    options = {"batch_size": 12, "seed": 4} | UNCHANGED
    first = pipeline.make_train_iterator(train, **options)
    for _ in range(3):
        next(first)
    state, expected = first.get_state(), next(first)
    second = pipeline.make_train_iterator(train, **options)
    second.set_state(state)
    found = next(second)
    for name in ("image", "label"):
        np.testing.assert_array_equal(found[name], expected[name])
    first.close()
    second.close()


def test_several_labels_cannot_be_random(train):
    several = dataclasses.replace(train, has_several_labels=True)
    with pytest.raises(InputError, match="config.data.random_labels draws one label"):
        _take(several, 1)
    _take(several, 1, random_labels=False)
