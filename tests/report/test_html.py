"""The page without a browser: what it holds, what is escaped, and how large it is."""

import base64
import hashlib
import re
import tomllib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

import saliency_jax.report.html
from saliency_jax.report.html.agreement import agreement_section
from saliency_jax.report.html.curves import curves_section
from saliency_jax.report.html.page import build_page
from saliency_jax.report.html.pictures import MOST_BYTES, image_uri, map_uri
from tests.compared import HOSTILE, compare, gallery_of

ROWS = ("cam", "casm")


class Elements(HTMLParser):
    """Every start tag with its attributes, and all text outside scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self._inside = [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def page():
    comparison = compare()
    rows = comparison.rows | {
        "cam": comparison.rows["cam"]._replace(title=HOSTILE, note=HOSTILE)
    }
    how = {"command": HOSTILE, HOSTILE: [1, 2]}
    published = {"casm": {"le": (0.361, HOSTILE)}}
    hostile = comparison._replace(rows=rows, how=how, published=published)
    return build_page(hostile, gallery_of(ROWS), title=HOSTILE)


def decode(uri):
    encoded = base64.b64decode(uri.partition("base64,")[2])
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_text_from_outside_stays_text(page):
    elements = Elements(page)
    names = Counter(tag for tag, _ in elements.tags)
    assert names["script"] == 1
    assert names["img"] == 2 * 3  # rows by images; none of the hostile ones
    assert not any(
        name.startswith("on") for _, attrs in elements.tags for name in attrs
    )
    # title and heading; row, its note, legend, curve, gallery and cases; source; ...
    assert elements.text.count(HOSTILE) > 15
    assert any(HOSTILE in (attrs.get("alt") or "") for _, attrs in elements.tags)


def test_nothing_is_fetched_and_only_the_own_script_runs(page):
    elements = Elements(page)
    for _, attrs in elements.tags:
        for name in ("src", "href"):
            assert (attrs.get(name) or "#").startswith(("#", "data:"))
    assert set(re.findall(r"url\(.(.{5})", page)) == {"data:"}
    (policy,) = [
        attrs["content"] for tag, attrs in elements.tags if "http-equiv" in attrs
    ]
    script = re.search("<script>(.*)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_every_link_leads_somewhere_and_no_name_is_given_twice(page):
    elements = Elements(page)
    names = Counter(attrs["id"] for _, attrs in elements.tags if "id" in attrs)
    links = {attrs["href"][1:] for tag, attrs in elements.tags if tag == "a"}
    assert max(names.values()) == 1
    assert links <= set(names)
    assert {"figures-section", "source-1", "cell-0-0", "cell-1-1"} <= links


def test_rows_cells_and_their_order(page):
    elements = Elements(page)
    cells = [attrs for tag, attrs in elements.tags if tag == "td"]
    values = [attrs.get("data-value") for attrs in cells[:12]]
    # truth, centre, cam: LE, published, area, images/s
    assert values == [
        *("0.0", None, None, None),
        *("0.2999", None, "0.5", "250.0"),
        *("0.3", None, "0.5", "21.5"),
    ]
    assert "out of memory" in elements.text
    assert page.count("<b>30.0</b><small>[0.0, 100.0]</small>") == 1


def test_pictures_are_stored_once_and_have_names(page):
    gallery = gallery_of(ROWS)
    for image in gallery.images:
        assert page.count(image_uri(image)) == 1
    elements = Elements(page)
    for tag, attrs in elements.tags:
        if tag == "img":
            assert attrs["alt"].startswith("map of ")
        if attrs.get("role") in ("img", "region"):
            assert attrs["aria-label"]


def test_boxes_lie_where_they_are(page):
    rectangles = [
        (a["class"], *(int(a[key]) for key in ("x", "y", "width", "height")))
        for tag, a in Elements(page).tags
        if tag == "rect" and a["class"] != "under"
    ]
    # of 3 images the last has neither truth nor prediction
    assert Counter(rectangles) == {
        ("true", 8, 8, 32, 36): 2 * (1 + 2),
        ("predicted", 6, 4, 24, 16): 2 * 2,
    }


def test_what_is_missing_is_left_out():
    comparison = compare()._replace(agreement=None, curves={}, how={}, published={})
    alone = build_page(comparison)
    assert re.findall("<h2>(.*?)</h2>", alone) == ["Figures"]
    assert "<img" not in alone
    empty = comparison._replace(rows={}, metrics={})
    assert "nothing by 0 metrics" in build_page(empty)


def test_curves_end_where_their_scores_are():
    comparison = compare()
    drawn = curves_section(comparison, list(comparison.rows))
    points = re.findall(r'<polyline points="(.*?)"', drawn)
    # insertion of cam and casm, deletion of cam; 1 lies at the top and 0 at the bottom
    assert points == [
        "46.0,286.0 258.0,148.0 470.0,10.0",
        "46.0,286.0 258.0,217.0 470.0,10.0",
        "46.0,10.0 258.0,217.0 470.0,286.0",
    ]
    negative = comparison._replace(curves={"cam": {"insertion": [-3.0, 7.0]}})
    labels = re.findall(r'text-anchor="end">(.*?)<', curves_section(negative, ["cam"]))
    assert labels == ["-4", "-2", "0", "2", "4", "6", "8"]


def test_agreement_is_coloured_by_sign_and_size():
    section = agreement_section(compare())
    assert re.findall(r"rgba\((.*?)\)\">(.*?)<", section) == [
        ("214, 69, 56, 0.75", "1.00"),
        ("47, 126, 216, 0.38", "-0.50"),
        ("47, 126, 216, 0.38", "-0.50"),
        ("214, 69, 56, 0.75", "1.00"),
    ]


def test_hard_light_shows_the_image_where_a_signed_map_is_zero():
    values = np.zeros((60, 60), np.float32)
    values[:20], values[40:] = 2.0, -2.0
    uri, signed = map_uri(values, 60)
    assert signed
    source = decode(uri) / 255
    backdrop = np.full(source.shape, 0.4)
    multiplied = 2 * source * backdrop
    screened = backdrop + (2 * source - 1) * (1 - backdrop)
    blended = np.where(source <= 0.5, multiplied, screened)
    np.testing.assert_allclose(blended[5:15], [[[1, 0, 0]] * 60] * 10, atol=0.05)
    np.testing.assert_allclose(blended[25:35], 0.4, atol=0.03)
    np.testing.assert_allclose(blended[45:55], [[[0, 0.2, 1]] * 60] * 10, atol=0.05)


def test_a_small_map_keeps_its_grid_and_a_large_one_is_made_smaller():
    values = np.zeros((2, 2), np.float32)
    values[0, 1] = 1
    uri, signed = map_uri(values, 64)
    picture = decode(uri)
    assert not signed and picture.shape == (64, 64, 3)
    assert (picture[2:30, 34:62] > 220).all() and (picture[34:62, 2:62] < 30).all()
    assert decode(map_uri(np.zeros((90, 90), np.float32), 64)[0]).shape == (64, 64, 3)


def test_fifty_images_by_twelve_rows_stay_below_25_megabytes():
    noise = np.random.default_rng(0).normal(size=(224, 224)).astype(np.float32)
    # no picture is harder to encode than white noise
    longest = max(len(map_uri(values, 224)[0]) for values in (noise, np.abs(noise)))
    assert longest <= 4 * -(-MOST_BYTES // 3) + len("data:image/webp;base64,")
    coarse = np.random.default_rng(1).integers(0, 256, (28, 28, 3), np.uint8)
    image = cv2.resize(coarse, (224, 224), interpolation=cv2.INTER_CUBIC)
    markup = 1500  # bytes of a cell beside its picture; measured: 620
    total = 50 * len(image_uri(image)) + 600 * (longest + markup)
    assert total < 25e6


def test_the_package_data_of_the_project_are_all_there_are():
    folder = Path(saliency_jax.report.html.__file__).parent
    files = {p.name for p in folder.iterdir() if p.is_file() and p.suffix != ".py"}
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["package-data"]["saliency_jax.report.html"]
    assert set(listed) == files == {"page.html", "style.css", "script.js"}
