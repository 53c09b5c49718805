import cv2
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.report import figures

MEAN = (0.2, 0.4, 0.6)
MEAN_COLOUR = [51, 102, 153]


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)


def cells(picture, rows, columns, side, left=0):
    """Cuts a picture into its cells."""
    step = side + figures.GAP
    return [
        [
            picture[figures.HEADER + r * step :, left + c * step :][:side, :side]
            for c in range(columns)
        ]
        for r in range(rows)
    ]


def test_masked_pair_fills_with_the_mean_colour(images):
    mask = np.zeros((16, 16), np.float32)
    mask[:8] = 1
    mask[8] = 0.5
    masked_in, masked_out = figures.masked_pair(images[0], mask, MEAN)
    np.testing.assert_array_equal(masked_in[:8], images[0, :8])
    np.testing.assert_array_equal(masked_out[9:], images[0, 9:])
    assert (masked_in[9:] == MEAN_COLOUR).all() and (
        masked_out[:8] == MEAN_COLOUR
    ).all()
    # halfway: the two are equal and average the image and the colour
    np.testing.assert_array_equal(masked_in[8], masked_out[8])
    expected = (images[0, 8].astype(float) + MEAN_COLOUR) / 2
    np.testing.assert_allclose(masked_in[8], expected, atol=0.5)


def test_strip_has_a_row_per_image_and_four_columns(images):
    masks = np.zeros((3, 16, 16), np.float32)
    masks[0] = 1
    picture = figures.picture_strip(images, masks, MEAN)
    side = 16 * 9  # the least multiple of 16 that is readable
    assert picture.shape == (figures.HEADER + 3 * side + 8, 4 * side + 12, 3)
    kept, removed, _ = cells(picture, 3, 4, side)
    assert (kept[1] == 255).all() and (removed[1] == 0).all()
    np.testing.assert_array_equal(kept[0], kept[2])
    assert (kept[3] == MEAN_COLOUR).all() and (removed[2] == MEAN_COLOUR).all()
    np.testing.assert_array_equal(removed[0], removed[3])


def test_strip_takes_floats_as_well_and_keeps_large_images(images):
    large = images.repeat(14, axis=1).repeat(14, axis=2)
    masks = np.full((3, 224, 224), 0.3, np.float32)
    from_bytes = figures.picture_strip(large, masks, MEAN)
    from_floats = figures.picture_strip(large.astype(np.float32) / 255, masks, MEAN)
    np.testing.assert_array_equal(from_bytes, from_floats)
    np.testing.assert_array_equal(cells(from_bytes, 1, 1, 224)[0][0], large[0])


def test_grid_rows_and_boxes():
    images = np.full((2, 160, 160, 3), 90, np.uint8)
    binary = np.zeros((2, 160, 160), bool)
    binary[0, 40:80, 20:100] = True
    predicted = np.array([[40, 20, 80, 100], [0, 0, 0, 0]])
    filed = [np.array([[10, 30, 120, 140]]), np.array([[-20, 30, 50, 200]])]
    picture = figures.localisation_grid(
        images, binary, predicted, filed, ["fish", "a very long class name " * 9], MEAN
    )
    grid = cells(picture, 4, 2, 160, left=figures.LABEL_WIDTH)
    first, second = grid[0]
    assert (first[30, 60] == figures.FILED).all()
    assert (first[139, 60] == figures.FILED).all()  # half-open: the last row inside
    assert (first[79, 60] == figures.PREDICTED).all()
    assert (first[60, 99] == figures.PREDICTED).all()
    assert not (second == figures.PREDICTED).all(axis=-1).any()  # no box predicted
    assert not (second[40:, 0] == figures.FILED).all(axis=-1).any()  # beyond the edge
    assert (grid[1][0][41, 21] == 90).all() and (grid[1][1] == MEAN_COLOUR).all()
    assert (grid[2][0][41, 21] == MEAN_COLOUR).all() and (grid[2][1] == 90).all()
    np.testing.assert_allclose(grid[3][0].astype(int), 90, atol=6)  # inpainted


def test_class_grid_shows_what_each_mask_keeps(images):
    masks = np.zeros((3, 2, 16, 16), np.float32)
    masks[:, 1] = 1
    names = [["cat", "dog"]] * 3
    picture = figures.class_grid([*images], [*masks], names, MEAN)
    side = 16 * 9
    height = figures.HEADER + side + figures.GAP
    assert picture.shape == (3 * height - figures.GAP, 3 * side + 2 * figures.GAP, 3)
    for row, image in enumerate(images):
        whole, nothing, everything = cells(picture[row * height :], 1, 3, side)[0]
        assert (nothing == MEAN_COLOUR).all()
        np.testing.assert_array_equal(everything, whole)
        # bicubic enlargement goes through the pixels' centres
        assert np.abs(whole[4::9, 4::9].astype(int) - image).max() <= 1


def test_text_stays_inside_its_cell():
    image = np.full((2, 150, 150, 3), 90, np.uint8)
    none = np.zeros((2, 150, 150), bool)
    boxes = np.zeros((2, 4), int)
    filed = [np.zeros((0, 4), int)] * 2
    long = figures.localisation_grid(image, none, boxes, filed, ["W" * 80, ""], MEAN)
    header = long[: figures.HEADER, figures.LABEL_WIDTH :]
    assert (header[:, :150] < 128).any()
    assert (header[:, 150:] == 255).all()
    labels = long[:, : figures.LABEL_WIDTH]
    assert (labels[:, -figures.GAP :] == 255).all()


def test_a_caption_is_cut_before_its_number():
    width = lambda text: cv2.getTextSize(
        text, cv2.FONT_HERSHEY_SIMPLEX, figures.TEXT_SCALE, 1
    )[0][0]
    caption = figures.Caption("indigo bunting, Passerina cyanea", "0.98")
    for room, text in (
        (600, "indigo bunting, Passerina cyanea 0.98"),
        (width("indigo bunting 0.98"), "indigo bunting 0.98"),
        (width("indigo .. 0.98"), "indigo .. 0.98"),
        (1, ".. 0.98"),
    ):
        assert figures.fitting(caption, room) == text
    assert figures.fitting("a, b 0.98", width("a, b..")) == "a, b.."
    assert figures.fitting(caption._replace(number=""), 600) == caption.name
    body = np.zeros((9, 150, 3), np.uint8)
    long, short = (
        figures.with_header(body, [figures.Caption(name, "0.98")])
        for name in ("indigo bunting, Passerina cyanea", "indigo bunting")
    )
    np.testing.assert_array_equal(long, short)


def test_png_round_trip_and_unwritable_place(tmp_path, images):
    figures.save_png(tmp_path / "a.png", images[0])
    read = cv2.imread(str(tmp_path / "a.png"))[..., ::-1]
    np.testing.assert_array_equal(read, images[0])
    with pytest.raises(InputError, match=r"missing/a\.png"):
        figures.save_png(tmp_path / "missing" / "a.png", images[0])
