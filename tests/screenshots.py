"""Takes the pictures that the documentation shows.

python -m tests.screenshots report REPORT.html docs
python -m tests.screenshots data DATA.html docs
python -m tests.screenshots prefect API_URL RUN_ID docs

A picture has as few colours as it needs to be small enough.
"""

import io
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from tests.browser import PHONE, WIDE, Browser, chromium
from tests.prefect_pages import TALL, PrefectPages

MAX_BYTES = 300_000
"""Largest size of a picture."""

OF_REPORT = {"report-wide.png": (WIDE, 3150), "report-phone.png": (PHONE, 1700)}
OF_DATA = {"data-page.png": (WIDE, 3000)}
"""Width and height in pixels, by name."""

RUN_HEIGHT, ARTIFACT_HEIGHT = 900, 620


def of_report(
    browser: Browser,
    page: Path,
    out: Path,
    pictures: Mapping[str, tuple[int, int]] = OF_REPORT,
) -> Iterator[Path]:
    """Take pictures of a report, or of another page, by name and size; yield their paths."""
    for name, (width, height) in pictures.items():
        browser.open(page, width=width)
        yield save(browser.picture(height), out / name)


def of_prefect(pages: PrefectPages, out: Path) -> Iterator[Path]:
    """Take pictures of a run in Prefect's UI; yield their paths."""
    pages.open_run()
    yield save(pages.picture(RUN_HEIGHT), out / "prefect-run.png")
    pages.open_tab("Task Runs")
    yield save(pages.picture(TALL), out / "prefect-stages.png")
    pages.open_artifact("promotion")
    yield save(pages.picture(ARTIFACT_HEIGHT), out / "prefect-promotion.png")
    pages.open_artifact("report")
    yield save(pages.picture(RUN_HEIGHT), out / "prefect-report.png")


def save(picture: bytes, path: Path) -> Path:
    """Write a PNG with fewer colours, so that it is small enough."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    for colours in (256, 128, 64, 32):
        image.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MAX_BYTES:
            break
    return path


def main(subject: str, *arguments: str) -> None:
    """Take the pictures of a report, of the page of a data set, or of a run in Prefect's UI."""
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as browser:
        if subject in ("report", "data"):
            pictures = OF_REPORT if subject == "report" else OF_DATA
            paths = of_report(browser, Path(arguments[0]).resolve(), Path(arguments[1]), pictures)
        else:
            api, run, out = arguments
            paths = of_prefect(PrefectPages(browser, api, run), Path(out))
        for path in paths:
            print(path, path.stat().st_size)


if __name__ == "__main__":
    main(*sys.argv[1:])
