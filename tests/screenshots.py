"""The pictures that the documentation shows.

python -m tests.screenshots report REPORT.html docs
python -m tests.screenshots prefect API_URL RUN_ID docs

A picture has as few colours as its limit of size needs.
"""

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tests.browser import PHONE, WIDE, Browser, chromium
from tests.prefect_pages import TALL, PrefectPages

MAX_BYTES = 300_000
OF_REPORT = {"report-wide.png": (WIDE, 3150), "report-phone.png": (PHONE, 1700)}
"""Name → width and height."""
RUN_HEIGHT, ARTIFACT_HEIGHT = 900, 620


def of_report(browser: Browser, page: Path, out: Path) -> Iterator[Path]:
    """The report on a wide screen and on a phone."""
    for name, (width, height) in OF_REPORT.items():
        browser.open(page, width=width)
        yield save(browser.picture(height), out / name)


def of_prefect(pages: PrefectPages, out: Path) -> Iterator[Path]:
    """A run as Prefect's UI shows it: its graph, its stages, what it found and its promotion."""
    pages.open_run()
    yield save(pages.picture(RUN_HEIGHT), out / "prefect-run.png")
    pages.open_tab("Task Runs")
    yield save(pages.picture(TALL), out / "prefect-stages.png")
    pages.open_artifact("promotion")
    yield save(pages.picture(ARTIFACT_HEIGHT), out / "prefect-promotion.png")
    pages.open_artifact("report")
    yield save(pages.picture(RUN_HEIGHT), out / "prefect-report.png")


def save(picture: bytes, path: Path) -> Path:
    """Write it."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    for colours in (256, 128, 64, 32):
        image.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MAX_BYTES:
            break
    return path


def main(what: str, *words: str) -> None:
    """Take the pictures of a report, or of a run."""
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as browser:
        if what == "report":
            taken = of_report(browser, Path(words[0]).resolve(), Path(words[1]))
        else:
            taken = of_prefect(PrefectPages(browser, words[0], words[1]), Path(words[2]))
        for path in taken:
            print(path, path.stat().st_size)


if __name__ == "__main__":
    main(*sys.argv[1:])
