"""The page in a real browser: it requests nothing, fits the screen, sorts, and is accessible."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

import sknet.data.__main__
from infra.base.commands import app_of, start
from sknet.recipe import load_recipe
from sknet.report import write_report
from sknet.report.text import UNKNOWN
from tasks.catalog.comparison import compare_named
from tasks.catalog.runs import collect, thumbnails
from tests.browser import PHONE, WIDE, Browser, chromium
from tests.screenshots import MAX_BYTES, of_report
from tests.sknet.conftest import write_images
from tests.synthetic_store import fill

pytestmark = pytest.mark.slow

A4 = 703
"""Width that A4 leaves between the page's margins, in pixels of CSS."""

OPEN_ALL = "for (const each of document.querySelectorAll('details')) each.open = true;"
CLOSED = "return document.querySelectorAll('details:not([open])').length"
# The cells of the column with a name, in the first sortable table.
CELLS = """
const table = document.querySelector('table.sortable');
const column = [...table.tHead.rows[0].cells].findIndex(
    cell => cell.querySelector('button').textContent === arguments[0]);
return [...table.tBodies[0].rows].map(row => row.cells[column].textContent);
"""
# Texts with a contrast below 4.5 : 1 against the nearest painted background.
FAINT_TEXTS = """
const linear = value => value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
const channel = value => linear(value / 255);
const luminance = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
const parse = colour => colour.match(/[\\d.]+/g).map(Number);
const background = element => {
  for (; element; element = element.parentElement) {
    const colour = parse(getComputedStyle(element).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour;
  }
};
const faint = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode());) {
  const element = node.parentElement;
  if (!node.data.trim() || ['SCRIPT', 'STYLE', 'style'].includes(element.tagName)) continue;
  const style = getComputedStyle(element);
  const own = parse(element instanceof SVGElement ? style.fill : style.color);
  const [a, b] = [luminance(own), luminance(background(element))].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05);
  if (ratio < 4.5) faint.push(`${ratio.toFixed(2)}: ${node.data.trim().slice(0, 60)}`);
}
return faint;
"""
# Elements that reach beyond the sides of the window, other than those inside what scrolls.
TOO_WIDE = """
const width = document.documentElement.clientWidth;
return [...document.body.querySelectorAll('*')].filter(element => {
  if (element.closest('.scroll, pre, svg') && !element.matches('.scroll, pre, svg')) return false;
  const box = element.getBoundingClientRect();
  return box.width && (box.right > width + 0.5 || box.left < -0.5);
}).map(element => element.outerHTML.slice(0, 120));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a store with revalidations, a refused run, damage, and an unevaluated run."""
    root = tmp_path_factory.mktemp("browser")
    filler = fill(root / "store", 2, num_revalidations=12)
    filler.run(50, evaluated=False)
    for number, model in enumerate(("sknet101", "sknet26")):
        choices = load_recipe("skresnet18_digits", [f"model={model}", f"lr=0.0{number + 1}"])
        filler.run(60 + number, recipe=choices)
    damaged, _ = filler.run(51)
    (root / "store" / "checkpoint" / damaged.key / "state.json").unlink()
    contents = collect(filler.store, price=2.0)
    assert len(contents.runs) == 5
    assert contents.unreadable
    first, second = (run.key for run in contents.runs[-2:])
    comparisons = compare_named(filler.store, contents, first, second)
    pictures = thumbnails(filler.store, contents.runs)
    assert pictures
    write_report(contents, root / "out", comparisons=comparisons, pictures=pictures)
    return root / "out" / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def data_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a data set with suspects and copies."""
    root = tmp_path_factory.mktemp("data")
    images = write_images(root / "images")
    shutil.copy(images / "train/cat/000.png", images / "val/dog/copy.png")
    Image.new("RGB", (8, 40), "white").save(images / "train/emu/white.png")
    (images / "train/emu/empty.png").touch()
    arguments = ["--source", str(images), "--out", str(root / "data.html")]
    assert start(app_of(sknet.data.__main__.command, "data"), arguments) == 0
    return root / "data.html"


@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("which", ["page", "data_page"])
def test_the_page_fits_and_is_legible_at_any_width_in_light_and_dark(
    browser: Browser, request: pytest.FixtureRequest, which: str, width: int, dark: bool
) -> None:
    page: Path = request.getfixturevalue(which)
    browser.open(page, width=width, dark=dark)
    browser.script(OPEN_ALL)

    assert browser.console_messages() == []
    addresses = browser.requested()
    assert page.as_uri() in addresses
    assert all(each == page.as_uri() or each.startswith("data:") for each in addresses)
    assert browser.script("return innerWidth") == width
    assert browser.script("return document.documentElement.scrollWidth") <= width
    assert browser.script(TOO_WIDE) == []
    assert browser.script(FAINT_TEXTS) == []
    paper = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")


def test_axe_finds_no_violation(browser: Browser, page: Path) -> None:
    browser.open(page, width=PHONE)
    # One run in full is enough: the others come from the same template, and axe takes long.
    browser.script(
        "for (const each of document.querySelectorAll('.run[open] details')) each.open = true"
    )
    assert browser.violations() == []


def test_axe_finds_no_violation_in_the_page_of_a_data_set(
    browser: Browser, data_page: Path
) -> None:
    browser.open(data_page, width=PHONE)
    assert browser.violations() == []


@pytest.mark.parametrize("which", ["page", "data_page"])
def test_every_picture_is_shown(
    browser: Browser, request: pytest.FixtureRequest, which: str
) -> None:
    browser.open(request.getfixturevalue(which))
    shown = browser.script(
        OPEN_ALL + "return [...document.images].map(each => each.complete && each.naturalWidth)"
    )
    assert shown
    assert all(shown)


def test_a_click_sorts_numbers_by_value_and_unknown_cells_last(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    (header,) = browser.driver.find_elements(
        By.XPATH, "//section[@id='results']//th[button='img/s']"
    )
    assert header.get_attribute("aria-sort") is None
    # As text, the one would come before all others, and the other after them.
    for new, old in zip(("1000.25", UNKNOWN), browser.script(CELLS, "img/s"), strict=False):
        browser.script(
            "[...document.querySelectorAll('.results td')]"
            ".find(cell => cell.textContent === arguments[0]).textContent = arguments[1]",
            *(old, new),
        )
    before = browser.script(CELLS, "img/s")
    known = sorted(float(cell) for cell in before if cell != UNKNOWN)
    assert known[-1] == 1000.25
    for order, expected in (("ascending", known), ("descending", known[::-1])):
        header.find_element(By.TAG_NAME, "button").click()
        cells = browser.script(CELLS, "img/s")
        assert [float(cell) for cell in cells[: len(known)]] == expected
        assert set(cells[len(known) :]) == {UNKNOWN}
        assert header.get_attribute("aria-sort") == order


def test_the_keyboard_sorts_names_in_natural_order(browser: Browser, page: Path) -> None:
    browser.open(page)
    button = browser.driver.find_element(
        By.XPATH, "//section[@id='results']//th/button[.='model name']"
    )
    browser.script("arguments[0].focus()", button)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    names = browser.script(CELLS, "model name")
    assert list(dict.fromkeys(names)) == ["sknet26", "sknet101", "skresnet18"]
    browser.driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert browser.script(CELLS, "model name")[0] == "skresnet18"
    sorts = browser.script("return document.querySelectorAll('#results [aria-sort]').length")
    assert sorts == 1


def test_runs_are_filtered_and_any_number_of_them_is_compared(browser: Browser, page: Path) -> None:
    browser.open(page)
    shown = "return [...document.querySelectorAll('.results tbody tr')].filter(row => !row.hidden)"
    choose = "document.querySelector(arguments[0]).click()"
    assert len(browser.script(shown)) == 5
    models = browser.driver.find_element(By.CSS_SELECTOR, ".controls select[name=model]")
    Select(models).select_by_visible_text("skresnet18")
    rows = browser.script(shown + ".map(row => row.dataset.model)")
    assert rows == ["skresnet18"] * 3
    Select(models).select_by_visible_text("all")
    compare = browser.driver.find_element(By.CSS_SELECTOR, ".controls button")
    for number in (1, 2, 3):
        assert compare.is_enabled() == (number > 2), "one run has nothing to be compared with"
        browser.script(choose, f".results tbody tr:nth-child({number}) .pick")
    compare.click()
    table = browser.script(
        "return [...document.querySelectorAll('#chosen tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert {len(row) for row in table} == {4}
    lines = {row[0]: row[1:] for row in table}
    assert lines["recipe: lr"][:2] == ["0.02", "0.01"]
    assert lines["model name"] == ["sknet26", "sknet101", "skresnet18"]
    assert "cards" not in lines, "it is the same for all"


@pytest.mark.parametrize("width", [1400, PHONE])
def test_each_row_of_runs_keeps_its_name_in_view(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    left = browser.script(
        "const box = document.querySelector('.results').parentElement;"
        "box.scrollLeft = box.scrollWidth;"
        "const cell = box.querySelector('tbody th');"
        "return [cell.getBoundingClientRect().left - box.getBoundingClientRect().left,"
        " cell.textContent]"
    )
    assert 0 <= left[0] <= 2
    assert left[1].startswith("skresnet18_digits")


def test_the_page_prints_in_full_within_its_sheets(browser: Browser, page: Path) -> None:
    browser.open(page)
    closed = browser.script(CLOSED)
    pages = browser.pdf().count(b"/Type /Page\n")
    assert browser.script(CLOSED) == closed > 0, "after printing, the page isn't as it was"
    browser.script(OPEN_ALL)
    assert pages == browser.pdf().count(b"/Type /Page\n") > 4, "something was closed on paper"
    browser.open(page, width=A4)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.script("dispatchEvent(new Event('beforeprint'))")
    closed = browser.script(CLOSED)
    scrolling = browser.script(
        "return [...document.querySelectorAll('.scroll')]"
        ".filter(box => box.scrollHeight > box.clientHeight + 2).length"
    )
    width = browser.script("return document.documentElement.scrollWidth")
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert (closed, scrolling) == (0, 0)
    assert width <= A4


def test_the_tiles_fill_their_rows(browser: Browser, page: Path) -> None:
    for width in (WIDE, 1000, PHONE):
        browser.open(page, width=width)
        ends = browser.script(
            "const tiles = document.querySelector('.tiles'); const ends = {};"
            "for (const tile of tiles.children) {"
            "  const box = tile.getBoundingClientRect(); ends[box.top] = box.right; }"
            "return Object.values(ends).map(end => tiles.getBoundingClientRect().right - end)"
        )
        assert all(abs(end) < 1 for end in ends)


def test_a_link_to_a_closed_run_opens_it(browser: Browser, page: Path) -> None:
    browser.open(page)
    closed = browser.script("return document.querySelector('details.run:not([open]) h3').id")
    browser.driver.find_element(By.CSS_SELECTOR, f"nav a[href='#{closed}']").click()
    assert browser.script(
        "return document.getElementById(arguments[0]).closest('details').open", closed
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
