"""What stands in the rows: methods with options, and maps that need no model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax import attribution
from saliency_jax.errors import InputError
from saliency_jax.evaluation.comparison import contestants, faithfulness_pass
from saliency_jax.evaluation.comparison.contestants import maps_of, trivial
from saliency_jax.evaluation.comparison.passes import Setting
from tests.attribution.small_network import SIZE, classifier, images
from tests.painted import source_of

KEY = jax.random.key(0)
MODEL = classifier()


def batch_of(count):
    pixels = np.rint(images(count) * 255).astype(np.uint8)
    boxes = np.tile(np.array([[2, 4, 10, 12], [-1, -1, -1, -1]], np.int32), (count, 1))
    return {
        "image": pixels,
        "label": np.arange(count) % 3,
        "place": np.arange(count),
        "boxes_pixels": boxes.reshape(count, 2, 4),
        "original_size": np.full((count, 2), SIZE, np.int32),
    }


def test_methods_take_their_options_and_say_what_they_are():
    texts = ["gradient:reduction=sum_abs", "rise:masks=20:cells=4"]
    rows = contestants.methods(texts, SIZE, 2)
    assert list(rows) == texts
    assert [row.is_random for row in rows.values()] == [False, True]
    batch, model = batch_of(3), classifier()
    given = model, batch, jnp.asarray(batch["label"]), KEY, SIZE
    maps = maps_of(rows[texts[0]], *given)
    expected = attribution.gradient(
        model, batch["image"], batch["label"], reduction="sum_abs"
    )
    np.testing.assert_allclose(maps, expected, rtol=1e-5)
    maps = maps_of(rows[texts[1]], *given)
    expected = attribution.rise(
        model, batch["image"], batch["label"], masks=20, cells=4, key=KEY
    )
    np.testing.assert_allclose(maps, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["grad_cam", "grad_cam"], "the method grad_cam is named twice"),
        (["gradcam"], "did you mean grad_cam"),
        (["trained_masker"], "name the run as one of --maskers"),
    ],
)
def test_mistakes(texts, message):
    with pytest.raises(InputError, match=message):
        contestants.methods(texts, SIZE, 2)


def test_the_trivial_maps():
    rows = trivial(SIZE, seed=0)
    batch = batch_of(2)
    batch["boxes_inclusive"] = batch["boxes_pixels"]
    maps = {
        name: maps_of(row, MODEL, batch, batch["label"], KEY, SIZE)
        for name, row in rows.items()
    }
    assert (maps["whole_image"] == 1).all()
    inside = maps["ground_truth_box"][0]
    assert inside[4:13, 2:11].all() and inside.sum() == 81
    gaussian = maps["centre_gaussian"][0]
    assert np.argwhere(gaussian == gaussian.max()).tolist() == [
        [7, 7],
        [7, 8],
        [8, 7],
        [8, 8],
    ]
    np.testing.assert_allclose(gaussian, gaussian[::-1, ::-1], rtol=1e-5)
    # A quarter of the side from the centre it is at exp(-1/2) of the middle.
    assert gaussian[7, 11] / gaussian[7, 7] == pytest.approx(
        np.exp((0.5**2 - 3.5**2) / 4**2 / 2)
    )
    assert (
        np.ptp(maps["random"]) > 0.9 and (maps["random"][0] != maps["random"][1]).any()
    )


def test_random_maps_depend_on_the_place_alone():
    row, batch = trivial(SIZE, seed=0)["random"], batch_of(3)
    together = maps_of(row, MODEL, batch, batch["label"], KEY, SIZE)
    last = {name: values[2:] for name, values in batch.items()}
    alone = maps_of(row, MODEL, last, last["label"], KEY, SIZE)
    np.testing.assert_array_equal(alone[0], together[2])


def test_edges_are_where_the_brightness_changes():
    row, batch = trivial(SIZE, seed=0)["edges"], batch_of(1)
    batch["image"] = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    batch["image"][:, :, 8:] = 200
    (edges,) = maps_of(row, MODEL, batch, batch["label"], KEY, SIZE)
    assert (edges[:, 7:9] > 0).all() and edges.sum() == edges[:, 7:9].sum()


def test_maps_that_are_no_maps_are_refused():
    row = trivial(SIZE, seed=0)["edges"]
    batch = batch_of(2)
    given = MODEL, batch, batch["label"], KEY, SIZE
    wrong = row._replace(explain=lambda *asked: np.zeros((1, SIZE, SIZE), np.float32))
    with pytest.raises(
        InputError, match=r"edges gives an array of shape \(1, 16, 16\)"
    ):
        maps_of(wrong, *given)
    nan = row._replace(explain=lambda *asked: np.full((2, SIZE, SIZE), np.nan))
    with pytest.raises(InputError, match="the maps of edges are not finite"):
        maps_of(nan, *given)
    small = row._replace(explain=lambda *asked: np.ones((2, 4, 4), np.float32))
    assert maps_of(small, *given).shape == (2, SIZE, SIZE)


def test_masks_of_another_size_stay_masks():
    """Interpolation leaves ones by a rounding error, which is no mask any more."""
    ones = contestants.Contestant(
        "ones", "masker", lambda *_: np.ones((1, 192, 192), np.float32), 192, True
    )
    batch = {"label": np.zeros(1, int)}
    maps = maps_of(ones, MODEL, batch, batch["label"], KEY, 64)
    assert maps.max() == 1 and maps.min() > 0.999


def test_a_masker_is_asked_again_at_its_own_size():
    shown = []

    def explain(classifier, batch, targets, key):
        shown.append(batch["image"].shape)
        return np.asarray(batch["image"][..., 0], np.float32)

    masker = contestants.Contestant("m", "masker", explain, 8, True, asks=False)
    setting = Setting(MODEL, 16, source_of([]), 1, 1, 1, 0, {})
    again = faithfulness_pass.explaining(masker, setting)
    images = np.full((2, 16, 16, 3), 51, np.uint8)
    maps = again(images, np.array([0, 1]))
    assert shown == [(2, 8, 8, 3)] and maps.shape == (2, 16, 16)
    np.testing.assert_allclose(maps, 0.2, rtol=1e-5)
