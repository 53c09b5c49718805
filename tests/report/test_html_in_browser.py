"""The page in a real browser: Chromium, headless, opened from disk.

Skipped where Chromium, its driver or selenium is missing. On Debian:
`apt-get install chromium chromium-driver`.
"""

import shutil
import time

import pytest

from saliency_jax.report.html.page import build_page
from tests.compared import HOSTILE, compare, gallery_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """The page of a small comparison, open in Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("no Chromium with its driver: apt-get install chromium-driver")
    folder = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (*OPTIONS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    chromium = webdriver.Chrome(options=options, service=service)
    page = folder / "report.html"
    page.write_text(build_page(compare(), gallery_of(("cam", "casm"))), "utf-8")
    chromium.get(page.as_uri())
    yield chromium
    log = chromium.get_log("browser")
    chromium.quit()
    assert log == []  # whatever the tests below have done


def find(browser, selector):
    return browser.find_element("css selector", selector)


def cells(browser, column):
    """A column of the table as it is shown, from top to bottom."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#figures tbody tr')]"
        f".map(row => row.cells[{column}].dataset.value ?? null)"
    )


def test_no_error_and_no_script_from_outside(browser):
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.injected") is None
    headings = browser.execute_script(
        "return [...document.querySelectorAll('.image h3')].map(h => h.textContent)"
    )
    assert headings == ["image 0", "image 1", HOSTILE]
    assert "js" in find(browser, "html").get_attribute("class")


def test_images_load(browser):
    sizes = browser.execute_script(
        "return [...document.images].map(i => [i.naturalWidth, i.alt])"
    )
    # three images by two rows, and of each row one best and one worst case
    assert len(sizes) == 3 * 2 + 2 * 2
    assert all(width == 48 and alt for width, alt in sizes)
    # a background that does not load is no error: its pixels say whether it is there
    behind = browser.execute_script(
        "return getComputedStyle(document.querySelector('.picture'), '::before')"
        ".backgroundImage"
    )
    assert behind.startswith('url("data:image/webp')


def test_a_click_sorts_both_ways_and_rows_without_a_figure_stay_last(browser):
    header = find(browser, "#figures thead tr:last-child th:last-child")
    assert header.text.startswith("images/s")
    button = header.find_element("tag name", "button")
    button.click()
    assert header.get_attribute("aria-sort") == "descending"  # the best on top
    assert cells(browser, 4) == ["250.0", "21.5", "2.0", None, None]
    button.click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert cells(browser, 4) == ["2.0", "21.5", "250.0", None, None]


def test_the_keyboard_sorts_too_by_names_and_by_errors(browser):
    from selenium.webdriver.common.keys import Keys

    error, name = (
        find(browser, f"#figures thead {place} button")
        for place in ("tr:last-child th", "th[rowspan]")
    )
    error.send_keys(Keys.ENTER)
    assert cells(browser, 1) == ["0.0", "0.2999", "0.3", "0.4", None]
    name.send_keys(Keys.SPACE)
    assert cells(browser, 0) == ["A & B", "CASM", "centre box", "Grad_CAM", "truth"]
    name.send_keys(Keys.ENTER)
    assert cells(browser, 0) == ["truth", "Grad_CAM", "centre box", "CASM", "A & B"]
    sorted_by = browser.find_elements("css selector", "#figures th[aria-sort]")
    assert [header.text for header in sorted_by] == ["row"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_does_not_scroll_sideways(browser, width, scheme):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    inner, page, table, paper = browser.execute_script(
        "return [innerWidth, document.documentElement.scrollWidth,"
        " document.querySelector('.scroll').getBoundingClientRect().width,"
        " getComputedStyle(document.body).backgroundColor]"
    )
    assert inner == width and page <= width and table < width
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_groups_and_rows_can_be_hidden(browser):
    group = find(browser, "button[data-group='0']")
    speed = find(browser, "#figures td[data-group='1']")
    error = find(browser, "#figures td[data-group='0']")
    group.click()
    assert speed.is_displayed() and not error.is_displayed()
    group.click()
    assert error.is_displayed()

    find(browser, "#gallery-tools summary").click()
    first, second = browser.find_elements("css selector", "#image-0 .cell[data-row]")
    find(browser, "#gallery-tools [data-row='0']").click()
    assert second.is_displayed() and not first.is_displayed()
    find(browser, "#all-rows").click()
    assert first.is_displayed()
    find(browser, "#boxes").click()
    assert not second.find_element("css selector", "rect.true").is_displayed()
    find(browser, "#boxes").click()


def test_the_strength_of_the_maps(browser):
    picture = find(browser, ".picture .hot")
    assert picture.value_of_css_property("opacity") == "0.65"
    browser.execute_script(
        "const range = document.querySelector('#strength'); range.value = 20;"
        "range.dispatchEvent(new Event('input'))"
    )
    assert picture.value_of_css_property("opacity") == "0.2"


def test_pressing_a_name_highlights_its_curves(browser):
    button = find(browser, ".legend button[data-curve='0']")
    button.click()
    on = browser.find_elements("css selector", ".curve.on")
    assert [curve.get_attribute("data-curve") for curve in on] == ["0", "0"]
    button.click()
    find(browser, "h1").click()
    deadline = time.monotonic() + 5
    browser.execute_script("document.activeElement.blur()")
    while browser.find_elements("css selector", ".chosen, .curve.on"):
        assert time.monotonic() < deadline
