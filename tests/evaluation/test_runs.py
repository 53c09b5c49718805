"""Names of rows, and what a run's training data have."""

from pathlib import Path

import numpy as np
import pytest

from saliency_jax.data import sources
from saliency_jax.data.shapes import CLASSES
from saliency_jax.errors import InputError
from saliency_jax.evaluation.classes import training_classes
from saliency_jax.evaluation.names import short_names
from saliency_jax.evaluation.runs import load_beside, load_run
from saliency_jax.evaluation.table import groups
from tests.painted import source_of


def test_names_are_short_where_they_can_be():
    paths = [Path("/a/x"), Path("/b/x"), Path("/b/y"), Path("casm")]
    here = str(Path("casm").absolute())
    assert short_names(paths) == ["/a/x", "/b/x", "y", "casm"]
    assert short_names(paths, taken=("casm", "z")) == ["/a/x", "/b/x", "y", here]
    with pytest.raises(InputError, match=r"/a/x is named twice: name each"):
        short_names([*paths, Path("/a/x")])


def test_a_run_knows_its_stage_and_size(casm_run):
    run = load_run(casm_run)
    assert (run.stage, run.image_size, run.step) == ("casm", 32, 6)
    (beside,) = load_beside([str(casm_run)], source_of([], CLASSES), ("casm",)).items()
    assert beside[0] == str(casm_run) and beside[1].step == 6
    with pytest.raises(InputError, match="not the same"):
        load_beside([str(casm_run)], source_of([], CLASSES[::-1]), ())


def test_all_shapes_are_in_the_training_data(shapes_dir, casm_run):
    known = training_classes(load_run(casm_run).config, shapes_dir)
    assert known.shape == (10,) and known.all()
    assert training_classes(load_run(casm_run).config, shapes_dir + "/gone") is None


def test_labels_are_read_only_until_every_class_was_met(monkeypatch):
    class Records(list):
        reads = 0

        def __getitem__(self, index):
            Records.reads += 1
            return {"image": b"never decoded", "label": index % 2}

    config = {"data": {"name": "painted"}}

    def known(class_names):
        source = source_of([], class_names)
        records = Records(range(1000))
        object.__setattr__(source, "records", records)
        monkeypatch.setattr(sources, "open_source", lambda *names: source)
        Records.reads = 0
        return training_classes(config, "nowhere").tolist()

    assert known(("even", "odd")) == [True, True]
    assert 2 <= Records.reads < 20
    assert known(("even", "odd", "other")) == [True, True, False]
    assert Records.reads == 1000


def test_groups_are_those_that_have_images():
    labels, known = np.array([0, 2, 1, 2]), np.array([True, True, False])
    found = groups(labels, known)
    np.testing.assert_array_equal(found["seen"], [True, False, True, False])
    np.testing.assert_array_equal(found["unseen"], [False, True, False, True])
    assert found["rows"].all()
    assert list(groups(labels[:1], known)) == ["rows", "seen"]
    assert list(groups(labels[1:2], known)) == ["rows", "unseen"]
    for everything in (None, np.ones(3, bool)):
        assert list(groups(labels, everything)) == ["rows"]
