import numpy as np
import pytest

from saliency_jax.metrics.intervals import mean_interval, wilson_interval
from saliency_jax.metrics.selectivity import join, selectivity, summarise


def _batch(*images):
    """Masks of 4x4 from the values on the one object, on the other, and elsewhere.

    The one object is the upper row, the other the two lowest rows.
    """
    masks = np.empty((len(images), 4, 4), np.float32)
    for mask, (asked, other, ground) in zip(masks, images, strict=True):
        mask[0], mask[1], mask[2:].flat[:] = asked, ground, other
    one, two = np.zeros((2, len(images), 4, 4), bool)
    one[:, 0], two[:, 2:] = True, True
    return masks, one, two


def test_hand_computed_figures():
    asked = [0.9, 0.8, 0.6, 0.1]
    figures = selectivity(*_batch((asked, [0.7] + [0.1] * 7, 1.0)))
    np.testing.assert_allclose(figures.mean_asked, [0.6], rtol=1e-6)
    np.testing.assert_allclose(figures.mean_other, [1.4 / 8], rtol=1e-6)
    np.testing.assert_array_equal(figures.kept_asked, [3 / 4])
    np.testing.assert_array_equal(figures.kept_other, [1 / 8])
    assert figures.scored.all() and figures.prefers.all() and figures.selects.all()


@pytest.mark.parametrize(
    ("asked", "other", "prefers", "selects"),
    [
        (1.0, 0.0, True, True),
        (0.0, 1.0, False, False),
        (1.0, 1.0, False, False),  # the whole image
        (0.0, 0.0, False, False),
        (0.5, 0.0, True, False),  # at one half nothing is kept yet
        (0.51, 0.5, True, True),
        (1.0, 0.6, True, False),  # preferred, but the other one is kept as well
        ([1, 1, 0, 0], 0.0, True, False),  # exactly half of it
        ([1, 1, 1, 0], 0.0, True, True),
        (1.0, [1, 1] + [0] * 6, True, False),  # exactly a quarter of the other one
        (1.0, [1] + [0] * 7, True, True),
        # Three of four pixels, just kept; the other one is a sharp spot and grey.
        ([0.51, 0.51, 0.51, 0], [1] + [0.5] * 7, False, True),
    ],
)
@pytest.mark.parametrize("ground", [0.0, 1.0])
def test_what_prefers_and_what_selects(asked, other, prefers, selects, ground):
    figures = selectivity(*_batch((asked, other, ground)))
    assert figures.prefers.tolist() == [prefers]
    assert figures.selects.tolist() == [selects]


def test_no_mask_selects_both_and_the_question_decides():
    rng = np.random.default_rng(0)
    masks = rng.random((300, 6, 6), np.float32) ** rng.uniform(0.2, 5, (300, 1, 1))
    first = rng.random((300, 6, 6)) < 0.1
    second = ~first & (rng.random((300, 6, 6)) < 0.1)
    there, back = (
        selectivity(masks.astype(np.float32), *objects)
        for objects in ((first, second), (second, first))
    )
    np.testing.assert_array_equal(there.mean_asked, back.mean_other)
    np.testing.assert_array_equal(there.kept_other, back.kept_asked)
    assert there.selects.any() and back.selects.any()
    assert not (there.selects & back.selects).any()
    assert not (there.prefers & back.prefers).any()


def test_the_summary_counts_images_with_both_objects():
    masks, one, two = _batch(
        (1.0, 0.0, 0.0), (1.0, 0.6, 0.0), (0.2, 0.4, 0.0), (1.0, 0.0, 0.0)
    )
    two[3] = False  # cut away with the margin
    figures = selectivity(masks, one, two)
    assert figures.scored.tolist() == [True, True, True, False]
    row = summarise(figures)
    assert row["images"] == 3
    assert row["prefers"] == pytest.approx(2 / 3)
    assert row["selects"] == pytest.approx(1 / 3)
    assert row["prefers_interval"] == wilson_interval(2, 3)
    assert row["selects_interval"] == wilson_interval(1, 3)
    assert row["mean_asked"] == pytest.approx(2.2 / 3)
    assert row["mean_other"] == pytest.approx(1.0 / 3)
    assert row["kept_asked"] == pytest.approx(2 / 3)
    assert row["kept_other"] == pytest.approx(1 / 3)
    assert row["kept_asked_interval"] == mean_interval(np.array([1.0, 1.0, 0.0]))
    two[:] = False
    assert summarise(selectivity(masks, one, two)) == {"images": 0}


def test_parts_join_to_the_whole():
    masks, one, two = _batch((1.0, 0.0, 0.0), (0.7, 0.6, 0.3), (0.2, 0.4, 1.0))
    parts = [selectivity(masks[i], one[i], two[i]) for i in (slice(2), slice(2, 3))]
    for got, expected in zip(join(parts), selectivity(masks, one, two), strict=True):
        np.testing.assert_array_equal(got, expected)
