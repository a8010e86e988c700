"""Takes the pictures that the documentation shows.

python -m tests.screenshots report REPORT.html docs
python -m tests.screenshots data DATA.html docs
python -m tests.screenshots tutorial REPORT.html docs
python -m tests.screenshots photographs PHOTOS/train docs
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
OF_TUTORIAL = {"tutorial-report.png": (WIDE, 1500)}
OF_PAGES = {"report": OF_REPORT, "data": OF_DATA, "tutorial": OF_TUTORIAL}
"""Width and height in pixels, by name."""

RUN_HEIGHT, ARTIFACT_HEIGHT = 900, 620

SAMPLES, SIDE, GAP = 8, 96, 4
"""Number of images of each class, their side in pixels, and the pixels between them."""


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


def of_folders(split: Path, out: Path) -> Path:
    """Draw some images of each class's folder, a row for each in the order of their names."""
    folders = sorted(folder for folder in split.iterdir() if folder.is_dir())
    pitch = SIDE + GAP
    sheet = Image.new("RGB", (SAMPLES * pitch - GAP, len(folders) * pitch - GAP), "white")
    for row, folder in enumerate(folders):
        images = sorted(path for path in folder.glob("*.jpg") if path.stem.isdecimal())
        for column, path in enumerate(images[:SAMPLES]):
            with Image.open(path) as image:
                sheet.paste(image.resize((SIDE, SIDE)), (column * pitch, row * pitch))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return save(buffer.getvalue(), out / "tutorial-photos.png")


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
    """Take the pictures of a page, of a run in Prefect's UI, or of a folder of photographs."""
    if subject == "photographs":
        print(of_folders(Path(arguments[0]), Path(arguments[1])))
        return
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as browser:
        if subject in OF_PAGES:
            page, out = Path(arguments[0]).resolve(), Path(arguments[1])
            paths = of_report(browser, page, out, OF_PAGES[subject])
        else:
            api, run, directory = arguments
            paths = of_prefect(PrefectPages(browser, api, run), Path(directory))
        for path in paths:
            print(path, path.stat().st_size)


if __name__ == "__main__":
    main(*sys.argv[1:])
