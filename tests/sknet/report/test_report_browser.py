"""The page in a real browser: it asks nobody for anything, fits, sorts, and can be read by all."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from sknet.report import write_report
from sknet.report.tables import UNKNOWN
from tasks.catalog.comparison import compare_named
from tasks.catalog.runs import collect, thumbnails
from tests.browser import PHONE, WIDE, Browser, chromium
from tests.screenshots import MAX_BYTES, of_report
from tests.synthetic_store import fill

pytestmark = pytest.mark.slow

CELLS = """
const table = document.querySelector('table.sortable');
const column = [...table.tHead.rows[0].cells].findIndex(
    cell => cell.querySelector('button').textContent === arguments[0]);
return [...table.tBodies[0].rows].map(row => row.cells[column].textContent);
"""
# Text whose colour and the nearest painted background below it are less than 4.5 : 1 apart.
FAINT = """
const linear = value => value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
const channel = value => linear(value / 255);
const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
const parse = colour => colour.match(/[\\d.]+/g).map(Number);
const below = place => {
  for (; place; place = place.parentElement) {
    const colour = parse(getComputedStyle(place).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour;
  }
};
const faint = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode());) {
  const place = node.parentElement;
  if (!node.data.trim() || ['SCRIPT', 'STYLE', 'style'].includes(place.tagName)) continue;
  const style = getComputedStyle(place);
  const own = parse(place instanceof SVGElement ? style.fill : style.color);
  const [a, b] = [light(own), light(below(place))].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05);
  if (ratio < 4.5) faint.push(`${ratio.toFixed(2)}: ${node.data.trim().slice(0, 60)}`);
}
return faint;
"""
BEYOND = """
const width = document.documentElement.clientWidth;
return [...document.body.querySelectorAll('*')].filter(place => {
  if (place.closest('.scroll, pre, svg') && !place.matches('.scroll, pre, svg')) return false;
  const box = place.getBoundingClientRect();
  return box.width && (box.right > width + 0.5 || box.left < -0.5);
}).map(place => place.outerHTML.slice(0, 120));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a store in which everything happened: nights, a refusal, damage, runs half done."""
    root = tmp_path_factory.mktemp("browser")
    filler = fill(root / "store", 2, num_revalidations=12)
    filler.run(50, evaluated=False)
    lost, _ = filler.run(51)
    (root / "store" / "checkpoint" / lost.key / "state.json").unlink()
    findings = collect(filler.store, price=2.0)
    assert len(findings.runs) == 3
    assert findings.unreadable
    first, second = (run.key for run in findings.runs[-2:])
    comparison = compare_named(filler.store, findings, first, second)
    pictures = thumbnails(filler.store, findings.runs)
    assert pictures
    write_report(findings, root / "out", comparison=comparison, pictures=pictures)
    return root / "out" / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_whole_at_any_width_in_light_and_dark(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width=width, dark=dark)
    browser.script("for (const each of document.querySelectorAll('details')) each.open = true")

    assert browser.complaints() == []
    addresses = browser.requested()
    assert page.as_uri() in addresses
    assert all(each == page.as_uri() or each.startswith("data:") for each in addresses)
    assert browser.script("return innerWidth") == width
    assert browser.script("return document.documentElement.scrollWidth") <= width
    assert browser.script(BEYOND) == []
    assert browser.script(FAINT) == []
    paper = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")


def test_axe_finds_nothing_wrong(browser: Browser, page: Path) -> None:
    browser.open(page, width=PHONE)
    assert browser.violations() == []


def test_a_click_sorts_numbers_as_numbers_and_leaves_the_unknown_last(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    (header,) = browser.driver.find_elements(
        By.XPATH, "//section[@id='results']//th[button='img/s']"
    )
    assert header.get_attribute("aria-sort") is None
    before = browser.script(CELLS, "img/s")
    known = sorted(float(cell) for cell in before if cell != UNKNOWN)
    assert known[-1] == 11169.28  # as text it would come before 97
    for order, expected in (("ascending", known), ("descending", known[::-1])):
        header.find_element(By.TAG_NAME, "button").click()
        cells = browser.script(CELLS, "img/s")
        assert [float(cell) for cell in cells[: len(known)]] == expected
        assert set(cells[len(known) :]) == {UNKNOWN}
        assert header.get_attribute("aria-sort") == order


def test_the_keyboard_sorts_too(browser: Browser, page: Path) -> None:
    browser.open(page)
    button = browser.driver.find_element(
        By.XPATH, "//section[@id='results']//th/button[.='model name']"
    )
    browser.script("arguments[0].focus()", button)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    names = browser.script(CELLS, "model name")
    # As people count: SKNet-50 before SKNet-101.
    assert [name for place, name in enumerate(names) if name not in names[:place]] == [
        "SKNet-50",
        "SKNet-101",
        "skresnet18",
        "skresnet34",
        "skresnext50_32x4d",
    ]
    browser.driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert browser.script(CELLS, "model name")[0] == "skresnext50_32x4d"
    sorts = browser.script("return document.querySelectorAll('#results [aria-sort]').length")
    assert sorts == 1


def test_every_figure_and_picture_has_words_and_headings_go_in_order(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    unnamed = browser.script(
        "return [...document.querySelectorAll('svg, img')].filter("
        "each => !(each.getAttribute('aria-label') || each.getAttribute('alt'))).length"
    )
    assert unnamed == 0
    loaded = browser.script(
        "for (const each of document.querySelectorAll('details')) each.open = true;"
        "return [...document.images].map(each => each.complete && each.naturalWidth > 0)"
    )
    assert loaded
    assert all(loaded)
    levels = browser.script(
        "return [...document.querySelectorAll('h1,h2,h3,h4,h5')].map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_a_link_to_a_folded_run_unfolds_it(browser: Browser, page: Path) -> None:
    browser.open(page)
    folded = browser.script("return document.querySelector('details.run:not([open]) h3').id")
    browser.driver.find_element(By.CSS_SELECTOR, f"nav a[href='#{folded}']").click()
    assert browser.script(
        "return document.getElementById(arguments[0]).closest('details').open", folded
    )


def test_the_pictures_for_the_documentation_are_small(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    written = list(of_report(browser, page, tmp_path))
    assert [path.name for path in written] == ["report-wide.png", "report-phone.png"]
    for path, width in zip(written, (WIDE, PHONE), strict=True):
        assert path.stat().st_size <= MAX_BYTES
        with Image.open(path) as picture:
            assert picture.width == width
